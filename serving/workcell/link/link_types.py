"""What a cell and its link exchange: settings, requests, events, counts. Plain data; the rules are `connection_state`'s."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.errors import WireError, require
from model_core.spec.protocol.wire import (
    Chunk,
    Edit,
    Message,
    Part,
    Ready,
    SteeringInput,
    decode_message,
)
from model_core.spec.types import Observation
from serving.workcell.motion.chunk_curve import SessionKey

LinkEventKind = Literal["up", "down", "denied", "chunk", "refused", "late", "part", "told", "lease"]


class ModelIdentity(NamedTuple):
    """Which model answers. bundle_digest: "" where the service names none."""

    model_version: str
    contract_id: str
    bundle_digest: str

    def __str__(self) -> str:
        bundle = f", bundle {self.bundle_digest[:12]}" if self.bundle_digest else ""
        return f"{self.model_version} ({self.contract_id}{bundle})"

    def is_another(self, before: ModelIdentity) -> bool:
        """Two services may give one name to two bundles: their digests decide, where both are named."""
        return self[:2] != before[:2] or ("" not in (self[2], before[2]) and self[2] != before[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """Every wait has an end. heartbeat_s: a peer that was silent for 1.5 of it is dead (a PING is sent every half).

    deadline_s: of an answer. max_dead: unanswered requests in a row after which the connection is cut.
    replan_hz: answers a second that the service must keep free for this cell, or refuse it; 0 for none. world_waits: the simulated
    world stands still while a request is open, so an answer does not age on its way.
    """

    cell: str
    embodiment: EmbodimentSpec
    deadline_s: float = 2.0
    connect_timeout_s: float = 5.0
    heartbeat_s: float = 2.0
    max_dead: int = 3
    first_backoff_s: float = 0.1
    max_backoff_s: float = 5.0
    strategies: tuple[str, ...] = ()
    accepts_parts: bool = False
    expected_contract_id: str = ""
    replan_hz: float = 0.0
    software: str = "actwright-workcell"
    world_waits: bool = False

    def __post_init__(self) -> None:
        for name in ("deadline_s", "connect_timeout_s", "heartbeat_s", "first_backoff_s", "max_backoff_s"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            require(is_number and 0 < value < 1e6, f"{name} must be a number of seconds above 0", got=repr(value))
        require(type(self.max_dead) is int and self.max_dead >= 1, "max_dead must be a whole number, 1 or more", got=repr(self.max_dead))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObserveRequest:
    """What is asked. taken_at_s: when the observation was taken; age_ms: how old each reading was then."""

    episode_id: str
    step: int
    observation: Observation
    taken_at_s: float
    age_ms: Mapping[str, float] = field(default_factory=dict)
    level: str = ""
    previous_chunk_id: str = ""
    consumed: int = 0
    committed_DA: NDArray[np.float32] | None = None
    steering: SteeringInput | None = None
    edit: Edit | None = None

    @property
    def captured_at_s(self) -> float:
        """When the oldest reading in it was made: from then on its answer ages."""
        return self.taken_at_s - max(self.age_ms.values(), default=0.0) / 1e3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinkEvent:
    """One thing that happened on the link.

    "up": READY came. "down": the connection is gone (reason). "denied": the service or this cell refused the handshake.
    "chunk": an answer that may be used (chunk; expires_at_s; is_first: the first one of this connection). "refused": a REJECT.
    "late": the deadline of `seq` passed. "part": part of an answer. "told": CONTROL of `code` HOLD, KILL, DRAIN or RESET.
    "lease": the session's lease ran out.

    asked_at_s: when the request was asked ("up": when the connection stood). is_retryable: it may go better later. stood_still_s:
    for how long a simulated world waited for this; 0 in real time.
    """

    kind: LinkEventKind
    t_s: float
    seq: int = 0
    chunk: Chunk | None = None
    part: Part | None = None
    ready: Ready | None = None
    code: str = ""
    reason: str = ""
    value: float = 0.0
    is_retryable: bool = False
    asked_at_s: float = 0.0
    expires_at_s: float = 0.0
    is_first: bool = False
    details: tuple[str, ...] = ()
    stood_still_s: float = 0.0


@dataclass(slots=True)
class LinkTally:
    """Counts since construction. dropped: answers that were never handed on, by reason (late, duplicate, stale-epoch,
    foreign, expired, unasked, other-model). flags: of the answers (blank:front).
    replaced: observations that a newer one overtook before they were written."""

    asked: int = 0
    sent: int = 0
    replaced: int = 0
    chunks: int = 0
    late: int = 0
    connections: int = 0
    cuts: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    flags: Counter[str] = field(default_factory=Counter)
    latency_ms: deque[float] = field(default_factory=lambda: deque(maxlen=4096))
    round_trip_ms: deque[float] = field(default_factory=lambda: deque(maxlen=256))

    @property
    def late_dropped(self) -> int:
        """Answers that came and were never handed on."""
        return sum(self.dropped.values())


def read_frame(data: bytes | str) -> Message | str:
    """The message in a frame, or a sentence that says why there is none. Needs no lock."""
    if isinstance(data, str):
        return "the service sent text"
    try:
        return decode_message(data)
    except WireError as error:
        return str(error)


@dataclass(slots=True, eq=False)
class OpenRequest:
    """The open request."""

    seq: int
    question: ObserveRequest
    asked_at_s: float
    is_written: bool = False


def session_key(ready: Ready, epoch: int) -> SessionKey:
    """What answers of this session, epoch, contract and model version are known by."""
    return SessionKey(session_id=ready.session_id, epoch=epoch, contract_id=ready.contract.contract_id, model_version=ready.model_version)


def ending_of(job: asyncio.Future[str]) -> str:
    """How a finished task of the link ended: its error, or the reason that it gave."""
    error = job.exception()
    return f"{type(error).__name__}: {error}" if error is not None else job.result()
