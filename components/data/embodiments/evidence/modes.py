"""Which mode an action dimension has, as far as the data decide it: absolute, relative, delta or velocity."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.data.embodiments.evidence.guess import Guess, Measured, Open, number
from components.data.embodiments.evidence.kinds import GRIPPER, kind_of
from components.data.embodiments.evidence.motion import ABSOLUTE, DELTA, RELATIVE, Levels, MotionTest, Reading, is_one, levels

EXPLAINS = 0.35  # a reading explains the motion if at most this share of it stays unexplained
MARGIN = 0.3  # and the next one leaves at least this much more
EXACT, SECOND = 5.0, 0.1  # or leaves this many times as much, and this much more
_SAME_LEVEL, _OTHER_LEVEL = 0.05, 4.0  # of the state's span; times the other
_PREFIX = re.compile(r"^(action|state|observation|delta|target|cmd|command|d(?=[xyz]\b|roll|pitch|yaw|r[xyz]\b))[_. ]?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeGuess:
    """The mode of one action dimension. state: the state dimension that it moves; reading: the best one; None where nothing moves."""

    guess: Guess
    state: int | None = None
    reading: Reading | None = None
    level: Levels | None = None

    @property
    def is_same_unit(self) -> bool:
        """Whether one unit of the action is one unit of the state."""
        return self.reading is not None and self.reading.residual <= EXPLAINS and is_one(self.reading.scale)


def likely_partner(action_names: Sequence[str], state_names: Sequence[str], action: int) -> tuple[int | None, bool]:
    """The state dimension that an action dimension probably moves, and whether its name says so.

    That of the same name; or else, of two vectors of one width, that of the same place, which the motion may still contradict.
    """
    plain = [_plain(name) for name in state_names]
    if plain.count(_plain(action_names[action])) == 1:
        return plain.index(_plain(action_names[action])), True
    grippers = [place for place, name in enumerate(state_names) if kind_of(name) == GRIPPER]
    if kind_of(action_names[action]) == GRIPPER and len(grippers) == 1:
        return grippers[0], True
    return (action if len(action_names) == len(state_names) else None), False


def mode_guess(test: MotionTest, action: int, likely: tuple[int | None, bool]) -> ModeGuess:
    """Read one action dimension in every way and decide only where one reading explains the motion and no other does.

    likely: of `likely_partner`.
    """
    likely_state, is_named = likely
    state = likely_state if is_named else test.partner(action, likely_state)
    readings = () if state is None else test.readings(action, state)
    if state is None or not readings:
        why = f"{test.windows} displacements over {test.window} steps; in none of them this action and a state move together"
        return ModeGuess(guess=Open(question=_QUESTION, evidence=why))
    best, level = readings[0], None
    evidence = residuals(test, readings)
    rivals = readings
    if best.mode == ABSOLUTE:
        level = levels(test, best)
        if abs(level.offset) <= _SAME_LEVEL and _is_absolute(level):  # targets stand where the state is, not beside a start
            rivals = tuple(reading for reading in readings if reading.mode != RELATIVE)
    if not is_plain(rivals):
        likely_mode = best.mode if best.residual <= EXPLAINS else None  # the best of readings that explain nothing is none
        return ModeGuess(guess=Open(question=_QUESTION, likely=likely_mode, evidence=evidence), state=state, reading=best)
    if level is not None:
        guess = _pose(level, evidence)
    elif best.mode == DELTA:
        guess = _rate(test, best, evidence)
    else:
        evidence += f"; relative to the state at the start of every {best.chunk} steps"
        guess = Measured(value=RELATIVE, evidence=evidence) if is_one(best.scale) else _asked(RELATIVE, evidence)
    return ModeGuess(guess=guess, state=state, reading=best, level=level)


def is_plain(readings: Sequence[Reading]) -> bool:
    """Whether the first reading explains the motion, and the next one plainly does not."""
    if not readings or readings[0].residual > EXPLAINS:
        return False
    if len(readings) < 2:
        return True
    best, second = readings[0].residual, readings[1].residual
    return second - best >= MARGIN or second >= EXACT * best + SECOND


def residuals(test: MotionTest, readings: Sequence[Reading]) -> str:
    """The residual of every reading, for evidence."""
    best, name = readings[0], test.recorded.names("proprio")[readings[0].state]
    listed = ", ".join(f"{reading.mode} {reading.residual:.3f}" for reading in readings)
    lag_ms = 1000 * best.lag / test.recorded.fps
    return (
        f"unexplained share of the motion of state {name!r} over {test.window} steps: {listed}; {test.windows} displacements, "
        f"lag {best.lag} steps ({lag_ms:.0f} ms), 1 of the action is {number(best.scale)} of the state"
    )


_QUESTION = "is this action a position (absolute), relative to the start of its chunk (relative), a step (delta) or a speed (velocity)?"


def _pose(level: Levels, evidence: str) -> Guess:
    """Absolute and relative to the first state differ only by where an episode begins."""
    absolute, relative = level.left_absolute, level.left_relative
    evidence += (
        f"; targets beside the state, from episode to episode, as a share of its span: {absolute:.3f} if absolute, {relative:.3f} if "
        f"relative to the first state"
    )
    if _is_absolute(level):
        return Measured(value=ABSOLUTE, evidence=evidence)
    if relative <= _SAME_LEVEL and absolute >= max(_OTHER_LEVEL * relative, _SAME_LEVEL):
        return Measured(value=RELATIVE, evidence=evidence)
    return _asked(ABSOLUTE, evidence)


def _is_absolute(level: Levels) -> bool:
    return level.left_absolute <= _SAME_LEVEL and level.left_relative >= max(_OTHER_LEVEL * level.left_absolute, _SAME_LEVEL)


def _rate(test: MotionTest, best: Reading, evidence: str) -> Guess:
    """A step and a speed differ only by their unit."""
    per_second = best.scale * test.recorded.fps
    if is_one(best.scale) and not is_one(per_second):
        return Measured(value=DELTA, evidence=evidence)
    largest = float(np.nanmax(np.abs(test.recorded.actions_NA[:, best.action])))
    is_speed = is_one(per_second) and largest > 1.0
    evidence += f", {number(per_second)} of it in a second; largest action {number(largest)}"
    question = "each action adds to the state: is it a step in a unit of its own (delta), or a speed (velocity)?"
    return Open(question=question, likely="velocity" if is_speed else DELTA, evidence=evidence)


def _asked(likely: str, evidence: str) -> Open:
    return Open(question=_QUESTION, likely=likely, evidence=evidence)


def _plain(name: str) -> str:
    lowered = name.lower()
    while (shorter := _PREFIX.sub("", lowered)) not in (lowered, ""):
        lowered = shorter
    return lowered
