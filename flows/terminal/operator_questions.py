"""The questions of a study to the person at the robot: which scene to lay out, and what came of the trial."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from flows.terminal.output import print_line
from model_core.spec.errors import NotReady, SpecError

if TYPE_CHECKING:
    from components.evaluation.studies.labels import Label
    from components.evaluation.studies.plan import PlannedTrial


class AtTheTerminal:
    """A person who types. They see the blind name of the policy and nothing else of it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def lay_out(self, trial: PlannedTrial) -> None:
        """Wait for Enter."""
        print_line(f"trial {trial.place + 1}, {trial.task}, {trial.blind}: lay out scene {trial.seed}, then press Enter")
        _typed()

    def label(self, trial: PlannedTrial) -> Label:
        """Ask until the answer can be read."""
        from components.evaluation.studies.labels import RUBRIC, read_label

        while True:
            print_line(
                f'trial {trial.place + 1}, {trial.task}, {trial.blind}: "yes", or "no" and the stage progress, as in "no 0.4". {RUBRIC}'
            )
            try:
                return read_label(_typed(), "your answer")
            except SpecError as error:
                print_line(str(error))


def _typed() -> str:
    line = sys.stdin.readline()
    if not line:
        raise NotReady("the terminal was closed while a trial waited for its answer. Fix: run the study again, or give --answers FILE")
    return line.strip()
