"""The contract: everything that a checkpoint promises about numbers, cameras and words, hashed.

It is made when a data set is frozen, travels with the weights to the robot, and is compared there field by
field before anything moves (`spec.conversion`). `contract_id` is the SHA-256 of the canonical JSON form (sorted keys, no
spaces, shortest floats), cut to 16 hex digits.

A field that came with version 2 is left out of the document while it holds its default. So a document of version 1
reads as it is, and keeps its id.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from model_core.spec.errors import ContractError, SpecError, require
from model_core.spec.stats import UnnormStats
from model_core.spec.types import LEVELS

PROTOCOL_VERSION = 2
MODES = ("", "absolute", "relative", "delta", "velocity")
COLORS = ("rgb", "bgr")
ENCODINGS = ("raw", "png", "jpeg")
KINDS = ("causal", "parallel")
# What "" or None means in these: the document does not say. Nothing can then be compared with it.
UNSTATED_FIELDS = frozenset(
    {"role", "source", "soft_low", "soft_high", "intrinsics_tolerance", "gripper_range", "gripper_threshold", "rotation"}
)
# Advice of the policy and names for people: a cell need not repeat them.
ADVISORY_FIELDS = frozenset({"role", "soft_low", "soft_high", "intrinsics_tolerance"})


def canonical_json(document: object) -> str:
    """One text for one meaning: sorted keys, no spaces, no NaN. Raises ValueError on NaN or inf."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(document: object) -> str:
    """SHA-256 (hex, 64) of the canonical JSON of `document`."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def _since_2(default: Any) -> Any:
    return field(default=default, metadata={"since": 2})


def document_of(value: Any) -> Any:
    """A contract, or a part of it, as plain JSON values; fields of version 2 that hold their default are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        kept = (f for f in fields(value) if not _is_left_out(f, getattr(value, f.name)))
        return {f.name: document_of(getattr(value, f.name)) for f in kept}
    if isinstance(value, list | tuple):
        return [document_of(item) for item in value]
    return value


def _is_left_out(item: Any, value: Any) -> bool:
    return item.metadata.get("since") == 2 and item.default is not MISSING and value == item.default


@dataclass(frozen=True, slots=True, kw_only=True)
class DimSpec:
    """The meaning of one number: name, unit, reference frame and the range in which it is allowed.

    mode: how this dimension is meant (`MODES`); "" for as its vector says. "relative" is to the start of the chunk, "delta" to
    the step before. soft_low, soft_high: the range in which a policy should stay; None where nobody says. source: the sensor
    or computation that a state value comes from ("" where nobody says): two robots' "x" can be two different things.
    """

    name: str
    unit: str
    low: float
    high: float
    frame: str = "world"
    mode: str = _since_2("")
    soft_low: float | None = _since_2(None)
    soft_high: float | None = _since_2(None)
    source: str = _since_2("")

    def __post_init__(self) -> None:
        where = f"dimension {self.name!r}"
        require(math.isfinite(self.low) and math.isfinite(self.high), f"{where}: limits must be finite", got=(self.low, self.high))
        require(self.low < self.high, f"{where}: low must be below high", got=(self.low, self.high))
        require(self.mode in MODES, f"{where}: mode must be one of {', '.join(MODES[1:])}", got=self.mode)
        low = self.low if self.soft_low is None else self.soft_low
        high = self.high if self.soft_high is None else self.soft_high
        require(self.low <= low < high <= self.high, f"{where}: soft limits must lie inside the hard ones", got=(low, high))


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSpec:
    """An ordered vector of `DimSpec`. `mode` says how an action is meant (`MODES`); "" for proprio."""

    dims: tuple[DimSpec, ...]
    mode: str = ""

    def __post_init__(self) -> None:
        require(self.mode in MODES, f"mode must be one of {', '.join(MODES[1:])}", got=self.mode)

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

    @property
    def modes(self) -> tuple[str, ...]:
        """How each dimension is meant: its own mode, or else the vector's."""
        return tuple(d.mode or self.mode for d in self.dims)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSpec:
    """One camera as the policy was trained with it. Pixels are uint8; the frame is sent as it is taken.

    role: what it looks at ("front", "wrist", ...), by which a cell may name it otherwise. color: channel order of a raw
    frame; an encoded one has its format's. resize: who scales ("server": the policy, so send native pixels). encodings: what
    may be sent; "png" is allowed wherever "raw" is, being lossless. intrinsics_tolerance: relative difference of the focal
    length that training covered; None where nobody says.
    """

    name: str
    width: int
    height: int
    max_age_ms: float = 500.0
    role: str = _since_2("")
    color: str = _since_2("rgb")
    resize: str = _since_2("server")
    encodings: tuple[str, ...] = _since_2(("raw",))
    intrinsics_tolerance: float | None = _since_2(None)

    def __post_init__(self) -> None:
        where = f"camera {self.name!r}"
        require(self.width > 0 and self.height > 0, f"{where} needs a size", got=(self.width, self.height))
        require(self.color in COLORS, f"{where}: color must be rgb or bgr", got=self.color)
        known = bool(self.encodings) and set(self.encodings) <= set(ENCODINGS)
        require(known, f"{where}: encodings must be some of {', '.join(ENCODINGS)}", got=self.encodings)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbodimentSpec:
    """A body: its cameras in order, what its state means, what its actions mean, how often one is applied.

    gripper_open: the value of the gripper action dimension that opens it (its polarity). gripper_range: the values of full
    closure and full opening, in the gripper dimension's unit. gripper_threshold: where a two-state gripper switches; None
    for one that takes every value. rotation: how rotations are written ("axis-angle", "euler-xyz", ...; "" without any).
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
    gripper_range: tuple[float, float] | None = _since_2(None)
    gripper_threshold: float | None = _since_2(None)
    rotation: str = _since_2("")

    def __post_init__(self) -> None:
        where = f"embodiment {self.name!r}"
        require(len(self.cameras) > 0, f"{where} needs at least one camera")
        names = [c.name for c in self.cameras]
        require(len(set(names)) == len(names), f"{where}: two cameras have one name", got=names)
        require(len(self.hold) == len(self.action), f"{where}: hold needs one value per action dimension", got=len(self.hold))
        require(self.control_hz > 0 and math.isfinite(self.control_hz), f"{where}: control_hz must be positive", got=self.control_hz)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningSpec:
    """What the model says before it acts, and how it is spelt.

    spelling: "compact" (one id a value) or "published" (byte-level text). codebook_digest: SHA-256 of the depth
    VQ-VAE that made the labels, so that depth tokens can be decoded years later. levels: what may be asked for
    (`types.LEVELS`). kind: "causal" says action symbols one after the other, "parallel" all at once.
    """

    depth_grid: tuple[int, int] = (10, 10)
    depth_codes: int = 128
    codebook_digest: str = ""
    trace_points: int = 5
    trace_range: int = 255
    trace_camera: str = ""
    steering: bool = True
    spelling: str = "compact"
    levels: tuple[str, ...] = _since_2(LEVELS)
    kind: str = _since_2("causal")

    def __post_init__(self) -> None:
        known = bool(self.levels) and set(self.levels) <= set(LEVELS)
        require(known, f"reasoning levels must be some of {', '.join(LEVELS)}", got=self.levels)
        require(self.kind in KINDS, f"reasoning kind must be one of {', '.join(KINDS)}", got=self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenProbe:
    """A recorded question, by digest, and the box in which its answer lies: one low and high value per action dimension."""

    name: str
    observation_digest: str
    action_low_A: tuple[float, ...]
    action_high_A: tuple[float, ...]

    def __post_init__(self) -> None:
        sound = len(self.action_low_A) == len(self.action_high_A) and all(
            low <= high for low, high in zip(self.action_low_A, self.action_high_A, strict=True)
        )
        require(sound, f"golden probe {self.name!r}: low and high need one value per dimension, low <= high")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyContract:
    """The whole promise of a checkpoint.

    words: the closed vocabulary of instructions (empty: any text up to `max_instruction_chars`). templates: the sentences it
    takes, where "{...}" stands for any words (empty: any). dataset_version: digest of the data set that the statistics and
    words were taken from. hz_tolerance: by how many hertz a cell's control rate may differ. max_prefix_rows: how many rows of
    a chunk may be committed in advance (by default all but the last). golden_probes: filled in when the model is packed.
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
    templates: tuple[str, ...] = _since_2(())
    hz_tolerance: float = _since_2(0.0)
    max_prefix_rows: int = _since_2(-1)
    golden_probes: tuple[GoldenProbe, ...] = _since_2(())

    def __post_init__(self) -> None:
        require(1 <= self.execute_horizon <= self.chunk_length, "execute_horizon must be 1..chunk_length", got=self.execute_horizon)
        require(1 <= self.protocol <= PROTOCOL_VERSION, f"contracts of version 1..{PROTOCOL_VERSION} are read here", got=self.protocol)
        dims = len(self.embodiment.action)
        require(len(self.stats) == dims, "statistics and action dimensions differ", got=len(self.stats), error=ContractError)
        probes_fit = all(len(p.action_low_A) == dims for p in self.golden_probes)
        require(probes_fit, "golden probes and action dimensions differ", error=ContractError)
        if self.max_prefix_rows < 0:
            object.__setattr__(self, "max_prefix_rows", self.chunk_length - 1)

    @property
    def contract_id(self) -> str:
        """16 hex digits that name this promise and no other."""
        return digest_of(self.to_json())[:16]

    @property
    def policy_id(self) -> str:
        """16 hex digits of the promise without its golden probes: the same before and after packing."""
        return digest_of({k: v for k, v in self.to_json().items() if k != "golden_probes"})[:16]

    @property
    def stats_digest(self) -> str:
        """SHA-256 (hex, 64) of the statistics alone."""
        return digest_of(document_of(self.stats))

    def to_json(self) -> dict[str, Any]:
        """A plain JSON document; `from_json` is its exact inverse."""
        document = document_of(self)
        if self.max_prefix_rows == self.chunk_length - 1:
            del document["max_prefix_rows"]
        return document if self.protocol < 2 else {**document, "stats_digest": self.stats_digest}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> PolicyContract:
        """Read a contract; raises `ContractError` naming a missing or unknown field, or statistics that were changed."""
        try:
            values = dict(document)
            promised = values.pop("stats_digest", "")
            values |= {
                "embodiment": embodiment_from_json(values["embodiment"]),
                "stats": UnnormStats(**_with_tuples(values["stats"])),
                "reasoning": ReasoningSpec(**_with_tuples(values["reasoning"])),
                "golden_probes": tuple(GoldenProbe(**_with_tuples(p)) for p in values.pop("golden_probes", ())),
            }
            contract = PolicyContract(**_with_tuples(values))
        except (KeyError, TypeError, SpecError) as error:
            raise ContractError(f"not a contract of version 1..{PROTOCOL_VERSION}: {error}") from error
        if promised not in ("", contract.stats_digest):
            raise ContractError(f"stats_digest: the document names {str(promised)[:12]}, its statistics give {contract.stats_digest[:12]}")
        return contract

    def refused_instruction(self, instruction: str) -> str:
        """Why this instruction may not be asked; "" when it may. Unknown words are the model's own to refuse."""
        if len(instruction) > self.max_instruction_chars:
            return f"the instruction has {len(instruction)} characters, at most {self.max_instruction_chars} are allowed"
        if self.templates and not any(_fits(template, instruction) for template in self.templates):
            return f"the instruction fits none of the {len(self.templates)} sentences of the contract, such as {self.templates[0]!r}"
        return ""


def _fits(template: str, instruction: str) -> bool:
    parts = [re.escape(part) for part in re.split(r"\{[^}]*\}", template)]
    return re.fullmatch(".+".join(parts), instruction, flags=re.IGNORECASE) is not None


def _with_tuples(document: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where our values have tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}


def embodiment_from_json(document: Mapping[str, Any]) -> EmbodimentSpec:
    """Read an embodiment back from its JSON form."""
    body = dict(document)

    def vector(value: Mapping[str, Any]) -> VectorSpec:
        return VectorSpec(dims=tuple(DimSpec(**d) for d in value["dims"]), mode=value.get("mode", ""))

    cameras = tuple(CameraSpec(**_with_tuples(c)) for c in body.pop("cameras"))
    proprio, action = vector(body.pop("proprio")), vector(body.pop("action"))
    return EmbodimentSpec(cameras=cameras, proprio=proprio, action=action, **_with_tuples(body))


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
    """Every way `offered` differs from what the policy was `made` for; empty means that they may talk as they are.

    `spec.conversion.compare` says which of these differences can be converted without loss.
    """
    return list(_differences("", asdict(made), asdict(offered)))


def _differences(path: str, made: Any, offered: Any) -> list[Mismatch]:
    if isinstance(made, dict) and isinstance(offered, dict):
        found: list[Mismatch] = []
        for key in sorted(made.keys() | offered.keys()):
            if not _cannot_be_compared(key, made.get(key), offered.get(key)):
                found += _differences(f"{path}.{key}" if path else str(key), made.get(key), offered.get(key))
        return found
    if isinstance(made, list | tuple) and isinstance(offered, list | tuple) and len(made) == len(offered):
        return [d for i, (m, o) in enumerate(zip(made, offered, strict=True)) for d in _differences(f"{path}[{i}]", m, o)]
    return [] if made == offered else [Mismatch(field=path, made_for=made, offered=offered)]


def _cannot_be_compared(key: str, made: Any, offered: Any) -> bool:
    unstated = ("", None)
    return key in UNSTATED_FIELDS and (made in unstated or (key in ADVISORY_FIELDS and offered in unstated))
