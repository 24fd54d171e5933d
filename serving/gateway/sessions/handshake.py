"""May this body talk to this policy, and what is done to its observations on the way in."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from model_core.spec.contract import PROTOCOL_VERSION, EmbodimentSpec, PolicyContract
from model_core.spec.conversion import Conversion, camera_names, compare, convert_committed, convert_observation
from model_core.spec.errors import ActwrightError, ContractError
from model_core.spec.protocol.image_codec import with_decoded
from model_core.spec.protocol.wire import Hello, Observe, Ready, Reject
from model_core.spec.types import Observation, RefusalCode
from serving.gateway.sessions.observation_checks import complaint, too_old
from serving.gateway.sessions.session import Prepared

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Fit:
    """How a cell's observations become the policy's. Used by one request of a cell at a time.

    It also watches the pictures: one that is the last one again although the robot has moved since, or that shows one colour
    only, is served but flagged ("frozen:front", "blank:front").
    """

    contract: PolicyContract | None
    conversions: tuple[Conversion, ...] = ()
    seen: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def of(contract: PolicyContract) -> Fit:
        """Nothing to convert."""
        return Fit(contract)

    @staticmethod
    def none() -> Fit:
        """For a cell that was refused."""
        return Fit(None)

    def prepare(self, observe: Observe, arrived_at: float, clock: Callable[[], float]) -> Prepared:
        """Everything about an OBSERVE that needs no session: pictures decoded, converted, checked. Never raises for what it holds."""
        assert self.contract is not None  # only sessions prepare, and they have one
        began = clock()
        try:
            whole = self._converted(observe, self.contract.embodiment)
            wrong = complaint(whole.observation, self.contract) or too_old(whole, self.contract)
        except ContractError as error:
            return Prepared(observe=observe, arrived_at=arrived_at, wrong=(RefusalCode.CONTRACT, str(error)[:400]))
        except ActwrightError as error:
            return Prepared(observe=observe, arrived_at=arrived_at, wrong=(RefusalCode.DECODE, str(error)[:400]))
        except Exception:  # an observation so odd that checking it fails is still the cell's, and still no exception
            logger.exception("observation.unreadable")
            return Prepared(observe=observe, arrived_at=arrived_at, wrong=(RefusalCode.DECODE, "the observation could not be read"))
        flags = () if wrong else tuple(self._noticed(whole.observation, observe.consumed))
        decode_ms = 1e3 * (clock() - began)
        return Prepared(observe=whole, arrived_at=arrived_at, wrong=wrong, flags=flags, decode_ms=decode_ms, conversions=self.conversions)

    def _converted(self, observe: Observe, body: EmbodimentSpec) -> Observe:
        """The OBSERVE in the policy's words: names, order, channels, units, raw pixels."""
        if not self.conversions and not observe.encoded:
            return observe
        names = camera_names(self.conversions)
        encoded = {names.get(name, name): image for name, image in observe.encoded.items()}
        observation = convert_observation(self.conversions, observe.observation, body)
        rows_DA, drawn = observe.committed_DA, observe.steering
        return replace(
            observe,
            observation=with_decoded(observation, encoded, body),
            encoded={},
            age_ms={names.get(name, name): age_ms for name, age_ms in observe.age_ms.items()},
            committed_DA=None if rows_DA is None else convert_committed(self.conversions, rows_DA),
            steering=None if drawn is None else replace(drawn, image=names.get(drawn.image, drawn.image)),
        )

    def _noticed(self, observation: Observation, consumed: int) -> list[str]:
        flags = []
        for name, image_HW3 in observation.images.items():
            step = max(1, min(image_HW3.shape[:2]) // 48)
            # Pixels are picked as one item of three bytes each, which takes half the time of three items.
            few = np.ascontiguousarray(image_HW3, np.uint8).view("V3")[::step, ::step].tobytes()
            mark = zlib.crc32(few)
            if consumed > 0 and self.seen.get(name) == mark:
                flags.append(f"frozen:{name}"[:128])
            if few and not few.strip(few[:1]):
                flags.append(f"blank:{name}"[:128])
            self.seen[name] = mark
        return flags


def greet(hello: Hello, ready: Ready) -> tuple[Ready | Reject, Fit]:
    """Answer a HELLO with `ready`, or with every field that does not fit."""
    contract = ready.contract
    if hello.protocol != PROTOCOL_VERSION:
        text = f"the service speaks protocol {PROTOCOL_VERSION}, the cell {hello.protocol}; install matching versions"
        return Reject(code=RefusalCode.CONTRACT, reason=text, epoch=hello.epoch), Fit.none()
    found = compare(contract, hello.embodiment)
    differences = [m.explain() for m in found.refusals]
    if hello.expected_contract_id and hello.expected_contract_id != contract.contract_id:
        differences.append(f"contract_id: the service has {contract.contract_id!r}, this cell expects {hello.expected_contract_id!r}")
    if differences:
        text = f"cell {hello.cell!r} does not fit contract {contract.contract_id} in {len(differences)} field(s): {differences[0]}"
        details = tuple(d[:1000] for d in differences[:256])
        return Reject(code=RefusalCode.CONTRACT, reason=text[:4000], epoch=hello.epoch, details=details), Fit.none()
    return replace(ready, conversions=tuple(c.explain()[:1000] for c in found.conversions)), Fit(contract, found.conversions)
