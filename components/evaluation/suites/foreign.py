"""Results of vla-eval (Ai2's evaluation harness) as results of ours: its episodes become trials with exact intervals.

An episode that the harness could not finish is void, as a trial that a simulator broke, with one exception that is a trial and no success:
the policy's service refused or failed (`failure_reason` "model_act"). Facts of vla-eval 0.8.0: its mean success counts every unfinished
episode as a failure, also one that the simulator broke; tasks are named by their sentences, so that tasks with equal sentences merge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.config.records import EvalReport, RolloutRow
from components.evaluation.intervals import task_score
from components.evaluation.suites.results import SuiteResult, result_of_tasks
from model_core.spec.errors import SpecError
from model_core.spec.types import StopReason

BY_POLICY = "model_act"
HARNESS = "vla-eval"
VOID_RULE = (
    "an episode that vla-eval could not finish is void and voids its pair; one in which the policy's service refused or failed "
    f"({BY_POLICY}) is a trial without success"
)


def result_of_vla_eval(document: Mapping[str, Any], policy: str, contract: str) -> SuiteResult:
    """One result file of `vla-eval run`, counted. Arguments and errors: see `report_of_vla_eval`."""
    report = report_of_vla_eval(document, policy, contract)
    numbers = [row.seed for row in report.episodes]
    return result_of_tasks(report, list(report.per_task), (min(numbers), max(numbers)))


def report_of_vla_eval(document: Mapping[str, Any], policy: str, contract: str) -> EvalReport:
    """The episodes of a result file of `vla-eval run` as trials. policy, contract: digest of the checkpoint and id of its contract that the
    service had.

    Raises `SpecError` for a document that is none, and for one without an episode.
    """
    try:
        params = dict(document["config"].get("params", {}))
        version, benchmark = str(document["harness_version"]), str(document["benchmark"])
        tasks = [str(task["task"]) for task in document["tasks"]]
        rows = [row for task in document["tasks"] for row in _rows(str(task["task"]), task["episodes"])]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SpecError(
            f"expected a result of vla-eval (benchmark, harness_version, config, tasks with episodes), got a document without it "
            f"({type(error).__name__}: {error}). Fix: name the aggregate JSON that `vla-eval run` or `vla-eval export` wrote"
        ) from error
    if not rows:
        raise SpecError(f"the result of {benchmark} holds no episode. Fix: let the evaluation end, then `vla-eval export`")
    name = f"{HARNESS}/{params.get('suite', benchmark)}"
    rules = {"benchmark": benchmark, **{key: params[key] for key in sorted(params) if key != "suite"}}
    total = task_score(rows)
    return EvalReport(
        checkpoint_digest=policy,
        contract_id=contract,
        successes=total.successes,
        trials=total.trials,
        interval=total.interval,
        per_task={task: task_score([row for row in rows if row.task == task]) for task in tasks},
        episodes=tuple(rows),
        protocol={"suite": name, "suite_version": f"{HARNESS} {version}", **rules},
    )


def _rows(task: str, episodes: Sequence[Mapping[str, Any]]) -> Iterator[RolloutRow]:
    for episode in episodes:
        failure = str(episode.get("failure_reason") or "")
        success = bool(episode["metrics"].get("success")) and not failure
        stop = StopReason.SUCCESS if success else StopReason.MAX_STEPS
        if failure:
            stop = StopReason.REFUSED if failure == BY_POLICY else StopReason.ENV_ERROR
        yield RolloutRow(
            task=task,
            seed=int(episode["episode_id"]),
            success=success,
            stop_reason=stop.value,
            steps=int(episode.get("steps") or 0),
            decisions=0,
            refusals=int(failure == BY_POLICY),
            detail=f"{failure}: {episode.get('failure_detail') or ''}"[:300] if failure else "",
            progress=float(success),
        )
