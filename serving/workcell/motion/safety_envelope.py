"""The last word before the driver, in a fixed order. No clock, no IO.

    epoch/seq -> contract -> finite -> age -> jump from the measured pose -> velocity, acceleration, jerk -> workspace -> driver

A small excess is clipped and counted, a large one refuses the whole chunk. A hold passes only "finite" and "workspace":
standing still must always be possible.

"workspace" is the range of the number and the place to which it leads. A relative number has become a place already; a delta or
velocity is added to the measured place, and in a chunk that is looked at before its first row to where the rows before it lead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.errors import require
from model_core.spec.execution.holding import POSES
from serving.workcell.motion.chunk_curve import ChunkRef, SessionKey
from serving.workcell.motion.limits import Limits

STAGES = ("epoch", "contract", "finite", "age", "jump", "velocity", "acceleration", "jerk", "workspace", "driver")
_ROUNDING = 1e-5  # of a dimension's limit: float32 against the file's decimals


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SafetyVerdict:
    """stage "": the action may go to the driver as `action_A`. Else the stage that refused the chunk, and why."""

    action_A: NDArray[np.float32]
    stage: str = ""
    reason: str = ""
    clipped: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_refused(self) -> bool:
        """The chunk must not be executed any further."""
        return bool(self.stage)


@dataclass(slots=True)
class EnvelopeTally:
    """Counts by stage, and of clips by dimension."""

    refused: dict[str, int] = field(default_factory=dict)
    clips: dict[str, int] = field(default_factory=dict)


class Envelope:
    """Checks one robot's commands against its limits. Remembers what was commanded, for rates."""

    def __init__(self, body: EmbodimentSpec, limits: Limits) -> None:
        names = [dim.name for dim in body.action.dims]
        require([d.name for d in limits.dims] == names, f"limits must be of {names}, in this order", got=[d.name for d in limits.dims])
        self.limits, self.tally = limits, EnvelopeTally()
        self._names, self._hz = names, body.control_hz
        modes = body.action.modes
        self._is_pose_A: NDArray[np.bool_] = np.array([mode in POSES for mode in modes])
        self._is_rate_A: NDArray[np.bool_] = np.array([mode == "velocity" for mode in modes])
        places = {dim.name: place for place, dim in enumerate(body.proprio.dims)}
        self._sensor = [places.get(d.measured_by) if d.measured_by else None for d in limits.dims]
        for dim, place in zip(limits.dims, self._sensor, strict=True):
            require(not dim.measured_by or place is not None, f"limits of {dim.name!r}: no proprio dimension {dim.measured_by!r}")
        self._low_A, self._high_A = _column(limits, "low"), _column(limits, "high")
        # How far one control step of 1 leads, in the unit of what measures it.
        self._step_A: NDArray[np.float64] = np.where(self._is_rate_A, _column(limits, "gain") / body.control_hz, _column(limits, "gain"))
        self._place_low_A, self._place_high_A = _column(limits, "place_low", -np.inf), _column(limits, "place_high", np.inf)
        room_A = np.where(self._is_pose_A, self._place_high_A - self._place_low_A, np.inf)  # a place is a number of its own range
        self._place_scale_A: NDArray[np.float64] = np.minimum(self._high_A - self._low_A, room_A)
        is_relative_A = np.array([mode == "relative" for mode in modes])
        self._offset_low_A: NDArray[np.float64] = np.where(is_relative_A, _column(limits, "offset_low", -np.inf), -np.inf)
        self._offset_high_A: NDArray[np.float64] = np.where(is_relative_A, _column(limits, "offset_high", np.inf), np.inf)
        self._jump_A = _column(limits, "max_jump", np.inf)
        self._top = {name: _column(limits, f"max_{name}", np.inf) for name in ("velocity", "acceleration", "jerk")}
        self._place_A: NDArray[np.float64] = np.full(len(names), np.nan)
        self._rate_A: NDArray[np.float64] = np.zeros(len(names))
        self._push_A: NDArray[np.float64] = np.zeros(len(names))

    def restart(self) -> None:
        """The robot stands: the next command is judged from the measured pose and from rest."""
        self._place_A[:] = np.nan
        self._rate_A[:] = 0.0
        self._push_A[:] = 0.0

    def check_offsets(self, rows_KA: NDArray[np.float32], judged: int = 0) -> tuple[NDArray[np.float32], SafetyVerdict]:
        """Relative numbers of an answer (K, A), before they become places: the rows inside their limits, or a refusal.

        judged: so many rows at the start were part of an older chunk, and of its measured pose; they are left as they are.
        """
        asked_KA = rows_KA.astype(np.float64)
        inside_KA = np.clip(asked_KA, self._offset_low_A, self._offset_high_A)
        inside_KA[:judged] = asked_KA[:judged]
        scale_A = self._scale(self._offset_high_A - self._offset_low_A)
        excess_KA = np.abs(asked_KA - inside_KA)
        excess_KA[excess_KA <= _ROUNDING * scale_A] = 0.0
        excess_A = excess_KA.max(axis=0, initial=0.0)
        if not excess_A.any():
            return rows_KA, SafetyVerdict(action_A=rows_KA[0])
        worst = int(np.argmax(excess_A / scale_A))
        if excess_A[worst] > self.limits.clip_fraction * scale_A[worst]:
            row = int(np.argmax(excess_KA[:, worst]))
            low, high = self._offset_low_A[worst], self._offset_high_A[worst]
            text = f"row {row}: {self._names[worst]} is {asked_KA[row, worst]:.4g} from the start, workspace allows {low:.4g} to {high:.4g}"
            return rows_KA, self._count(SafetyVerdict(action_A=rows_KA[row], stage="workspace", reason=text))
        clipped = {self._names[place]: float(excess_A[place]) for place in np.flatnonzero(excess_A)}
        kept_KA = np.where(excess_KA > 0, inside_KA, asked_KA).astype(np.float32)
        return kept_KA, self._count(SafetyVerdict(action_A=kept_KA[0], clipped=clipped))

    def check_rows(self, rows_KA: NDArray[np.float32], proprio_P: NDArray[np.float32], first: int = 0) -> SafetyVerdict:
        """Would any row of a chunk be refused, executed from here on at full pace? Changes nothing that is remembered."""
        memory = self._place_A.copy(), self._rate_A.copy(), self._push_A.copy()
        at_A = self._measured_A(proprio_P)
        try:
            for index, row_A in enumerate(rows_KA[first:]):
                # Later rows start from where the robot is commanded to be: a measured pose exists for the first one only.
                verdict = self._judge(row_A, proprio_P if index == 0 else None, at_A)
                if verdict.is_refused:
                    return self._count(SafetyVerdict(action_A=row_A, stage=verdict.stage, reason=f"row {first + index}: {verdict.reason}"))
                self._remember(verdict.action_A, proprio_P if index == 0 else None)
                at_A = self._led_to_A(at_A, verdict.action_A)
        finally:
            self._place_A, self._rate_A, self._push_A = memory
        return SafetyVerdict(action_A=rows_KA[min(first, len(rows_KA) - 1)])

    def check(
        self, action_A: NDArray[np.float32], ref: ChunkRef, session: SessionKey, *, now_s: float, proprio_P: NDArray[np.float32]
    ) -> SafetyVerdict:
        """Judge the command of this control step; the one that passes is remembered as executed."""
        stage, reason = _identity(ref, session)
        if not stage and not (np.isfinite(action_A).all() and np.isfinite(proprio_P).all()):
            stage, reason = "finite", "the command or the measured state holds NaN or inf"
        if not stage and now_s > ref.expires_at_s:
            stage, reason = "age", f"the row expired {1e3 * (now_s - ref.expires_at_s):.0f} ms ago"
        verdict = (
            SafetyVerdict(action_A=action_A, stage=stage, reason=reason)
            if stage
            else self._judge(action_A, proprio_P, self._measured_A(proprio_P))
        )
        if not verdict.is_refused:
            self._remember(verdict.action_A, proprio_P)
        return self._count(verdict)

    def hold(self, action_A: NDArray[np.float32], proprio_P: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """A hold on its way to the driver: brought inside the workspace; from here on the robot is at rest.

        A robot that is measured outside of it stays where it is: bringing it back in one step would be a leap.
        """
        here_A = np.where(self._is_pose_A, self._measured_A(proprio_P), np.nan)
        low_A, high_A = np.fmin(self._low_A, here_A), np.fmax(self._high_A, here_A)
        finite_A = np.where(np.isfinite(action_A), action_A, np.clip(0.0, low_A, high_A))
        held_A = np.clip(finite_A, low_A, high_A).astype(np.float32)
        self._rate_A[:] = 0.0
        self._push_A[:] = 0.0
        self._place_A = np.where(self._is_pose_A, held_A, np.nan)
        return held_A

    def refused_by_driver(self, reason: str) -> SafetyVerdict:
        """The last stage: the driver did not take the command."""
        self.restart()
        return self._count(SafetyVerdict(action_A=np.zeros(len(self._names), np.float32), stage="driver", reason=reason))

    # --- one command ----------------------------------------------------------------------------------------------

    def _judge(self, action_A: NDArray[np.float32], proprio_P: NDArray[np.float32] | None, at_A: NDArray[np.float64]) -> SafetyVerdict:
        """at_A: where the robot is when this command begins, in the unit of what measures it; NaN where nothing does."""
        if not np.isfinite(action_A).all():
            return SafetyVerdict(action_A=action_A, stage="finite", reason="the row holds NaN or inf")
        wanted_A = action_A.astype(np.float64)
        clipped: dict[str, float] = {}
        measured_A = self._measured_A(proprio_P)
        for stage, low_A, high_A, scale_A in self._bounds(wanted_A, measured_A, at_A):
            excess_A = np.maximum(np.maximum(low_A - wanted_A, wanted_A - high_A), 0.0)
            excess_A[excess_A <= _ROUNDING * scale_A] = 0.0
            if not excess_A.any():
                continue
            worst = int(np.argmax(excess_A / scale_A))
            if excess_A[worst] > self.limits.clip_fraction * scale_A[worst]:
                text = f"{self._names[worst]} is {wanted_A[worst]:.4g}, {stage} allows {low_A[worst]:.4g} to {high_A[worst]:.4g}"
                return SafetyVerdict(action_A=action_A, stage=stage, reason=text)
            for place in np.flatnonzero(excess_A):
                clipped[self._names[place]] = max(clipped.get(self._names[place], 0.0), float(excess_A[place]))
            wanted_A = np.where(excess_A > 0, np.clip(wanted_A, low_A, high_A), wanted_A)
        # What no later stage may undo: a rate that was brought back must still end inside the workspace, to the last bit.
        if clipped:
            wanted_A = np.clip(wanted_A, self._low_A, self._high_A)
        # A change past its bound by less than rounding is no fault, but repeated it would lead anywhere.
        wanted_A = np.where(self._is_pose_A, wanted_A, np.clip(wanted_A, *self._place_bounds(at_A)))
        return SafetyVerdict(action_A=wanted_A.astype(np.float32), clipped=clipped)

    def _bounds(self, wanted_A: NDArray[np.float64], measured_A: NDArray[np.float64], at_A: NDArray[np.float64]):
        """(stage, low, high, scale) in the fixed order; bounds of the command, given what was measured and commanded before."""
        start_A = np.where(self._is_pose_A, np.where(np.isnan(self._place_A), measured_A, self._place_A), 0.0)
        # From a command to a rate: a pose is a place (rate = change x hz), a delta a change, a velocity is the rate itself.
        per_rate_A = np.where(self._is_rate_A, 1.0, 1.0 / self._hz)
        origin_A = np.where(np.isnan(start_A), wanted_A, start_A)
        from_A = np.where(self._is_pose_A, np.where(np.isnan(measured_A), origin_A, measured_A), 0.0)
        per_jump_A = np.where(self._is_rate_A, self._hz, 1.0)
        yield "jump", from_A - self._jump_A * per_jump_A, from_A + self._jump_A * per_jump_A, self._scale(self._jump_A * per_jump_A)
        for name, centre_A, step in (
            ("velocity", np.zeros_like(wanted_A), 1.0),
            ("acceleration", self._rate_A, 1.0 / self._hz),
            ("jerk", self._rate_A + self._push_A / self._hz, 1.0 / self._hz**2),
        ):
            reach_A = self._top[name] * step * per_rate_A
            middle_A = origin_A + centre_A * per_rate_A
            yield name, middle_A - reach_A, middle_A + reach_A, self._scale(reach_A)
        yield "workspace", self._low_A, self._high_A, self._high_A - self._low_A
        yield "workspace", *self._place_bounds(at_A), self._place_scale_A

    def _place_bounds(self, at_A: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the step may end, as bounds of the command; a robot that is outside already may stay or come back."""
        is_known_A = ~np.isnan(at_A)
        here_A = np.where(is_known_A, at_A, 0.0)
        low_A = np.where(is_known_A, np.minimum(self._place_low_A, here_A), self._place_low_A)
        high_A = np.where(is_known_A, np.maximum(self._place_high_A, here_A), self._place_high_A)
        ends_2A = np.sort(np.stack([low_A - here_A, high_A - here_A]) / self._step_A, axis=0)  # a negative gain turns them round
        is_free_A = ~self._is_pose_A & ~is_known_A
        least_A = np.where(self._is_pose_A, low_A, np.where(is_free_A, -np.inf, ends_2A[0]))
        most_A = np.where(self._is_pose_A, high_A, np.where(is_free_A, np.inf, ends_2A[1]))
        return least_A, most_A

    def _led_to_A(self, at_A: NDArray[np.float64], action_A: NDArray[np.float32]) -> NDArray[np.float64]:
        """Where the robot is after a command that began at `at_A`, if it follows the command."""
        return np.where(self._is_pose_A, action_A, at_A + self._step_A * action_A)

    def _scale(self, reach_A: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(np.isfinite(reach_A), np.maximum(reach_A, 1e-12), 1.0)

    def _measured_A(self, proprio_P: NDArray[np.float32] | None) -> NDArray[np.float64]:
        if proprio_P is None:
            return np.full(len(self._names), np.nan)
        return np.array([np.nan if place is None else float(proprio_P[place]) for place in self._sensor])

    def _remember(self, action_A: NDArray[np.float32], proprio_P: NDArray[np.float32] | None) -> None:
        now_A = action_A.astype(np.float64)
        start_A = np.where(np.isnan(self._place_A), self._measured_A(proprio_P), self._place_A)
        change_A = np.where(np.isnan(start_A), 0.0, now_A - start_A) * self._hz
        rate_A = np.where(self._is_pose_A, change_A, np.where(self._is_rate_A, now_A, now_A * self._hz))
        self._push_A = (rate_A - self._rate_A) * self._hz
        self._rate_A = rate_A
        self._place_A = np.where(self._is_pose_A, now_A, np.nan)

    def _count(self, verdict: SafetyVerdict) -> SafetyVerdict:
        if verdict.is_refused:
            self.tally.refused[verdict.stage] = self.tally.refused.get(verdict.stage, 0) + 1
        for name in verdict.clipped:
            self.tally.clips[name] = self.tally.clips.get(name, 0) + 1
        return verdict


def _column(limits: Limits, name: str, absent: float = np.nan) -> NDArray[np.float64]:
    values = [getattr(dim, name) for dim in limits.dims]
    return np.array([absent if value is None else float(value) for value in values])


def _identity(ref: ChunkRef, session: SessionKey) -> tuple[str, str]:
    if (ref.session_id, ref.epoch) != (session.session_id, session.epoch):
        return "epoch", f"the row is of epoch {ref.epoch}, this is epoch {session.epoch}"
    if (ref.contract_id, ref.model_version) != (session.contract_id, session.model_version):
        return "contract", f"the row is of {ref.model_version} ({ref.contract_id}), this episode began with {session.model_version}"
    return "", ""
