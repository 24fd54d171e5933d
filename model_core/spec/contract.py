"""The contract: everything that a checkpoint promises about numbers, cameras and words, hashed.

It is made when a data set is frozen, travels with the weights to the robot, and is compared there field by
field before anything moves. `contract_id` is the SHA-256 of the canonical JSON form (sorted keys, no spaces,
shortest floats), cut to 16 hex digits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from model_core.spec.errors import ContractError, require
from model_core.spec.stats import UnnormStats

PROTOCOL_VERSION = 1


def canonical_json(document: object) -> str:
    """One text for one meaning: sorted keys, no spaces, no NaN. Raises ValueError on NaN or inf."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(document: object) -> str:
    """SHA-256 (hex, 64) of the canonical JSON of `document`."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class DimSpec:
    """The meaning of one number: name, unit, reference frame and the range in which it is allowed."""

    name: str
    unit: str
    low: float
    high: float
    frame: str = "world"

    def __post_init__(self) -> None:
        require(self.low < self.high, f"dimension {self.name!r}: low must be below high", got=(self.low, self.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSpec:
    """An ordered vector of `DimSpec`. `mode` says how an action is meant: absolute, delta or velocity; "" for proprio."""

    dims: tuple[DimSpec, ...]
    mode: str = ""

    def __len__(self) -> int:
        return len(self.dims)

    @property
    def low(self) -> np.ndarray:
        """Lower limits, float32 (A,)."""
        return np.array([d.low for d in self.dims], np.float32)

    @property
    def high(self) -> np.ndarray:
        """Upper limits, float32 (A,)."""
        return np.array([d.high for d in self.dims], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSpec:
    """One camera as the policy was trained with it. Pixels are RGB uint8, sent raw; resizing is the server's."""

    name: str
    width: int
    height: int
    max_age_ms: float = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbodimentSpec:
    """A body: its cameras in order, what its state means, what its actions mean, how often one is applied.

    gripper_open: the value of the gripper action dimension that opens it (its polarity).
    hold: the action that keeps the robot where it is, one value per action dimension; None means "repeat last".
    """

    name: str
    cameras: tuple[CameraSpec, ...]
    proprio: VectorSpec
    action: VectorSpec
    control_hz: float
    gripper_dim: str
    gripper_open: float
    hold: tuple[float | None, ...]

    def __post_init__(self) -> None:
        require(len(self.cameras) > 0, f"embodiment {self.name!r} needs at least one camera")
        require(
            len(self.hold) == len(self.action), f"embodiment {self.name!r}: hold needs one value per action dimension", got=len(self.hold)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningSpec:
    """What the model says before it acts, and how it is spelt.

    spelling: "compact" (one id a value) or "published" (byte-level text). codebook_digest: SHA-256 of the depth
    VQ-VAE that made the labels, so that depth tokens can be decoded years later.
    """

    depth_grid: tuple[int, int] = (10, 10)
    depth_codes: int = 128
    codebook_digest: str = ""
    trace_points: int = 5
    trace_range: int = 255
    trace_camera: str = ""
    steering: bool = True
    spelling: str = "compact"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyContract:
    """The whole promise of a checkpoint.

    words: the closed vocabulary of instructions (empty: any text up to `max_instruction_chars`).
    dataset_version: digest of the data set that the statistics and words were taken from.
    """

    embodiment: EmbodimentSpec
    stats: UnnormStats
    reasoning: ReasoningSpec
    chunk_length: int
    execute_horizon: int
    words: tuple[str, ...] = ()
    max_instruction_chars: int = 200
    dataset_version: str = ""
    protocol: int = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        require(1 <= self.execute_horizon <= self.chunk_length, "execute_horizon must be 1..chunk_length", got=self.execute_horizon)
        require(
            len(self.stats) == len(self.embodiment.action),
            "statistics and action dimensions differ",
            got=len(self.stats),
            error=ContractError,
        )

    @property
    def contract_id(self) -> str:
        """16 hex digits that name this promise and no other."""
        return digest_of(self.to_json())[:16]

    def to_json(self) -> dict[str, Any]:
        """A plain JSON document; `from_json` is its exact inverse."""
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> PolicyContract:
        """Read a contract; raises `ContractError` naming a missing or unknown field."""
        try:
            fields = dict(document)
            body = dict(fields.pop("embodiment"))
            return PolicyContract(
                embodiment=embodiment_from_json(body),
                stats=UnnormStats(**_with_tuples(fields.pop("stats"))),
                reasoning=ReasoningSpec(**_with_tuples(fields.pop("reasoning"))),
                words=tuple(fields.pop("words", ())),
                **fields,
            )
        except (KeyError, TypeError) as error:
            raise ContractError(f"not a contract of protocol {PROTOCOL_VERSION}: {error}") from error


def _with_tuples(document: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where our values have tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}


def embodiment_from_json(document: Mapping[str, Any]) -> EmbodimentSpec:
    """Read an embodiment back from its JSON form."""
    body = dict(document)

    def vector(value: Mapping[str, Any]) -> VectorSpec:
        return VectorSpec(dims=tuple(DimSpec(**d) for d in value["dims"]), mode=value.get("mode", ""))

    return EmbodimentSpec(
        cameras=tuple(CameraSpec(**c) for c in body.pop("cameras")),
        proprio=vector(body.pop("proprio")),
        action=vector(body.pop("action")),
        hold=tuple(body.pop("hold")),
        **body,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One field in which two sides differ."""

    field: str
    made_for: object = None
    offered: object = None

    def explain(self) -> str:
        """A sentence for a person."""
        return f"{self.field}: the policy was made for {self.made_for!r}, this cell offers {self.offered!r}"


def mismatches(made: EmbodimentSpec, offered: EmbodimentSpec) -> list[Mismatch]:
    """Every way `offered` differs from what the policy was `made` for; empty means that they may talk."""
    return list(_differences("", asdict(made), asdict(offered)))


def _differences(path: str, made: Any, offered: Any) -> list[Mismatch]:
    if isinstance(made, dict) and isinstance(offered, dict):
        found: list[Mismatch] = []
        for key in sorted(made.keys() | offered.keys()):
            found += _differences(f"{path}.{key}" if path else str(key), made.get(key), offered.get(key))
        return found
    if isinstance(made, list | tuple) and isinstance(offered, list | tuple) and len(made) == len(offered):
        return [d for i, (m, o) in enumerate(zip(made, offered, strict=True)) for d in _differences(f"{path}[{i}]", m, o)]
    return [] if made == offered else [Mismatch(field=path, made_for=made, offered=offered)]
