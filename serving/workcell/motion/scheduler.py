"""Which row of which chunk is executed at this control step, and when the next chunk is asked for. No clock, no IO.

    sync      ask when the execute horizon is used up, stand still until the answer is there
    async     ask early; keep executing the old chunk; enter the new one behind the rows that were executed meanwhile
    prefix    as async, and the rows that will be executed meanwhile are sent along: they are the start of the answer
    blend     as async, and the seam is bent so that place and velocity are continuous
    ensemble  mean over all chunks that cover this moment (absolute poses only; can be violent; never the default)

The delay is *measured consumption*: the rows that the robot executed between the observation and the install. A robot that
stood still consumed nothing, so it skips nothing, however late the answer is.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec, PolicyContract
from model_core.spec.errors import SpecError, require
from model_core.spec.execution.cell_options import STRATEGIES
from serving.workcell.motion.chunk_curve import ChunkRef, Curve, Motion, joined, poses, switches
from serving.workcell.motion.latency_estimate import DelayWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSettings:
    """How chunks follow each other. execute_horizon: rows of a chunk that are meant to be executed before the next one.

    max_prefix_rows: rows that may be committed in advance. blend_rows: over how many rows the seam of a pose is bent;
    blend_rate_rows: of a delta or velocity. prefix_tolerance: by how much (fraction of a dimension's range) the answer may
    differ from the committed rows: the codec's rounding.
    """

    strategy: str = "async"
    chunk_length: int
    execute_horizon: int
    max_prefix_rows: int = 0
    blend_rows: int = 4
    blend_rate_rows: int = 2
    prefix_tolerance: float = 0.02

    def __post_init__(self) -> None:
        require(self.strategy in STRATEGIES, f"strategy must be one of {', '.join(STRATEGIES)}", got=self.strategy)
        for name in ("chunk_length", "execute_horizon", "blend_rows"):
            value = getattr(self, name)
            require(type(value) is int and value >= 1, f"{name} must be a whole number, 1 or more", got=value)
        fits = self.execute_horizon <= self.chunk_length
        require(fits, "execute_horizon must not exceed chunk_length", got=(self.execute_horizon, self.chunk_length))

    @staticmethod
    def of(contract: PolicyContract, strategy: str, execute_horizon: int = 0) -> ScheduleSettings:
        """The contract's own settings; execute_horizon 0 means the contract's."""
        horizon = min(execute_horizon or contract.execute_horizon, contract.chunk_length)
        return ScheduleSettings(
            strategy=strategy,
            chunk_length=contract.chunk_length,
            execute_horizon=horizon,
            max_prefix_rows=min(contract.max_prefix_rows, contract.chunk_length - 1),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ask:
    """What a request has to carry. committed_DA: rows that will be executed whatever the answer says (may be (0, A))."""

    revision: int
    consumed_before: float
    is_standstill: bool
    predicted: int
    committed_DA: NDArray[np.float32]
    previous_chunk_id: str
    previous_consumed: int
    pose_A: NDArray[np.float32]
    asked_at_step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Installed:
    """What became of an answer. reason "": installed, else why not. first: position at which it was entered."""

    reason: str = ""
    first: float = 0.0
    consumed: float = 0.0
    is_bent: bool = False
    rows_KA: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Command:
    """The action of one control step and where it comes from. scale: rows that this step uses up."""

    action_A: NDArray[np.float32]
    raw_A: NDArray[np.float32]
    ref: ChunkRef
    row: int
    scale: float


@dataclass(slots=True)
class ScheduleTally:
    """Counts since construction. overtaken: chunks that came when all their rows were history. starved: steps without a row."""

    installed: int = 0
    overtaken: int = 0
    outdated: int = 0
    prefix_broken: int = 0
    bent: int = 0
    starved: int = 0
    delays: list[float] = field(default_factory=list)


class Scheduler:
    """Rows in, one command per control step out."""

    def __init__(self, body: EmbodimentSpec, settings: ScheduleSettings) -> None:
        modes = body.action.modes
        if settings.strategy == "ensemble" and set(modes) != {"absolute"}:
            raise SpecError(f"strategy 'ensemble' averages poses: every action dimension must be absolute, got {modes}")
        self.settings, self.tally = settings, ScheduleTally()
        self.delays, self._waits = DelayWindow(), DelayWindow()
        self._steps = 0
        self.revision = 0
        self._is_pose_A = poses(modes)
        self._is_switch_A = switches(tuple(d.name for d in body.action.dims), body.gripper_dim)
        self._range_A = (body.action.high - body.action.low).astype(np.float32)
        is_bounded_A = np.array([mode != "relative" for mode in modes])  # a relative range is that of the offset
        self._low_A = np.where(is_bounded_A, body.action.low, -np.inf).astype(np.float32)
        self._high_A = np.where(is_bounded_A, body.action.high, np.inf).astype(np.float32)
        self._curve: Curve | None = None
        self._others: deque[tuple[float, Curve]] = deque(maxlen=8)  # for "ensemble": (rows executed before it began, curve)
        self._position = 0.0
        self._limit = 0.0
        self._executed = 0.0
        self._asked: dict[int, Ask] = {}
        self._motion: Motion | None = None
        self._may_commit = settings.strategy == "prefix" and settings.max_prefix_rows > 0

    # --- asking -------------------------------------------------------------------------------------------------------

    @property
    def rows_left(self) -> float:
        """Rows until there is nothing to execute."""
        return max(self._limit - self._position, 0.0) if self._curve is not None else 0.0

    @property
    def current(self) -> ChunkRef | None:
        """The chunk whose rows are being executed."""
        return None if self._curve is None or self.rows_left <= 0 else self._curve.ref

    @property
    def is_waiting(self) -> bool:
        """A request of this revision is open."""
        return any(ask.revision == self.revision for ask in self._asked.values())

    @property
    def predicted(self) -> int:
        """Rows that will be executed while the next answer is made, as far as is known."""
        settings = self.settings
        cap = min(settings.max_prefix_rows, settings.execute_horizon) if self._may_commit else settings.execute_horizon
        return 0 if settings.strategy == "sync" else self.delays.predict(cap)

    def wants_chunk(self, lifetime_rows: float = math.inf) -> bool:
        """Time to ask with a new observation. lifetime_rows: control steps until the rows to execute expire.

        When to ask goes by how many control steps answers took, held ones included. What is skipped and what is committed
        goes by what was consumed: asking too early costs a request, skipping too much throws the arm.
        """
        if self.is_waiting:
            return False
        left, settings = min(self.rows_left, lifetime_rows), self.settings
        if left <= 0:
            return True
        if settings.strategy == "sync":
            return False
        lead = settings.execute_horizon if settings.strategy == "ensemble" else self._waits.predict(settings.execute_horizon)
        return self._position >= max(settings.execute_horizon - lead, 1) or (self._position > 0 and left <= lead)

    def stepped(self) -> None:
        """A control step begins, whatever is executed in it."""
        self._steps += 1

    def draft(self, pose_A: NDArray[np.float32]) -> Ask:
        """What to send with an observation that is taken now. pose_A: where the pose dimensions are measured to be."""
        curve = self._curve
        return Ask(
            revision=self.revision,
            consumed_before=self._executed,
            is_standstill=self.rows_left <= 0,
            predicted=self.predicted,
            committed_DA=self._committed_DA(),
            previous_chunk_id="" if curve is None else curve.ref.chunk_id,
            previous_consumed=0 if curve is None else math.floor(self._position),
            pose_A=np.asarray(pose_A, np.float32),
            asked_at_step=self._steps,
        )

    def commit_no_more(self) -> None:
        """The service cannot be held to rows: from now on "prefix" joins its answers by bending alone."""
        self._may_commit = False

    def sent(self, seq: int, ask: Ask) -> None:
        """The request went out under this number; whatever was open before is not any more."""
        self._asked = {seq: ask}

    def lost(self, seq: int) -> None:
        """Nothing will come for this number (late, refused, connection gone)."""
        ask = self._asked.pop(seq, None)
        if ask is not None and not ask.is_standstill:
            self.delays.add(self._measured(ask))

    def _committed_DA(self) -> NDArray[np.float32]:
        if not self._may_commit or self._curve is None:
            return np.zeros((0, len(self._range_A)), np.float32)
        begin = math.ceil(self._position)
        return self._curve.rows_KA[begin : min(begin + self.predicted, int(self._limit))]

    # --- answers ------------------------------------------------------------------------------------------------------

    def install(
        self,
        seq: int,
        rows_KA: NDArray[np.float32],
        ref: ChunkRef,
        *,
        raw_KA: NDArray[np.float32] | None = None,
        committed: int = 0,
        is_warm_up: bool = False,
    ) -> Installed:
        """Take an answer. rows_KA: in robot units. committed: rows that the service says it was forced to start with.

        is_warm_up: the first answer after a handshake; its delay says nothing about the next one.
        """
        ask = self._asked.pop(seq, None)
        if ask is None:
            return Installed(reason="nobody asked for it")
        consumed = self._executed - ask.consumed_before
        if not is_warm_up and ask.revision == self.revision:
            self._waits.add(self._steps - ask.asked_at_step)
            if not ask.is_standstill:
                self.delays.add(self._measured(ask))
        if ask.revision != self.revision:
            self.tally.outdated += 1
            return Installed(reason=f"of revision {ask.revision}, now is {self.revision}", consumed=consumed)
        curve = Curve(
            ref=ref,
            rows_KA=rows_KA,
            raw_KA=rows_KA if raw_KA is None else raw_KA,
            start_A=ask.pose_A,
            is_pose_A=self._is_pose_A,
            is_switch_A=self._is_switch_A,
        )
        if consumed >= len(curve):
            self.tally.overtaken += 1
            return Installed(reason=f"{consumed:g} rows were executed since its observation, longer than it lasts", consumed=consumed)
        is_bent = self.settings.strategy == "blend"
        if self.settings.strategy == "prefix":
            if not self._keeps(ask, curve, committed):
                self.tally.prefix_broken += 1
                return Installed(reason="it does not begin with the rows that were committed", consumed=consumed)
            # More was executed than was forced: what follows does not know about it, so it is bent, never jumped to.
            is_bent = consumed > min(committed, len(ask.committed_DA))
        return self._enter(curve, consumed, is_bent=is_bent)

    def _enter(self, curve: Curve, consumed: float, *, is_bent: bool) -> Installed:
        is_bent = is_bent and self._motion is not None
        if is_bent and self._motion is not None:
            motion = self._motion if self.rows_left > 0 else replace(self._motion, rate_A=np.zeros_like(self._motion.rate_A))
            # A seam must be over before the next one begins, or the policy is never heard.
            rate_rows = min(self.settings.blend_rate_rows, max(self.settings.execute_horizon - math.floor(consumed), 1))
            curve = joined(curve, consumed, motion, self.settings.blend_rows, rate_rows)
            curve = replace(curve, rows_KA=np.clip(curve.rows_KA, self._low_A, self._high_A))
            self.tally.bent += 1
        if self.settings.strategy == "ensemble":
            self._others.append((self._executed - consumed, curve))
        self._curve, self._position = curve, consumed
        self._limit = float(min(self.settings.execute_horizon, len(curve)) if self.settings.strategy == "sync" else len(curve))
        self.tally.installed += 1
        self.tally.delays = [*self.tally.delays[-999:], consumed]
        return Installed(first=consumed, consumed=consumed, is_bent=is_bent, rows_KA=curve.rows_KA)

    def _keeps(self, ask: Ask, curve: Curve, committed: int) -> bool:
        rows = min(committed, len(ask.committed_DA), len(curve))
        gap_DA = np.abs(curve.rows_KA[:rows] - ask.committed_DA[:rows])
        return bool((gap_DA <= self.settings.prefix_tolerance * self._range_A + 1e-6).all())

    def _measured(self, ask: Ask) -> float:
        consumed = self._executed - ask.consumed_before
        return consumed + 1 if self.rows_left <= 0 else consumed  # it ran dry: the true delay is longer than what was left

    # --- executing ----------------------------------------------------------------------------------------------------

    def next(self, scale: float = 1.0) -> Command | None:
        """The command of this control step, or None: hold. scale: rows to use up, above 0 and at most 1."""
        curve = self._curve
        if curve is None or self.rows_left <= 1e-9:
            self.tally.starved += 1
            return None
        begin = self._position
        end = min(round(begin + scale, 9), self._limit)
        action_A = curve.command_A(begin, end)
        if self._others:
            action_A = self._mean_A(action_A, end - begin)
        row = curve.row_at(end)
        self._position = end
        self._executed = round(self._executed + end - begin, 9)
        self._note(action_A, end - begin)
        return Command(action_A=action_A, raw_A=curve.raw_KA[row], ref=curve.ref, row=row, scale=end - begin)

    def executed_instead(self, action_A: NDArray[np.float32], scale: float) -> None:
        """The envelope changed the command: seams join on to what was really done."""
        self._note(action_A, scale, replaces=True)

    def _note(self, action_A: NDArray[np.float32], scale: float, *, replaces: bool = False) -> None:
        before = self._motion
        moved_A = np.zeros_like(action_A) if before is None else (action_A - before.pose_A) / max(scale, 1e-3)
        if replaces and before is not None:
            moved_A = before.rate_A
        self._motion = Motion(pose_A=action_A, rate_A=np.where(self._is_pose_A, moved_A, action_A / max(scale, 1e-3)))

    def held(self, pose_A: NDArray[np.float32]) -> None:
        """The robot was held at this command: whatever comes next begins from standstill."""
        self._motion = Motion(pose_A=np.asarray(pose_A, np.float32), rate_A=np.zeros(len(pose_A), np.float32))

    def _mean_A(self, newest_A: NDArray[np.float32], step: float) -> NDArray[np.float32]:
        # Oldest first with the largest weight (ACT, Zhao et al. 2023, algorithm 2: w_i = exp(-0.01 i)).
        moment = self._executed + step
        covering = [(curve, moment - begun) for begun, curve in self._others if 0 < moment - begun <= len(curve)]
        weights = np.exp(-0.01 * np.arange(len(covering)))
        mean_A = sum(w * curve.pose_A(at) for w, (curve, at) in zip(weights / weights.sum(), covering, strict=True))
        return np.where(self._is_switch_A, newest_A, mean_A).astype(np.float32) if covering else newest_A

    # --- dropping -----------------------------------------------------------------------------------------------------

    def bump(self, keep_rows: int = 0) -> int:
        """Reset, instruction or steering changed: answers to older requests are void; at most `keep_rows` old rows are still executed."""
        self.revision += 1
        self._asked.clear()
        self._others.clear()
        self._limit = min(self._limit, math.floor(self._position) + keep_rows) if keep_rows > 0 else self._position
        return self.revision

    def flush(self) -> None:
        """Forget every row and request, the gripper's too: a stop, a refusal, a new epoch. The next row starts from rest."""
        self._curve, self._position, self._limit = None, 0.0, 0.0
        self._asked.clear()
        self._others.clear()
        self._motion = None

    def drop_rows(self) -> None:
        """Forget the rows (expired, refused); an open request stays open, and what was done stays known."""
        self._curve, self._position, self._limit = None, 0.0, 0.0
        self._others.clear()
