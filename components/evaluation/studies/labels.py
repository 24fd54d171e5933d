"""What a person says of a trial on a robot, and who is asked: at a terminal, in a file, or by the console's phone page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from components.evaluation.studies.plan import PlannedTrial
from model_core.spec.errors import NotReady, SpecError, require

RUBRIC = "success: the task is done when the robot has stopped. Stage progress: the share of the task's stages that were reached, 0 to 1"

STAGES = "stages"  # among a design's rules: names of the task's stages in order, where a page is to offer them


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a person says of a trial. progress: 0..1. Raises `SpecError` for another progress, and for a success below 1."""

    success: bool
    progress: float

    def __post_init__(self) -> None:
        require(0.0 <= self.progress <= 1.0, "stage progress: expected a number in 0..1", got=self.progress)
        require(not self.success or self.progress == 1.0, "a success has stage progress 1", got=self.progress)


class Operator(Protocol):
    """The person at the robot."""

    @property
    def name(self) -> str:
        """As the ledger names them."""
        ...

    def lay_out(self, trial: PlannedTrial) -> None:
        """Wait until the scene is laid out. Only the blind name of the policy may be shown."""
        ...

    def label(self, trial: PlannedTrial) -> Label:
        """Ask what came of it."""
        ...


class WrittenAnswers:
    """An operator whose answers stand in a file: line n is of trial n, "yes 1.0" or "no 0.4"."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._path = path
        self._lines = path.read_text(encoding="utf-8").splitlines()

    def lay_out(self, trial: PlannedTrial) -> None:
        """Waits for no person. Raises `NotReady` where the file has no line of this trial: then it is not begun."""
        if trial.place >= len(self._lines):
            raise NotReady(f"{self._path}: no answer for trial {trial.place + 1}, got {len(self._lines)} lines. Fix: add lines, run again")
        self.label(trial)

    def label(self, trial: PlannedTrial) -> Label:
        """The line of this trial; raises `SpecError` where it cannot be read."""
        return read_label(self._lines[trial.place], f"{self._path}, line {trial.place + 1}")


def read_label(text: str, where: str) -> Label:
    """ "yes", "no 0.4" ...: success, and the stage progress (by itself 1 for a success, 0 else). Raises `SpecError`."""
    words = text.split()
    answers = {"y": True, "yes": True, "n": False, "no": False}
    said = answers.get(words[0].lower()) if words else None
    try:
        progress = float(words[1]) if len(words) > 1 else float(bool(said))
    except ValueError:
        progress = -1.0
    if said is None or len(words) > 2 or not float(said) <= progress <= 1.0:
        raise SpecError(
            f'{where}: expected "yes" (a success has stage progress 1), or "no" and a number in 0..1, such as "no 0.4", got {text!r}'
        )
    return Label(success=said, progress=progress)
