"""What a workcell tells an audit, and the audit that listens to nothing.

The cell calls these from its control loop: an implementation returns at once and never raises. What they are given is enough
to rebuild every executed command: `ActionExecuted` names the chunk and row that it came from, `DecisionMade` carries
the chunk as it came and the rows as they were installed. Every `t_s` is a reading of the cell's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec, PolicyContract
from model_core.spec.protocol.wire import Chunk
from model_core.spec.types import Observation


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeBegun:
    """Who is going to do what, with which model and inside which limits. body: the cell's own, where it is not the contract's."""

    t_s: float
    episode_id: str
    cell: str
    task: str
    instruction: str
    seed: int
    strategy: str
    model_version: str
    contract: PolicyContract
    contract_id: str
    bundle_digest: str = ""
    session_id: str = ""
    epoch: int = 0
    commissioning_digest: str = ""
    body: EmbodimentSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecisionMade:
    """One request and its outcome: a chunk (with what was made of it), or a refusal (code and reason).

    t_s: when the observation was taken; answered_s: when the answer was known, lateness included. outcome: "installed",
    "refused", "late" or "dropped". installed_KA: the rows as the cell will execute them (after seam and clipping), float32
    (K, A) in the units of the robot; first_row: the row that is executed first; consumed: rows of older chunks that were
    executed between the observation and the install (the measured delay). steering: as sent (`SteeringInput` or None).
    """

    t_s: float
    answered_s: float
    episode_id: str
    session_id: str
    epoch: int
    seq: int
    step: int
    observation: Observation
    outcome: str
    chunk: Chunk | None = None
    code: str = ""
    reason: str = ""
    level: str = ""
    age_ms: Mapping[str, float] = field(default_factory=dict)
    deadline_ms: float = 0.0
    previous_chunk_id: str = ""
    committed_DA: NDArray[np.float32] | None = None
    installed_KA: NDArray[np.float32] | None = None
    first_row: int = 0
    consumed: int = 0
    revision: int = 0
    steering: object | None = None
    edit: object | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionExecuted:
    """One command as the driver got it. A hold has chunk_id "" and row -1.

    raw_A: the row as the service sent it (None for a hold); sent_A: what the driver was given. mode: RUN, STRETCH, HOLD or
    SAFE_STOP. scale: rows used up by this control step (below 1 while stretching). state_P: measured just before.
    clipped: dimension -> how far the envelope brought it back.
    """

    t_s: float
    episode_id: str
    step: int
    mode: str
    sent_A: NDArray[np.float32]
    chunk_id: str = ""
    row: int = -1
    session_id: str = ""
    epoch: int = 0
    seq: int = 0
    contract_id: str = ""
    raw_A: NDArray[np.float32] | None = None
    scale: float = 1.0
    state_P: NDArray[np.float32] | None = None
    clipped: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeEnded:
    """How it came out."""

    t_s: float
    episode_id: str
    stop_reason: str
    success: bool
    steps: int
    detail: str = ""


class Audit(Protocol):
    """Takes notes; by default none. Every method returns at once and never raises: control does not wait for a disk."""

    @property
    def can_begin(self) -> bool:
        """False when another episode could not be kept in full (disk full, writer dead): the cell begins none."""
        return True

    def begin_episode(self, begun: EpisodeBegun) -> None:
        """An episode begins."""

    def decision(self, made: DecisionMade) -> None:
        """A request was answered, refused or cancelled."""

    def executed(self, action: ActionExecuted) -> None:
        """A command was given to the driver."""

    def event(self, t_s: float, kind: str, detail: Mapping[str, object]) -> None:
        """Anything else: "epoch", "mode", "lost", "reject", "stop", "steering", "watchdog", ... `detail` is plain JSON."""

    def end_episode(self, ended: EpisodeEnded) -> None:
        """The episode is over."""

    def close(self) -> None:
        """Write what is left, within bounded time."""


def refusal_of(audit: Audit) -> str:
    """Why an audit takes no episode now, for an operator: with its own `reason` where it gives one."""
    reason = str(getattr(audit, "reason", ""))
    return f"the audit cannot keep another episode, so none is begun{': ' if reason else ''}{reason}"


class NullAudit(Audit):
    """Keeps nothing."""
