"""Changes of a study after it was locked: lines of its ledger, never of its design."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from components.evaluation.studies.design import BLOCKS, Scene, read_design
from components.evaluation.studies.ledger import Amendment, Ledger, append, whole_ledger
from model_core.spec.errors import SpecError, require


def amend(folder: Path, reason: str, *, by: str = "", scenes: Sequence[Scene] = ()) -> Ledger:
    """Put an amendment on record. scenes: those among them that the study does not have yet are added, in blocks after the planned ones.

    Further pairs keep an anytime-valid test valid; one with planned looks they would not. Raises `SpecError` for such a study, for one
    whose trials were not run in blocks of both sides, and for scenes of other tasks; `DatasetError` for a ledger that was changed.
    """
    require(bool(reason.strip()), "an amendment needs a reason: one sentence that is shown wherever the study is")
    design = read_design(folder)
    ledger = whole_ledger(folder)
    there = {*design.scenes, *(scene for added in ledger.further_scenes for scene in added)}
    further = tuple(scene for scene in scenes if scene not in there)
    if scenes:
        require(design.assignment == BLOCKS, f"{folder} is a comparison of the gate, which adds no scenes. Fix: `actwright study run`")
        if design.gate.get("test") != "anytime":
            raise SpecError(f"{folder} has planned looks ({design.gate.get('test')}), so pairs cannot be added. Fix: begin another study")
        unknown = sorted({scene.task for scene in further} - {*design.tasks})
        require(not unknown, f"scenes of tasks that the study does not have: {', '.join(unknown)}")
        require(bool(further), "no scene is new. Fix: a larger --set gate.max_pairs=N")
    return append(folder, ledger, [Amendment(reason=reason.strip(), by=by, scenes=further)])
