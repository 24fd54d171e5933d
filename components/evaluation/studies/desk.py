"""The desk between a study's program and the person at its robot who uses a page: files in the study's folder, each always whole.

desk/asked.json           what the person is asked now; written by the study's program
     start.json           the scene is laid out and the robot may move; used up by the trial
     answers/00003.json   what came of trial 4; written once
     robot/               what the cell shows, and orders to it (a stop)

A start is for this moment: one that waited longer than `TOO_OLD_S` starts nothing. An answer is for its trial, whenever it comes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from components.artifacts.locks import locked
from components.evaluation.studies.labels import Label
from components.evaluation.studies.plan import PlannedTrial
from model_core.spec.documents import Number, from_document, to_document
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write
from model_core.spec.live.orders import TOO_OLD_S

DESK, ROBOT = "desk", "robot"
Phase = Literal["lay out", "running", "label"]
_LOOK_S = 0.05
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the person is asked. phase: lay out the scene; nothing, the robot moves; what came of it. Others: see `PlannedTrial`. Of the
    policy it holds the blind name alone."""

    phase: Phase
    place: int
    task: str
    seed: int
    blind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A person says that the robot may move. given_at: seconds since 1970."""

    place: int
    author: str
    given_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a person says of a trial. key: of the sending; the same key again is the same answer."""

    place: int
    key: str
    success: bool
    progress: Number
    author: str


class StudyDesk:
    """The desk of one study; for any number of processes. folder: of the study. wall: seconds since 1970."""

    def __init__(self, folder: Path, *, wall: Callable[[], float] = time.time) -> None:
        self.folder = folder / DESK
        self._wall = wall

    def ask(self, phase: Phase, trial: PlannedTrial) -> None:
        """Put a question to the person. A start that was given to another question is gone."""
        self._start.unlink(missing_ok=True)
        asked = Asked(phase=phase, place=trial.place, task=trial.task, seed=trial.seed, blind=trial.blind)
        _write(self.folder / "asked.json", asked)

    def asked(self) -> Asked | None:
        """The question; None where no person was asked yet."""
        return _read(self.folder / "asked.json", Asked)

    def give_start(self, start: Start) -> None:
        """Let the trial start that is asked for."""
        _write(self._start, start)

    def take_back_start(self) -> None:
        """The trial did not start: it does not start later either."""
        self._start.unlink(missing_ok=True)

    def take_start(self, place: int) -> Start | None:
        """The start of this trial, once; None where no person gave one in the last `TOO_OLD_S` seconds."""
        start = _read(self._start, Start)
        if start is None:
            return None
        self._start.unlink(missing_ok=True)
        is_fresh = start.place == place and 0.0 <= self._wall() - start.given_at <= TOO_OLD_S
        return start if is_fresh else None

    def give_answer(self, answer: Answer) -> Answer:
        """Keep the answer, unless the trial has one; returns the one that stands."""
        path = self._answer(answer.place)
        with locked(self.folder / ".answers.lock"):
            found = self.answer(answer.place)
            if found is None:
                _write(path, answer)
        return found or answer

    def answer(self, place: int) -> Answer | None:
        """What was said of a trial."""
        return _read(self._answer(place), Answer)

    @property
    def _start(self) -> Path:
        return self.folder / "start.json"

    def _answer(self, place: int) -> Path:
        return self.folder / "answers" / f"{place:05d}.json"


class AtTheDesk:
    """An operator who uses a page over the desk. name: of who answered last. sleep: waits between two looks."""

    def __init__(self, desk: StudyDesk, *, sleep: Callable[[float], object] = time.sleep) -> None:
        self._desk, self._sleep = desk, sleep
        self.name = ""

    def lay_out(self, trial: PlannedTrial) -> None:
        """Wait until a person starts the trial."""
        self._desk.ask("lay out", trial)
        self._wait(lambda: self._desk.take_start(trial.place))
        self._desk.ask("running", trial)

    def label(self, trial: PlannedTrial) -> Label:
        """Wait for a person's answer."""
        self._desk.ask("label", trial)
        answer = self._wait(lambda: self._desk.answer(trial.place))
        self.name = answer.author
        return Label(success=answer.success, progress=float(answer.progress))

    def _wait(self, look: Callable[[], T | None]) -> T:
        while (found := look()) is None:
            self._sleep(_LOOK_S)
        return found


def _write(path: Path, document: object) -> None:
    atomic_write(path, json.dumps(to_document(document)))


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return from_document(kind, json.loads(path.read_text(encoding="utf-8")), where=str(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DatasetError(f"{path}: expected a file of the study's desk, got {error}. Fix: remove it") from error
