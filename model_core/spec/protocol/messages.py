"""The messages between a cell and the service, as frozen dataclasses. `protocol.wire` writes and reads them.

Times are durations in milliseconds, never clock readings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import ENCODINGS, PROTOCOL_VERSION, EmbodimentSpec, PolicyContract
from model_core.spec.errors import require
from model_core.spec.types import DEPTH_CELLS, Observation, RefusalCode

MAX_MESSAGE_BYTES = 16 * 2**20
MAX_IMAGE_PIXELS = 4096 * 4096
MAX_CAMERAS = 16
CONTROL_KINDS = ("CANCEL", "RESET", "HOLD", "DRAIN", "KILL", "LEASE", "PING", "PONG")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedImage:
    """A compressed image on its way. shape: (H, W, 3) that it must have when decoded (`protocol.image_codec.decode_image`)."""

    encoding: str
    data: bytes
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        require(self.encoding in ENCODINGS[1:], f"encoding must be one of {', '.join(ENCODINGS[1:])}", got=self.encoding)
        height, width, channels = self.shape
        sound = channels == 3 and height > 0 and width > 0 and height * width <= MAX_IMAGE_PIXELS
        require(sound, f"shape must be (H, W, 3) of at most {MAX_IMAGE_PIXELS} pixels", got=self.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SteeringInput:
    """A drawn path for the gripper, and what it was drawn on.

    points_N2: float32 (N, 2), points (x, y) in pixels of camera `image` at `width` x `height`. revision: grows with every
    change a person makes; `author`: who. ttl_ms: how long after sending it may still steer. ahead_N2: float32 (N, 2), what of the line
    lies before the gripper now, from there on (`execution.drawn_way`); None where the cell cannot tell, then the whole line steers.
    """

    points_N2: NDArray[np.float32]
    image: str
    width: int
    height: int
    revision: int = 1
    author: str = ""
    ttl_ms: float = 60_000.0
    ahead_N2: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        for shape in (line.shape for line in (self.points_N2, self.ahead_N2) if line is not None):
            require(len(shape) == 2 and shape[1] == 2 and shape[0] >= 1, "steering has points (x, y), at least one", got=shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Edit:
    """What a person changed in the model's reasoning, from which it continues: depth codes (100,), trace (N, 2) of 0..255, or both."""

    depth_codes_G: NDArray[np.int64] | None = None
    trace_N2: NDArray[np.int64] | None = None
    revision: int = 1
    author: str = ""

    def __post_init__(self) -> None:
        require(self.depth_codes_G is not None or self.trace_N2 is not None, "an edit changes depth, trace or both")
        if self.depth_codes_G is not None:
            require(self.depth_codes_G.shape == (DEPTH_CELLS,), f"depth codes must be ({DEPTH_CELLS},)", got=self.depth_codes_G.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hello:
    """Cell -> service, first: who I am and which embodiment I have. `epoch` counts this cell's connections, from 1.

    strategies: how this cell joins chunks (`docs/protocol.md`). accepts_parts: whether PART messages may be sent. replan_hz:
    how often a second it means to ask, which is what the service reserves for it; 0 where it does not say.
    """

    cell: str
    epoch: int
    embodiment: EmbodimentSpec
    protocol: int = PROTOCOL_VERSION
    software: str = ""
    expected_contract_id: str = ""
    strategies: tuple[str, ...] = ()
    accepts_parts: bool = False
    replan_hz: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ready:
    """Service -> cell: you may ask. The whole contract travels, so that the cell can check it for itself.

    lease_s: for how long, from now, the session is promised (0: until it ends). levels: reasoning level -> measured
    {"p50_ms", "p95_ms"} of an answer alone. conversions: every difference that the service converts, as a sentence.
    """

    session_id: str
    epoch: int
    model_version: str
    contract: PolicyContract
    max_message_bytes: int = MAX_MESSAGE_BYTES
    lease_s: float = 0.0
    levels: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])
    conversions: tuple[str, ...] = ()
    bundle_digest: str = ""
    min_interval_ms: float = 0.0
    max_in_flight: int = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observe:
    """Cell -> service: what I see; answer within `deadline_ms` of sending.

    age_ms: camera, or "proprio", -> age when sent. encoded: cameras that are sent compressed, in place of an entry of
    `observation.images`. level: wanted reasoning level, "" for the service's choice. previous_chunk_id, consumed: the last
    chunk and how many of its rows were executed since. committed_DA: float32 (D, A), rows that will be executed whatever the
    answer says; the answer begins with them. `observation.steering` does not travel; `steering` does.
    """

    session_id: str
    epoch: int
    seq: int
    episode_id: str
    step: int
    deadline_ms: float
    observation: Observation
    age_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    encoded: Mapping[str, EncodedImage] = field(default_factory=dict[str, EncodedImage])
    level: str = ""
    previous_chunk_id: str = ""
    consumed: int = 0
    committed_DA: NDArray[np.float32] | None = None
    steering: SteeringInput | None = None
    edit: Edit | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Service -> cell, before the chunk: a part of the answer that is already decoded; `field` is "depth" or "trace"."""

    session_id: str
    epoch: int
    seq: int
    field: str
    depth_codes_G: NDArray[np.int64] | None = None
    trace_N2: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """Service -> cell: what to do, why (depth tokens, trace), by whom, and until when.

    actions_KA: float32 (K, A) in the contract's units. expires_ms: from the moment the observation was taken; after
    that no row may be executed. depth_codes_G and trace_N2 are None where the model was asked not to reason. level: the
    reasoning level served. committed: the first rows that equal what was committed. flags: what was applied or cheapened
    ("steering:rev3", "steering:expired", "level:action"). guard, counts: as in `types.Decision`. applied_revision: of the
    steering or edit that this chunk follows, 0 without. novelty: 0..1, how far the observation is from what the model was trained on
    (`spec.execution.novelty`); None where it was not measured.
    """

    session_id: str
    epoch: int
    seq: int
    chunk_id: str
    contract_id: str
    model_version: str
    actions_KA: NDArray[np.float32]
    control_hz: float
    expires_ms: float
    depth_codes_G: NDArray[np.int64] | None = None
    trace_N2: NDArray[np.int64] | None = None
    timing_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    batch: int = 1
    level: str = ""
    bundle_digest: str = ""
    committed: int = 0
    flags: tuple[str, ...] = ()
    guard: Mapping[str, float] = field(default_factory=dict[str, float])
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    applied_revision: int = 0
    novelty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reject:
    """Service -> cell: no chunk, and why. `details` lists every field of a contract that does not fit."""

    code: RefusalCode
    reason: str
    session_id: str = ""
    epoch: int = 0
    seq: int = 0
    retryable: bool = False
    retry_after_ms: float = 0.0
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Control:
    """Both ways, outside the order of questions and answers.

    kind: one of `CONTROL_KINDS`. CANCEL gives request `seq` up. RESET forgets the episode so far. HOLD stops and waits, KILL
    stops for good, DRAIN ends after this episode (all from the service). LEASE asks for, and answers with, `value` seconds
    more. PING is answered by PONG with the same seq and value.
    """

    kind: str
    session_id: str = ""
    epoch: int = 0
    seq: int = 0
    value: float = 0.0
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class End:
    """Cell -> service: this episode is over; what was queued for it is dropped."""

    session_id: str
    epoch: int
    episode_id: str
    stop_reason: str
    success: bool = False


Message = Hello | Ready | Observe | Part | Chunk | Reject | Control | End
