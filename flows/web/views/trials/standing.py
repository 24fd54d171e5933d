"""Where a study stands, from its design, its ledger and its desk, without what would tell the policies apart."""

from __future__ import annotations

import time
from pathlib import Path

from components.evaluation.studies.design import StudyDesign, read_design
from components.evaluation.studies.desk import ROBOT, StudyDesk
from components.evaluation.studies.labels import STAGES
from components.evaluation.studies.ledger import Ledger, Trial, read_ledger
from components.evaluation.studies.plan import planned_blocks
from components.evaluation.studies.run import is_running
from flows.web.http.endpoint import Refused
from flows.web.live.cells import Cells
from flows.web.views.trials.documents import RecordedTrial, StudyRow, TrialNow, TrialStage
from model_core.spec.errors import WireError

_UNNAMED = 4  # parts of a task whose stages have no names


def row_of(folder: Path) -> StudyRow:
    """One line of the list of studies. Raises DatasetError for a design that cannot be read."""
    design = read_design(folder)
    ledger = read_ledger(folder, design)
    return StudyRow(
        study=folder.name,
        tasks=design.tasks,
        done=len(ledger.trials),
        planned=_planned(design, ledger),
        is_running=is_running(folder),
    )


def trial_now(folder: Path) -> TrialNow:
    """What the person is asked now. Raises DatasetError for a study or desk that cannot be read."""
    design, desk = read_design(folder), StudyDesk(folder)
    ledger, asked = read_ledger(folder, design), desk.asked()
    phase = asked.phase if asked is not None and is_running(folder) else ""
    return TrialNow(
        study=folder.name,
        phase=phase,
        number=asked.place + 1 if asked else 1,
        planned=_planned(design, ledger),
        task=asked.task if asked else "",
        scene=asked.seed if asked else 0,
        blind=asked.blind if asked else "",
        mode=_mode(desk.folder) if phase == "running" else "",
        rubric=design.rubric,
        void_rule=design.void_rule,
        stages=_stages(design),
        last=_recorded(len(ledger.trials), ledger.trials[-1]) if ledger.trials else None,
        heard_at=time.time(),
    )


def _planned(design: StudyDesign, ledger: Ledger) -> int:
    return sum(map(len, planned_blocks(design, ledger.further_scenes)))


def _stages(design: StudyDesign) -> tuple[TrialStage, ...]:
    """What a failure can have reached: nothing, and each stage but the last one, which is success."""
    names = [str(name) for name in design.rules.get(STAGES, ())]
    if not names:
        return tuple(TrialStage(name=f"{100 * part // _UNNAMED} %", progress=part / _UNNAMED) for part in range(_UNNAMED))
    return tuple(TrialStage(name=name, progress=reached / len(names)) for reached, name in enumerate(["none", *names[:-1]]))


def _recorded(number: int, trial: Trial) -> RecordedTrial:
    outcome = "void" if trial.void else "success" if trial.success else "failure"
    return RecordedTrial(
        number=number,
        blind=trial.blind,
        task=trial.task,
        outcome=outcome,
        progress=trial.progress,
        stop_reason=trial.stop_reason,
    )


def _mode(desk: Path) -> str:
    try:
        view = Cells(desk).view(ROBOT)
    except (Refused, WireError, OSError):
        return ""  # its process begins
    return "" if view.ended else view.mode
