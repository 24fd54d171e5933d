"""The nouns: what is recorded, observed, predicted and answered. Frozen values, numpy arrays, no torch.

Shape letters: T steps of an episode, H W pixels, P proprio dims, A action dims, K steps of a chunk,
G depth cells (100), N trace points (1..5). Images are RGB, uint8, row 0 at the top.
Arrays are never written to after construction; `Episode` and friends compare by identity.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import require

DEPTH_CELLS = 100
TRACE_MAX_POINTS = 5
TRACE_RANGE = 255
# How much is predicted before acting, most first. "reuse-depth" repeats the last decision's depth string while the model still agrees.
LEVELS = ("full", "reuse-depth", "trace+action", "action")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DepthTokens:
    """What the model predicts of the distance of things: 100 VQ codes, row-major over a 10x10 grid.

    codes_G: int64 (100,), each 0..num_codes-1 (MolmoAct: 128 codes; paper section 3.1).
    """

    codes_G: NDArray[np.int64]
    num_codes: int = 128

    def __post_init__(self) -> None:
        require(self.codes_G.shape == (DEPTH_CELLS,), f"depth tokens must be ({DEPTH_CELLS},)", got=self.codes_G.shape)
        require(np.issubdtype(self.codes_G.dtype, np.integer), "depth codes must be integers", got=self.codes_G.dtype)
        low, high = int(self.codes_G.min()), int(self.codes_G.max())
        require(low >= 0 and high < self.num_codes, f"depth codes must be 0..{self.num_codes - 1}", got=(low, high))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Where the gripper will go in the first image: 1..5 points, first one now, last one at the end.

    points_N2: int64 (N, 2) as (x, y), each 0..255 over the image's width and height. Also the form
    that a person's drawn steering takes (paper section 3.2).
    """

    points_N2: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = self.points_N2.shape
        require(
            len(shape) == 2 and shape[1] == 2 and 1 <= shape[0] <= TRACE_MAX_POINTS,
            f"a trace has 1..{TRACE_MAX_POINTS} (x, y) points",
            got=shape,
        )
        require(np.issubdtype(self.points_N2.dtype, np.integer), "trace points must be integers", got=self.points_N2.dtype)
        low, high = int(self.points_N2.min()), int(self.points_N2.max())
        require(low >= 0 and high <= TRACE_RANGE, f"trace points must be 0..{TRACE_RANGE}", got=(low, high))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionReasoning:
    """What the model predicted: unit-free. `bins_KA` are action bins (see `tokenization.action_codec`)."""

    depth: DepthTokens | None
    trace: Trace | None
    bins_KA: NDArray[np.int64]
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionChunk:
    """K actions the robot may execute, oldest first, in the units that its contract names.

    actions_KA: float32 (K, A), finite. control_hz: rate at which one row is applied after the other.
    """

    actions_KA: NDArray[np.float32]
    control_hz: float

    def __post_init__(self) -> None:
        require(self.actions_KA.ndim == 2 and len(self.actions_KA) > 0, "a chunk must be (K, A), K > 0", got=self.actions_KA.shape)
        require(bool(np.isfinite(self.actions_KA).all()), "a chunk holds NaN or inf")
        require(self.control_hz > 0, "control_hz must be positive", got=self.control_hz)


class RefusalCode(enum.StrEnum):
    """Why no chunk was given. The workcell holds on every one of them."""

    CONTRACT = "CONTRACT"  # observation or handshake does not match the contract
    DECODE = "DECODE"  # bytes that are not one of our messages
    PARSE = "PARSE"  # the model's answer is not in its language
    NONFINITE = "NONFINITE"  # NaN or inf in what would have been executed
    UNSAFE = "UNSAFE"  # outside the limits of the contract
    STALE_OBS = "STALE_OBS"  # the observation is too old to act on
    STALE_EPOCH = "STALE_EPOCH"  # belongs to an earlier session
    DEADLINE = "DEADLINE"  # could not be answered in time
    OVERLOAD = "OVERLOAD"  # the service is full
    NOT_READY = "NOT_READY"  # the model is still loading or failed its probes
    TOO_LARGE = "TOO_LARGE"  # more bytes, pixels or points than the service takes
    AUTH = "AUTH"  # no token, an unknown or expired one, or one whose role does not allow this
    LEASE = "LEASE"  # the session's lease has run out
    DRAINING = "DRAINING"  # the service finishes running episodes and takes no new ones
    KILLED = "KILLED"  # an operator has stopped this model or cell
    CANCELLED = "CANCELLED"  # the asker gave the request up: replaced, ended or disconnected
    INTERNAL = "INTERNAL"  # our fault; details are in our log, never on the wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A decision not to act: a code for programs and a sentence for people."""

    code: RefusalCode
    reason: str
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """What a policy may see now. No future, no action, no simulator state.

    images: camera name -> (H, W, 3) uint8 RGB, in the contract's camera order. proprio_P: float32 (P,).
    steering: a trace drawn by a person on the first image, in place of the model's own (Eq. 5).
    """

    images: Mapping[str, NDArray[np.uint8]]
    proprio_P: NDArray[np.float32]
    instruction: str
    steering: Trace | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decision:
    """The policy's whole answer to one `Observation`: a chunk, or a refusal; never both, never neither.

    level: the reasoning level that was served (`LEVELS`). counts: what decoding did, per decision: "forwards", "guarded" and
    "drafted.<field>", "accepted.<field>" for field depth, trace, action. guard: what the guard saw, by name ("clipped.<dim>":
    largest excess over the limit that was clipped).
    """

    contract_id: str
    model_version: str = ""
    reasoning: ActionReasoning | None = None
    chunk: ActionChunk | None = None
    refusal: Refusal | None = None
    timing_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    level: str = ""
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    guard: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        require((self.chunk is None) != (self.refusal is None), "a decision is a chunk or a refusal, exactly one of them")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecisionRequest:
    """One observation and how it is to be answered.

    level: one of `LEVELS`, or "" for the policy's own. depth, trace: edited by a person; the model continues from them.
    committed_DA: float32 (D, A), rows in the contract's units that will be executed whatever the answer says: they are the
    forced start of the chunk (rows 0..D-1 of the answer equal them, up to the codec's rounding).
    previous: the last decision of the same session, and `consumed`, how many of its rows were executed since: the source of
    drafts, which never change the answer (except at level "reuse-depth", where the last depth string stands while it is
    verified). on_part: called with "depth" or "trace" and its value as soon as that part is predicted, before the actions are.
    is_cancelled: asked between blocks; True ends the work with `RefusalCode.CANCELLED`.
    """

    observation: Observation
    level: str = ""
    depth: DepthTokens | None = None
    trace: Trace | None = None
    committed_DA: NDArray[np.float32] | None = None
    previous: Decision | None = None
    consumed: int = 0
    on_part: Callable[[str, DepthTokens | Trace], None] | None = None
    is_cancelled: Callable[[], bool] | None = None

    @property
    def drawn(self) -> Trace | None:
        """The steering trace that is answered from; None where there is none, or where an edited trace stands in its place."""
        return self.observation.steering if self.trace is None else None


class Policy(Protocol):
    """Anything that answers observations. Wrappers are policies too.

    `decide` never raises for something the robot or the model did: that becomes a `Refusal`.
    """

    def decide(self, observation: Observation) -> Decision:
        """Answer one observation."""
        ...

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        """Answer several observations at once; each answer equals the one `decide` would give."""
        ...


class RequestPolicy(Policy, Protocol):
    """A policy that also takes levels, edits, committed rows and drafts, and can be worked on block by block."""

    def answer(self, requests: Sequence[DecisionRequest]) -> list[Decision]:
        """Answer several requests at once; each answer equals the one it would get alone."""
        ...

    def open_round(self, capacity: int) -> DecisionRound:
        """Begin to decode for up to `capacity` requests that join and leave between blocks."""
        ...


class DecisionRound(Protocol):
    """Requests that are decoded together, a block at a time. Not thread-safe."""

    @property
    def active(self) -> int:
        """Requests in it."""
        ...

    def join(self, request: DecisionRequest) -> int:
        """Take a request in; returns its key. What is wrong with it comes out of `step` as a refusal, never as an exception."""
        ...

    def step(self) -> list[tuple[int, Decision]]:
        """Run one block for all requests; (key, decision) of those that are finished, who are then out.

        Raises only for a failure of the machine or of the policy's own code; no request of the block is answered then.
        """
        ...

    def leave(self, key: int) -> None:
        """Take a request out; nothing happens if it has left already."""
        ...


class StopReason(enum.StrEnum):
    """Why a rollout ended. Every failed episode has one that is not SUCCESS."""

    SUCCESS = "success"  # the task's own success flag was seen
    MAX_STEPS = "max_steps"  # the horizon passed without it
    REFUSED = "refused"  # the policy refused too many times in a row
    GUARD_STOPPED = "guard_stopped"  # the guard would not let the chunk through
    SERVICE_LOST = "service_lost"  # the policy service stopped answering
    ENV_ERROR = "env_error"  # the simulator or driver failed; not counted as a trial
