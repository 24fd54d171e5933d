"""Run a study trial after trial: the next one is always the first of the plan that the ledger does not hold.

A trial is on record when it ended. Of a study that was stopped nothing is lost but the trial that was running: in a simulator it is run
again, and the same scene gives the same trial; with a robot it is void by the design's rule, for a trial that looked bad may not be
repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.artifacts.locks import locked, try_locked
from components.config.judging.verdict import GateVerdict
from components.config.records import Progress
from components.evaluation.gate import needs_pairs
from components.evaluation.studies.design import StudyDesign, read_design
from components.evaluation.studies.judge import judged
from components.evaluation.studies.ledger import Ledger, Trial, append, whole_ledger
from components.evaluation.studies.plan import PlannedTrial, planned_blocks
from model_core.spec.errors import DatasetError

_LOCK = ".running.lock"
RUNNING = "running.txt"  # the place of the robot's trial that runs now; its runner writes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Trialled:
    """What came of one trial. stop_reason: a `StopReason` value, "crash" or "timeout". void: by the design's rule. Others: see `Trial`."""

    success: bool
    stop_reason: str
    void: bool = False
    steps: int = 0
    decisions: int = 0
    refusals: int = 0
    progress: float = 0.0
    contract: str = ""
    detail: str = ""
    video: str = ""
    audit: str = ""
    operator: str = ""
    holds: int = 0
    clips: int = 0
    drops: int = 0


RunTrial = Callable[[PlannedTrial], Trialled]


def run_study(folder: Path, run_trial: RunTrial, progress: Progress) -> tuple[GateVerdict, Ledger]:
    """Run the locked study in `folder` to its end: decided after a whole block, or without a further one. Finished ones are only judged.

    One process at a time; a second one waits. Raises `DatasetError` for a design or ledger that was changed, and whatever `run_trial`
    raises: then the trial is not on record, and the study goes on when it is run again.
    """
    design = read_design(folder)
    if not design.digest.startswith(folder.name):
        raise DatasetError(f"the design of {folder} was changed since it was locked. Fix: restore it from a copy")
    with locked(folder / _LOCK):
        ledger = _interrupted(folder, design)
        while True:
            blocks = planned_blocks(design, ledger.further_scenes)
            total, done = sum(map(len, blocks)), len(ledger.trials)
            _check_order(folder, ledger, blocks)
            verdict = verdict_of(design, ledger)
            block = next((one for one in blocks if one[-1].place >= done), None)
            if block is None or (done == block[0].place and done and not needs_pairs(verdict)):
                return verdict, ledger
            for planned in block[max(0, done - block[0].place) :]:
                progress.update(planned.place, total, f"block {planned.block + 1}: {planned.task}, scene {planned.seed}")
                ledger = append(folder, ledger, [_trial(design, planned, run_trial(planned))])
                (folder / RUNNING).unlink(missing_ok=True)
            progress.update(len(ledger.trials), total, f"block {block[0].block + 1} is done")


def is_running(folder: Path) -> bool:
    """Whether a program runs this study now."""
    with try_locked(folder / _LOCK) as is_free:
        return not is_free


def verdict_of(design: StudyDesign, ledger: Ledger) -> GateVerdict:
    """What the whole blocks on record say; a block that is not whole yet says nothing."""
    blocks = planned_blocks(design, ledger.further_scenes)
    whole = [
        trial for block in blocks if block[-1].place < len(ledger.trials) for trial in ledger.trials[block[0].place : block[-1].place + 1]
    ]
    planned = sum(map(len, blocks)) // 2
    return judged(design, whole, planned=planned, is_last=len(whole) == sum(map(len, blocks)))


def _check_order(folder: Path, ledger: Ledger, blocks: list[tuple[PlannedTrial, ...]]) -> None:
    """The chain shows that no line was changed; this shows that the lines are the plan's."""
    planned = [trial for block in blocks for trial in block]
    for number, (trial, wanted) in enumerate(zip(ledger.trials, planned, strict=False), start=1):
        if (trial.side, trial.task, trial.seed, trial.block) != (wanted.side, wanted.task, wanted.seed, wanted.block):
            raise DatasetError(
                f"trial {number} of {folder}: by its design expected {wanted.side} on {wanted.task}, scene {wanted.seed}, got {trial.side} "
                f"on {trial.task}, scene {trial.seed}. Fix: restore the ledger from a copy"
            )


def _interrupted(folder: Path, design: StudyDesign) -> Ledger:
    """The ledger; a robot's trial that was running when this program ended is void, whatever it looked like."""
    ledger = whole_ledger(folder)
    mark = folder / RUNNING
    if mark.exists() and int(mark.read_text(encoding="utf-8") or -1) == len(ledger.trials):
        planned = next(t for block in planned_blocks(design, ledger.further_scenes) for t in block if t.place == len(ledger.trials))
        ended = Trialled(success=False, stop_reason="interrupted", void=True, detail="the study's program ended while it ran")
        ledger = append(folder, ledger, [_trial(design, planned, ended)])
    mark.unlink(missing_ok=True)
    return ledger


def _trial(design: StudyDesign, planned: PlannedTrial, found: Trialled) -> Trial:
    is_scored = design.metric == "score"
    return Trial(
        block=planned.block,
        side=planned.side,
        policy=design.candidate if planned.side == "candidate" else design.champion,
        contract=found.contract,
        task=planned.task,
        seed=planned.seed,
        suite=str(design.rules.get("suite", "")),
        suite_version=str(design.rules.get("suite_version", "")),
        success=found.success and not found.void,
        score=0.0 if found.void else found.progress if is_scored else float(found.success),
        stop_reason=found.stop_reason,
        void=found.void,
        steps=found.steps,
        decisions=found.decisions,
        refusals=found.refusals,
        detail=found.detail,
        progress=found.progress,
        video=found.video,
        audit=found.audit,
        turn=planned.turn,
        blind=planned.blind,
        operator=found.operator,
        holds=found.holds,
        clips=found.clips,
        drops=found.drops,
    )
