"""What one session holds between messages: its peer, its lease, and its last answer."""

from __future__ import annotations

from dataclasses import dataclass

from model_core.access import ANYBODY, Caller
from model_core.spec.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPeer:
    """Who is at the other end. cell: "" for a caller without a session. accepts_parts: it wants PART messages before the CHUNK."""

    cell: str = ""
    caller: Caller = ANYBODY
    accepts_parts: bool = False


@dataclass(slots=True)
class Lease:
    """How long a cell may count on its session. Traffic renews it while its caller may still come in."""

    seconds: float
    until: float

    def renew(self, now: float) -> None:
        """From `now` on, `seconds` more."""
        self.until = now + self.seconds

    def left_s(self, now: float) -> float:
        """Seconds left; 0 when it is over."""
        return max(self.until - now, 0.0)


@dataclass(slots=True, kw_only=True)
class StopTold:
    """A cell that was told KILL, when (monotonic), whether no episode ran then, and after how long it said that it holds."""

    cell: str
    told_at: float
    is_idle: bool = False
    held_after_s: float | None = None


@dataclass(slots=True)
class LastAnswer:
    """The last answer of a session, kept for drafts and for requests that are sent again."""

    chunk_id: str
    decision: Decision
    at: float

    @property
    def held_bytes(self) -> int:
        """About how much memory it holds."""
        reasoning, chunk = self.decision.reasoning, self.decision.chunk
        held = 512 if chunk is None else 512 + chunk.actions_KA.nbytes
        if reasoning is not None:
            held += reasoning.bins_KA.nbytes + len(reasoning.text) + (0 if reasoning.depth is None else reasoning.depth.codes_G.nbytes) + 80
        return held
