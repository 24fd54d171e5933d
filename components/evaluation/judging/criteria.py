"""The criteria that a candidate meets or not by itself, without a champion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from components.config.judging.verdict import ERROR_RATIO, IMAGE_SWAP_CHANGE, NOT_ENOUGH, Check
from components.config.recipe import GateConfig
from components.config.records import EvalReport, RolloutRow, TaskScore
from model_core.spec.types import StopReason
from model_core.statistics.binomial import lower_bound
from model_core.statistics.safety import safety_finding


def absolute_checks(cfg: GateConfig, report: EvalReport, blindness: Mapping[str, float]) -> Iterator[Check]:
    """Every such criterion, in the order in which they are listed. blindness: what the image-swap measurement found."""
    if report.open_loop:
        yield _open_loop_check(cfg, report.open_loop)
        yield _image_check(cfg, blindness)
        return
    if not report.per_task:
        yield Check(name="trials", passed=False, reason=f"{NOT_ENOUGH}: the evaluation holds no task", needed=1, got=0)
    for task, score in sorted(report.per_task.items()):
        yield _trials_check(cfg, task, score)
        yield _floor_check(cfg, task, score)
    yield _refusal_check(cfg, report)
    yield from safety_checks(cfg, report.episodes)
    yield _image_check(cfg, blindness)


def _open_loop_check(cfg: GateConfig, found: Mapping[str, float]) -> Check:
    ratio, needed = found[ERROR_RATIO], cfg.max_open_loop_error
    reason = (
        f"on {found['frames']:.0f} held-out frames ({found['refused']:.0f} refused) the predicted actions are off by {ratio:.2f} of what "
        f"the mean action is off by, at most {needed:.2f} may be"
    )
    return Check(name="open-loop", passed=ratio <= needed and not found["refused"], reason=reason, needed=needed, got=ratio)


def shown_check(embodiment: str, report: EvalReport) -> Check:
    """What the network does for an embodiment that is not released. Nothing is needed of it, so it holds."""
    found, change = report.open_loop, _percent(report.blindness.get(IMAGE_SWAP_CHANGE, 0.0))
    reason = (
        f"not released, shown only: for {embodiment!r} the predicted actions are off by {found[ERROR_RATIO]:.2f} of what the mean action "
        f"is off by on {found['frames']:.0f} held-out frames, and {change} of them change with the image"
    )
    return Check(name=f"shown/{embodiment}", passed=True, reason=reason, got=found[ERROR_RATIO])


def _trials_check(cfg: GateConfig, task: str, score: TaskScore) -> Check:
    enough = score.trials >= cfg.min_trials
    reason = f"{task}: {score.trials} trials, {cfg.min_trials} needed"
    return Check(
        name=f"trials/{task}",
        passed=enough,
        reason=reason if enough else f"{NOT_ENOUGH}: {reason}",
        needed=cfg.min_trials,
        got=score.trials,
    )


def _floor_check(cfg: GateConfig, task: str, score: TaskScore) -> Check:
    low = lower_bound(score.successes, score.trials, cfg.confidence) if score.trials else 0.0
    reason = f"{task}: {score.successes} of {score.trials} solved, so at least {low:.2f} with {_percent(cfg.confidence)} confidence"
    name = f"floor/{task}"
    if low >= cfg.floor:
        return Check(name=name, passed=True, reason=f"{reason}; the floor is {cfg.floor:.2f}", needed=cfg.floor, got=low, state="holds")
    if score.trials and score.successes / score.trials < cfg.floor:
        reason = f"{reason}; {score.successes / score.trials:.2f} is below the floor {cfg.floor:.2f}"
        return Check(name=name, passed=False, reason=reason, needed=cfg.floor, got=low, state="fails")
    reason = f"{NOT_ENOUGH}: {reason}, which reaches below the floor {cfg.floor:.2f}"
    return Check(name=name, passed=False, reason=reason, needed=cfg.floor, got=low, state="not enough")


def _refusal_check(cfg: GateConfig, report: EvalReport) -> Check:
    decisions = sum(row.decisions for row in report.episodes)
    refusals = sum(row.refusals for row in report.episodes)
    rate = refusals / decisions if decisions else 0.0
    reason = f"{refusals} of {decisions} decisions were refused, at most {_percent(cfg.max_refusal_rate)} may be"
    if not decisions:
        return Check(name="refusals", passed=False, reason=f"{NOT_ENOUGH}: no decision was counted", needed=cfg.max_refusal_rate)
    return Check(name="refusals", passed=rate <= cfg.max_refusal_rate, reason=reason, needed=cfg.max_refusal_rate, got=rate)


def safety_checks(cfg: GateConfig, rows: Sequence[RolloutRow]) -> Iterator[Check]:
    """Counters of trials with an event: one that is shown to be above its limit vetoes. Below it, or undecided, nothing is asked."""
    trials = [row for row in rows if row.stop_reason != StopReason.ENV_ERROR]
    counters = {
        "refusals": ("a refused decision", sum(row.refusals > 0 for row in trials), cfg.max_refused_trials),
        "clips": ("a command that the safety envelope clipped", sum(row.clips > 0 for row in trials), cfg.max_clipped_trials),
        "holds": ("a control step that was held", sum(row.holds > 0 for row in trials), cfg.max_held_trials),
        "drops": ("an answer that was dropped", sum(row.drops > 0 for row in trials), cfg.max_dropped_trials),
    }
    for counter, (words, events, limit) in counters.items():
        found = safety_finding(counter, events, len(trials), limit, cfg.confidence)
        if found.exceeds:
            reason = (
                f"{found.events} of {found.trials} trials had {words}, so at least {found.low:.2f} of all with "
                f"{_percent(cfg.confidence)} confidence; the limit is {found.limit:.2f}"
            )
            yield Check(name=f"safety/{counter}", passed=False, reason=reason, needed=found.limit, got=found.low, state="fails")


def _image_check(cfg: GateConfig, blindness: Mapping[str, float]) -> Check:
    change, needed = blindness.get(IMAGE_SWAP_CHANGE), cfg.min_image_swap_change
    if change is None:
        reason = f"{NOT_ENOUGH}: not measured whether actions change when the image is exchanged"
        return Check(name="image", passed=needed == 0, reason=reason, needed=needed)
    reason = f"{_percent(change)} of the actions change when the image is exchanged, {_percent(needed)} needed"
    return Check(name="image", passed=change >= needed, reason=reason, needed=needed, got=change)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
