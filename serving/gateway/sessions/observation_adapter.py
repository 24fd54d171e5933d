"""How a cell's observations become the policy's: decoded, converted to the contract's names and units, and checked."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from model_core.spec.contract import EmbodimentSpec, PolicyContract
from model_core.spec.conversion import Conversion, camera_names, convert_committed, convert_observation
from model_core.spec.errors import ActwrightError, ContractError
from model_core.spec.protocol.image_codec import with_decoded
from model_core.spec.protocol.wire import Observe
from model_core.spec.types import Observation, RefusalCode
from serving.gateway.sessions.observation_checks import complaint, too_old

logger = logging.getLogger(__name__)

_SAMPLED_PIXELS = 48  # per image side, for the comparison with the last image


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedObservation:
    """An OBSERVE after all work that needs no session state, done off the event loop.

    observe: its images decoded, as the policy wants them. arrived_at: when its bytes were there. wrong: why it cannot be
    answered. flags: what was noticed in the images. conversions: applied to it, and to be applied to its answer.
    """

    observe: Observe
    arrived_at: float
    wrong: tuple[RefusalCode, str] | None = None
    flags: tuple[str, ...] = ()
    decode_ms: float = 0.0
    conversions: tuple[Conversion, ...] = ()


@dataclass(slots=True, eq=False)
class ObservationAdapter:
    """Prepares the observations of one cell. Used by one request of a cell at a time.

    It also compares the images: one that equals the last one although the robot has moved since, or that has one colour
    only, is served but flagged ("frozen:front", "blank:front").
    """

    contract: PolicyContract
    conversions: tuple[Conversion, ...] = ()
    last_images: dict[str, int] = field(default_factory=dict)

    @property
    def converts(self) -> bool:
        """Whether observations of this cell have to be converted."""
        return bool(self.conversions)

    def prepare(self, observe: Observe, arrived_at: float, clock: Callable[[], float]) -> PreparedObservation:
        """Decode, convert and check an OBSERVE. Never raises for what the message holds."""
        began = clock()
        try:
            whole = self._converted(observe, self.contract.embodiment)
            wrong = complaint(whole.observation, self.contract) or too_old(whole, self.contract)
        except ContractError as error:
            return PreparedObservation(observe=observe, arrived_at=arrived_at, wrong=(RefusalCode.CONTRACT, str(error)[:400]))
        except ActwrightError as error:
            return PreparedObservation(observe=observe, arrived_at=arrived_at, wrong=(RefusalCode.DECODE, str(error)[:400]))
        except Exception:  # an observation that makes the checks fail is the cell's fault, and never an exception of the service
            logger.exception("observation.unreadable")
            wrong = RefusalCode.DECODE, "the observation could not be read"
            return PreparedObservation(observe=observe, arrived_at=arrived_at, wrong=wrong)
        flags = () if wrong else tuple(self._image_flags(whole.observation, observe.consumed))
        decode_ms = 1e3 * (clock() - began)
        return PreparedObservation(
            observe=whole, arrived_at=arrived_at, wrong=wrong, flags=flags, decode_ms=decode_ms, conversions=self.conversions
        )

    def _converted(self, observe: Observe, body: EmbodimentSpec) -> Observe:
        """The OBSERVE in the policy's terms: names, order, channels, units, raw pixels."""
        if not self.conversions and not observe.encoded:
            return observe
        names = camera_names(self.conversions)
        encoded = {names.get(name, name): image for name, image in observe.encoded.items()}
        observation = convert_observation(self.conversions, observe.observation, body)
        prefix_DA, drawn = observe.committed_DA, observe.steering
        return replace(
            observe,
            observation=with_decoded(observation, encoded, body),
            encoded={},
            age_ms={names.get(name, name): age_ms for name, age_ms in observe.age_ms.items()},
            committed_DA=None if prefix_DA is None else convert_committed(self.conversions, prefix_DA),
            steering=None if drawn is None else replace(drawn, image=names.get(drawn.image, drawn.image)),
        )

    def _image_flags(self, observation: Observation, consumed: int) -> list[str]:
        flags = []
        for name, image_HW3 in observation.images.items():
            step = max(1, min(image_HW3.shape[:2]) // _SAMPLED_PIXELS)
            # Pixels are sampled as one item of three bytes each, which takes half the time of three items.
            sampled = np.ascontiguousarray(image_HW3, np.uint8).view("V3")[::step, ::step].tobytes()
            checksum = zlib.crc32(sampled)
            if consumed > 0 and self.last_images.get(name) == checksum:
                flags.append(f"frozen:{name}"[:128])
            if sampled and sampled == sampled[:3] * (len(sampled) // 3):  # one pixel again and again
                flags.append(f"blank:{name}"[:128])
            self.last_images[name] = checksum
        return flags
