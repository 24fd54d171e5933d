"""What the trials of a study say: the gate's tests of pairs, or, for stage scores, the same test on differences of scores. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from components.config.judging.verdict import NOT_ENOUGH, Check, GateVerdict, State, verdict_of
from components.config.recipe import GateConfig
from components.config.records import EvalReport, RolloutRow
from components.evaluation.intervals import task_score
from components.evaluation.judging.criteria import safety_checks
from components.evaluation.judging.pairs import ALL_TASKS, paired_checks
from components.evaluation.studies.design import StudyDesign
from components.evaluation.studies.ledger import Trial
from model_core.spec.documents import from_document
from model_core.spec.types import StopReason
from model_core.statistics.betting import BettingDesign, betting_test
from model_core.statistics.decision import Outcome


def judged(design: StudyDesign, trials: Sequence[Trial], *, planned: int, is_last: bool) -> GateVerdict:
    """The verdict after whole blocks. planned: scenes of all blocks, amendments included. is_last: no further block is planned."""
    cfg = from_document(GateConfig, dict(design.gate), where="design of the study: gate")
    blocks = sorted({trial.block for trial in trials})
    rounds = [(_report(design, trials, block, "candidate"), _report(design, trials, block, "champion")) for block in blocks]
    if not rounds:
        checks = [Check(name="trials", passed=False, reason=f"{NOT_ENOUGH}: no trial was run yet", state="open")]
    elif design.metric == "score":
        checks = list(_score_checks(cfg, design, trials, planned))
    else:
        cfg = replace(cfg, max_pairs=max(cfg.max_pairs, math.ceil(planned / len(design.tasks))))  # amendments may add pairs
        first = [replace(report, per_task=dict.fromkeys(design.tasks, task_score(()))) for report in rounds[0]]
        checks = list(paired_checks(cfg, [(first[0], first[1]), *((mine, theirs) for mine, theirs in rounds[1:])]))
    checks += safety_checks(cfg, [_row(trial) for trial in trials if trial.side == "candidate"])
    if is_last:  # what is open stays undecided
        checks = [_ended(check) for check in checks]
    return verdict_of(checks, design.candidate, design.champion)


def _ended(check: Check) -> Check:
    if check.stands != "open":
        return check
    reason = check.reason if check.reason.startswith(NOT_ENOUGH) else f"{NOT_ENOUGH}: {check.reason}"
    return replace(check, passed=False, reason=reason, state="not enough")


def _score_checks(cfg: GateConfig, design: StudyDesign, trials: Sequence[Trial], planned: int) -> Iterator[Check]:
    """Of every task and of all, on the differences of the scores of each pair, in the order in which they were run."""
    of_task: dict[str, list[float]] = {task: [] for task in design.tasks}
    pairs: dict[tuple[int, str, int], dict[str, Trial]] = {}
    every: list[float] = []
    for trial in trials:
        pair = pairs.setdefault((trial.block, trial.task, trial.seed), {})
        pair[trial.side] = trial
        if len(pair) == 2 and not any(one.void for one in pair.values()):
            difference = pair["candidate"].score - pair["champion"].score
            of_task[trial.task].append(difference)
            every.append(difference)
    wanted = {**of_task, **({ALL_TASKS: every} if len(of_task) > 1 else {})}
    for task, found in wanted.items():
        is_all = task == ALL_TASKS
        margin = cfg.margin / len(of_task) ** 0.5 if is_all else cfg.margin
        yield _score_check(f"non-inferior/{task}", found, margin, cfg.alpha, planned if is_all else max(1, planned // len(of_task)))
    if cfg.claim == "superiority":
        yield _score_check(f"superior/{ALL_TASKS}", every, 0.0, cfg.alpha, planned)


def _score_check(name: str, differences: Sequence[float], margin: float, alpha: float, maximum: int) -> Check:
    """The test is valid at every pair, so it is looked at after each of those that were run."""
    design = BettingDesign(margin=margin, alpha=alpha, maximum=max(maximum, len(differences), 1))
    found = betting_test(differences, design)
    mean = sum(differences) / len(differences) if differences else 0.0
    states: dict[Outcome, State] = {
        Outcome.SHOWN: "holds",
        Outcome.REFUTED: "fails",
        Outcome.OPEN: "open",
        Outcome.NOT_ENOUGH: "not enough",
    }
    state = states[found.outcome]
    words = {"holds": "", "fails": ": worse than the champion"}.get(state, "")
    better = ": better than the champion" if state == "holds" and name.startswith("superior") else words
    reason = f"{name.partition('/')[2]}: mean difference of stage scores {mean:+.3f} over {len(differences)} pairs"
    reason = f"{reason}; must be above {-margin:+.2f}; {found.detail}{better}"
    return Check(
        name=name,
        passed=state == "holds",
        reason=f"{NOT_ENOUGH}: {reason}" if state in ("open", "not enough") else reason,
        needed=-margin,
        got=mean,
        state=state,
    )


def _report(design: StudyDesign, trials: Sequence[Trial], block: int, side: str) -> EvalReport:
    """The trials of one side in one block as an evaluation's report."""
    rows = tuple(_row(trial) for trial in trials if trial.side == side and trial.block == block)
    per_task = {task: task_score([row for row in rows if row.task == task]) for task in sorted({row.task for row in rows})}
    total = task_score(rows)
    return EvalReport(
        checkpoint_digest=design.candidate if side == "candidate" else design.champion,
        contract_id="",
        successes=total.successes,
        trials=total.trials,
        interval=total.interval,
        per_task=per_task,
        episodes=rows,
        protocol=dict(design.rules),
    )


def _row(trial: Trial) -> RolloutRow:
    return RolloutRow(
        task=trial.task,
        seed=trial.seed,
        success=trial.success,
        stop_reason=StopReason.ENV_ERROR.value if trial.void else trial.stop_reason,
        steps=trial.steps,
        decisions=trial.decisions,
        refusals=trial.refusals,
        detail=trial.detail,
        progress=trial.progress,
        holds=trial.holds,
        clips=trial.clips,
        drops=trial.drops,
    )
