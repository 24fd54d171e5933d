"""Draft an embodiment file from a recorded set: what its metadata and data give, with its evidence; the rest as questions to a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.embodiments.document import FORMAT, RATES
from components.data.embodiments.evidence.gripper import GripperGuess, gripper_guess
from components.data.embodiments.evidence.guess import Guess, Measured, Open, fields_of, number, question_of
from components.data.embodiments.evidence.kinds import GRIPPER, JOINT, LENGTH, QUATERNION, ROTATION, kind_of
from components.data.embodiments.evidence.modes import ModeGuess, likely_partner, mode_guess
from components.data.embodiments.evidence.motion import MotionTest
from components.data.embodiments.evidence.recorded import ACTION, STATE, RecordedCamera, RecordedSet, read_recorded
from components.data.embodiments.evidence.units import action_unit, state_units

_FRAMES = {JOINT: "joint", GRIPPER: "gripper"}
_RATE_TOLERANCE = 0.01
_TAIL = 1e-3  # share of the rows beyond which a value may be a fault


def draft_embodiment(folder: Path) -> dict[str, Any]:
    """The document of an embodiment file for a LeRobot folder. Raises `DatasetError` where the set is torn or has no state or action."""
    return draft_of(read_recorded(folder))


def draft_of(recorded: RecordedSet) -> dict[str, Any]:
    """The document for a set that was read."""
    gripper, test = gripper_guess(recorded), MotionTest(recorded)
    state_names, action_names = recorded.names(STATE), recorded.names(ACTION)
    modes = [mode_guess(test, place, likely_partner(action_names, state_names, place)) for place in range(len(action_names))]
    units = state_units(state_names, recorded.state_NP)
    alone = state_units(action_names, recorded.actions_NA)
    of_actions: list[Guess] = []
    for place, mode in enumerate(modes):
        known = None if mode.state is None else units[mode.state]
        unit, told = action_unit(action_names[place], recorded.actions_NA[:, place], mode, alone[place], known)
        of_actions.append(unit)
        if mode.state is not None and told is not None:
            units[mode.state] = told
    name_evidence = f"robot_type of {recorded.name}"
    name: Guess = Measured(value=recorded.robot, evidence=name_evidence)
    if recorded.robot in ("", "unknown"):
        name = Open(question="what is this robot called?", evidence="the set names no robot_type")
    head = {"name": name, "control_hz": _rate(recorded)}
    return {
        "format": FORMAT,
        "note": f"Drafted from {recorded.name}: {recorded.described}. Ranges are what was recorded; the robot's own limits may be wider.",
        **{key: value for key, value in fields_of(head).items() if key != "evidence"},
        "cameras": [_camera(camera) for camera in recorded.cameras],
        "proprio": _state(recorded, units),
        "action": _action(recorded, of_actions, modes, gripper),
        "gripper": _gripper(gripper),
        "rotation": _single(_rotation(state_names, action_names)),
        "confirmed": {
            "by": question_of(Open(question="who has answered the open items and compared this file with the robot?")),
            "on": question_of(Open(question="on which day? (YEAR-MONTH-DAY)")),
        },
        "evidence": fields_of(head).get("evidence", {}),
    }


def _rate(recorded: RecordedSet) -> Guess:
    steps_N = recorded.step_s[np.isfinite(recorded.step_s)]
    if not len(steps_N):
        return Open(question="how many control steps are there in a second?", likely=recorded.fps, evidence="no episode has two rows")
    q01, q50, q99 = np.quantile(steps_N, [0.01, 0.5, 0.99])
    told = f"fps of meta/info.json is {recorded.fps:g}; {len(steps_N)} steps of {number(1000 * q50)} ms (q01 {number(1000 * q01)}, q99 "
    told += f"{number(1000 * q99)})"
    rate = int(recorded.fps) if recorded.fps == int(recorded.fps) else recorded.fps
    if q50 > 0 and abs(1.0 / q50 / recorded.fps - 1.0) <= _RATE_TOLERANCE:
        return Measured(value=rate, evidence=told)
    return Open(question="the timestamps have another rate than meta/info.json states: which is right?", evidence=told)


def _camera(camera: RecordedCamera) -> dict[str, Any]:
    fields: dict[str, Guess | None] = {"name": Measured(value=camera.name)}
    for side, size in (("width", camera.width), ("height", camera.height)):
        ask = Open(question=f"how many pixels of {side} have the images?", evidence="the set states no size")
        fields[side] = ask if size is None else Measured(value=size, evidence="shape of the feature in meta/info.json")
    return fields_of(fields)


def _state(recorded: RecordedSet, units: Sequence[Guess]) -> dict[str, Any]:
    names = recorded.names(STATE)
    dims = [_dim(recorded, STATE, place, {"unit": units[place]}) for place in range(len(names))]
    return {**_framed(names), "dims": dims}


def _action(recorded: RecordedSet, units: Sequence[Guess], modes: Sequence[ModeGuess], gripper: GripperGuess) -> dict[str, Any]:
    """The action: its dimensions' modes are asked for once where several are open, except the gripper's."""
    names = recorded.names(ACTION)
    common = [mode.guess for place, mode in enumerate(modes) if place != gripper.index]
    mode, own = _common_mode(common, [name for place, name in enumerate(names) if place != gripper.index])
    dims: list[dict[str, Any]] = []
    for place, guess in enumerate(modes):
        given = guess.guess
        if place != gripper.index and (isinstance(given, Open) or not own):
            given = Measured(value=None, evidence=given.evidence)
        dims.append(_dim(recorded, ACTION, place, {"unit": units[place], "mode": given}, holds_at_0=_is_change(guess.guess)))
    return {"mode": _single(mode), **_framed(names), "dims": dims}


def _common_mode(guesses: Sequence[Guess], names: Sequence[str]) -> tuple[Guess, bool]:
    """The mode of the whole vector, and whether dimensions that are decided state their own."""
    decided = {guess.value for guess in guesses if isinstance(guess, Measured)}
    asked = [guess for guess in guesses if isinstance(guess, Open)]
    if not asked and len(decided) == 1:
        return Measured(value=decided.pop(), evidence="every dimension by itself, see there"), False
    likely = {guess.likely for guess in asked} | decided
    open_names = [name for name, guess in zip(names, guesses, strict=True) if isinstance(guess, Open)]
    question = asked[0].question if len({guess.question for guess in asked}) == 1 else "how are these actions meant?"
    if not asked:
        question = "what is the mode of a dimension that states none?"
    said = f"not decided for {', '.join(open_names)}; each one's numbers are in its evidence" if open_names else ""
    ask = Open(
        question=f"{question} (absolute, relative, delta or velocity)", likely=likely.pop() if len(likely) == 1 else None, evidence=said
    )
    return ask, True


def _framed(names: Sequence[str]) -> dict[str, Any]:
    """The frame of all dimensions that state none: a person's to say."""
    asked = [name for name in names if kind_of(name) not in _FRAMES]
    if not asked:
        return {}
    question = f"in which frame are {', '.join(asked)} ('base', 'world', 'end effector', ...)? 'joint' for joints"
    return {"frame": question_of(Open(question=question, evidence="no column says it"))}


def _is_change(mode: Guess) -> bool:
    """Whether an action of 0 holds the robot, as far as it is known."""
    return (mode.value if isinstance(mode, Measured) else mode.likely) in RATES


def _dim(recorded: RecordedSet, vector: str, place: int, given: Mapping[str, Guess | None], *, holds_at_0: bool = False) -> dict[str, Any]:
    name = recorded.names(vector)[place]
    frame = _FRAMES.get(kind_of(name))
    low, high, told = _limits(recorded.values(vector)[:, place])
    if holds_at_0:
        ends = ((low, min), (high, max))
        widened = [replace(limit, value=widen(limit.value, 0)) if isinstance(limit, Measured) else limit for limit, widen in ends]
        told += "" if widened == [low, high] else "; widened to 0, which holds the robot"
        low, high = widened
    fields: dict[str, Guess | None] = {"name": Measured(value=name), **given, "low": low, "high": high}
    if frame:
        fields["frame"] = Measured(value=frame)
    document = fields_of(fields)
    evidence = {**document.pop("evidence", {}), "range": told}
    return {key: value for key, value in document.items() if value is not None} | {"evidence": evidence}


def _limits(column_N: NDArray[np.floating]) -> tuple[Guess, Guess, str]:
    """The recorded range, rounded outward; open where one end is far from all other values, or nothing ever changes."""
    sorted_N = np.sort(column_N[np.isfinite(column_N)].astype(np.float64))
    odd = f", {len(column_N) - len(sorted_N)} values are no numbers" if len(sorted_N) < len(column_N) else ""
    if not len(sorted_N) or sorted_N[0] == sorted_N[-1]:
        told = (f"constant {number(sorted_N[0])}" if len(sorted_N) else "no value is a number") + f" in {len(column_N)} rows{odd}"
        asked = [Open(question=f"what is the {end} allowed value?", evidence=told) for end in ("smallest", "largest")]
        return asked[0], asked[1], told
    low, high = float(sorted_N[0]), float(sorted_N[-1])
    q01, q50, q99 = np.quantile(sorted_N, [0.01, 0.5, 0.99])
    told = f"min {number(low)}, q01 {number(q01)}, q50 {number(q50)}, q99 {number(q99)}, max {number(high)} of {len(column_N)} rows{odd}"
    tail = int(np.ceil(_TAIL * len(sorted_N)))
    inner_low, inner_high = float(sorted_N[min(tail, len(sorted_N) - 1)]), float(sorted_N[max(len(sorted_N) - 1 - tail, 0)])
    inner, step = inner_high - inner_low, 10.0 ** (np.floor(np.log10(high - low)) - 2)
    limits: list[Guess] = []
    for end, far, rounded in (
        ("smallest", inner_low - low, np.floor(low / step) * step),
        ("largest", high - inner_high, np.ceil(high / step) * step),
    ):
        value = float(f"{rounded:.9g}")
        stray = f"{tail} of {len(sorted_N)} values are by {number(far)} beyond all others, which span {number(inner)}"
        question = f"what is the {end} allowed value? The {end} recorded one may be a fault"
        limits.append(Open(question=question, evidence=stray) if inner > 0 and far > inner else Measured(value=value))
    return limits[0], limits[1], told


def _gripper(gripper: GripperGuess) -> dict[str, Any]:
    return fields_of({"dim": gripper.dim, "values": gripper.values, "open": gripper.opened, "threshold": gripper.threshold})


def _rotation(state_names: Sequence[str], action_names: Sequence[str]) -> Guess:
    names = [*state_names, *action_names]
    turning = [name for name in names if kind_of(name) in (ROTATION, QUATERNION)]
    question = "how are rotations written ('axis-angle', 'euler-xyz', 'quaternion-xyzw', ...; '' without any)?"
    if turning:
        said = ", ".join(turning).lower()
        likely = "axis-angle" if "axis" in said else "euler-xyz" if "roll" in said else None
        return Open(question=question, likely=likely, evidence=f"{len(turning)} numbers are rotations by name: {', '.join(turning)}")
    kinds = {kind_of(name) for name in names}
    if kinds <= {JOINT, GRIPPER} or kinds <= {LENGTH, GRIPPER}:
        return Measured(value="", evidence="by their names, no number is a rotation of the end effector")
    return Open(question=question, evidence="the names do not say whether a number is a rotation")


def _single(guess: Guess) -> Any:
    """One value of the file outside of a mapping with others."""
    if isinstance(guess, Open):
        return question_of(guess)
    return {"value": guess.value, "evidence": guess.evidence} if guess.evidence else guess.value
