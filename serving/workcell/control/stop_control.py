"""What brings one cell to a stop, what is noted of it, and how long a person is waited for. Nothing here lets it move again."""

from __future__ import annotations

from collections.abc import Callable

from model_core.spec.types import RefusalCode, StopReason
from serving.workcell.control.events import CellEvents
from serving.workcell.control.results import EpisodeJournal, HoldBegun
from serving.workcell.motion.motion_state import MotionState, StateMachine
from serving.workcell.robot.interface import Stoppable

_STANDING = (MotionState.HOLD, MotionState.SAFE_STOP)
_GUARD_CODES = {RefusalCode.UNSAFE.value, RefusalCode.NONFINITE.value}
_LOST_CODES = {RefusalCode.DEADLINE.value, RefusalCode.NOT_READY.value, "down"}


class StopControl:
    """The mode of one cell's robot, and who may stop it.

    operator: asked at every step of a SAFE_STOP for the name of the person who resumes it ("" means no one yet); the episode
    waits `operator_wait_s`. own_stop: the robot's, to be used when no operator is waited for; None for a robot that has none, and in
    a simulated world, where nothing moves between two commands and no person is there to release it.
    """

    def __init__(
        self,
        own_stop: Stoppable | None,
        machine: StateMachine,
        journal: EpisodeJournal,
        tell: CellEvents,
        *,
        operator: Callable[[], str] | None,
        operator_wait_s: float,
    ) -> None:
        self.machine = machine
        self._own_stop, self._journal, self._tell = own_stop, journal, tell
        self._operator, self._operator_wait_s = operator, operator_wait_s
        self._mode_said, self._is_killed = "", False
        self._owes_word = False

    @property
    def is_stopped(self) -> bool:
        """SAFE_STOP: only a person ends it."""
        return self.machine.mode is MotionState.SAFE_STOP

    @property
    def is_killed(self) -> bool:
        """A person, at the service, has stopped it; until a person here resumes it."""
        return self.is_stopped and self._is_killed

    def begin(self) -> None:
        """A new episode records its mode, whichever it is."""
        self._mode_said = ""

    def stop(self, now: float, reason: str) -> None:
        """SAFE_STOP, for the first reason that is given."""
        if not self.is_stopped:
            self.machine.stop(now, reason)
            self._journal.detail(reason)

    def kill(self, now: float, reason: str) -> None:
        """SAFE_STOP by a person at the service; known to be one also where something else had stopped the cell before."""
        self.stop(now, f"KILLED: {reason}")
        self._owes_word = not self._is_killed
        self._is_killed = True

    def owes_word(self) -> bool:
        """True once after each KILL: who ordered it waits for the word that the robot holds."""
        owes, self._owes_word = self._owes_word, False
        return owes

    def resume(self, now: float, operator: str) -> None:
        """A person, by name, ends the SAFE_STOP. Raises `SpecError` without a name."""
        self.machine.resume(now, operator)
        self._is_killed = False

    def note(self, now: float, *, silence_s: float, down_s: float | None) -> None:
        """Tell a change of mode. silence_s: since the service was last heard; down_s: since the link was known to be down."""
        mode = self.machine.mode
        if mode.value == self._mode_said:
            return
        if mode in _STANDING and self._mode_said not in _STANDING:
            begun = HoldBegun(t_s=now, reason=self.machine.reason, silence_s=silence_s, down_s=down_s)
            self._journal.running.hold_begun.append(begun)
        self._mode_said = mode.value
        self._tell.event("mode", mode=mode.value, reason=self.machine.reason)

    def enter(self, now: float) -> None:
        """The first step of a SAFE_STOP: it is recorded, and a robot with a stop of its own uses it when no operator is waited for."""
        self._journal.running.stopped_at_s = now
        self._tell.event("stop", reason=self.machine.reason)
        self._journal.detail(self.machine.reason)
        if self._own_stop is not None and not self._own_stop.stop_state() and self._operator_wait_s <= 0:
            self._own_stop.halt(self.machine.reason)

    def ask_operator(self) -> str:
        """The name of the person who resumes the cell; "" for no one yet."""
        return self._operator() if self._operator is not None else ""

    def given_up(self, now: float) -> StopReason | None:
        """Why the episode ends, when a person has been waited for long enough."""
        episode = self._journal.running
        if episode.stopped_at_s is None or now - episode.stopped_at_s < self._operator_wait_s:
            return None
        return why_of(episode.code) if self.machine.reason.startswith("held for") else StopReason.GUARD_STOPPED


def why_of(code: str) -> StopReason:
    """How an episode ended whose last refusal had this code."""
    if code in _GUARD_CODES:
        return StopReason.GUARD_STOPPED
    return StopReason.SERVICE_LOST if code in _LOST_CODES else StopReason.REFUSED
