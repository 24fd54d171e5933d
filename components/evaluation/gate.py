"""Champion against candidate on declared criteria. Pure: two reports and a bar in, a verdict with every reason out.

A criterion holds, does not hold, or cannot be decided from so few trials; the last is reported as "not enough evidence" and
holds the candidate back as a failure does. Criteria, in the order in which they are listed:

    trials         every task has at least `min_trials` trials (episodes that the simulator broke are not trials)
    floor          lower end of every task's Wilson interval >= `floor`
    refusals       refused share of all decisions <= `max_refusal_rate`
    image          share of actions that change when the image is exchanged >= `min_image_swap_change`
    protocol       candidate and champion were evaluated under the same rules on the same scenes; else they are not compared
    open-loop      without a suite: error on held-out frames <= `max_open_loop_error` of that of the mean action, and at most
                   1 + `margin` times the champion's on the episodes that both held out; it takes the place of trials, floor and refusals
    non-inferior   lower end of Newcombe's interval of (candidate - champion) > -`margin` for every task of the champion,
                   and > -`margin` / sqrt(tasks) over all tasks together, whose interval is narrower by about that factor
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from components.config.recipe import GateConfig
from components.config.records import Check, EvalReport, GateVerdict, HeldOutRow, TaskScore
from components.evaluation.intervals import difference, trials_to_decide, wilson

NOT_ENOUGH = "not enough evidence"
IMAGE_SWAP_CHANGE = "image_swap_change"
ERROR_RATIO = "error_ratio"
RECORDED_LATER = {"suite", "suite_version", "action"}  # older reports do not have them, or have an empty version
BY_EPISODE = {"first_seed"}  # what was really laid out stands in the episodes


def gate(
    cfg: GateConfig,
    candidate: EvalReport,
    champion: EvalReport | None,
    blindness: Mapping[str, float] | None = None,
    *,
    others: Mapping[str, EvalReport] = MappingProxyType({}),
) -> GateVerdict:
    """Decide whether `candidate` may become champion; without a champion only the absolute criteria count.

    blindness: what the image-swap measurement found (default: what the report carries). others: reports of the embodiments that the same
    network acts for and that are not released: they are shown, and nothing is asked of them.
    """
    checks = [*_absolute(cfg, candidate, candidate.blindness if blindness is None else blindness)]
    if champion is not None:
        checks += _against_champion(cfg, candidate, champion)
    checks += [_shown(name, report) for name, report in others.items()]
    return GateVerdict(
        promote=all(check.passed for check in checks),
        reasons=tuple(check.reason for check in sorted(checks, key=lambda check: check.passed)),
        checks=tuple(checks),
        candidate=candidate.checkpoint_digest,
        champion=champion.checkpoint_digest if champion else "",
    )


def _absolute(cfg: GateConfig, report: EvalReport, blindness: Mapping[str, float]) -> Iterator[Check]:
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
    yield _image_check(cfg, blindness)


def _open_loop_check(cfg: GateConfig, found: Mapping[str, float]) -> Check:
    ratio, needed = found[ERROR_RATIO], cfg.max_open_loop_error
    reason = (
        f"on {found['frames']:.0f} held-out frames ({found['refused']:.0f} refused) the predicted actions are off by {ratio:.2f} of what "
        f"the mean action is off by, at most {needed:.2f} may be"
    )
    return Check(name="open-loop", passed=ratio <= needed and not found["refused"], reason=reason, needed=needed, got=ratio)


def _shown(embodiment: str, report: EvalReport) -> Check:
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
    low, high = wilson(score.successes, score.trials, cfg.confidence)
    reason = f"{task}: {score.successes} of {score.trials} solved, {_percent(cfg.confidence)} interval {low:.2f} to {high:.2f}"
    name = f"floor/{task}"
    if low >= cfg.floor:
        return Check(name=name, passed=True, reason=f"{reason}, above the floor {cfg.floor:.2f}", needed=cfg.floor, got=low)
    if score.trials and score.successes / score.trials < cfg.floor:
        return Check(name=name, passed=False, reason=f"{reason}, below the floor {cfg.floor:.2f}", needed=cfg.floor, got=low)
    reason = f"{NOT_ENOUGH}: {reason}, which reaches below the floor {cfg.floor:.2f}"
    return Check(name=name, passed=False, reason=reason, needed=cfg.floor, got=low)


def _refusal_check(cfg: GateConfig, report: EvalReport) -> Check:
    decisions = sum(row.decisions for row in report.episodes)
    refusals = sum(row.refusals for row in report.episodes)
    rate = refusals / decisions if decisions else 0.0
    reason = f"{refusals} of {decisions} decisions were refused, at most {_percent(cfg.max_refusal_rate)} may be"
    if not decisions:
        return Check(name="refusals", passed=False, reason=f"{NOT_ENOUGH}: no decision was counted", needed=cfg.max_refusal_rate)
    return Check(name="refusals", passed=rate <= cfg.max_refusal_rate, reason=reason, needed=cfg.max_refusal_rate, got=rate)


def _image_check(cfg: GateConfig, blindness: Mapping[str, float]) -> Check:
    change, needed = blindness.get(IMAGE_SWAP_CHANGE), cfg.min_image_swap_change
    if change is None:
        reason = f"{NOT_ENOUGH}: not measured whether actions change when the image is exchanged"
        return Check(name="image", passed=needed == 0, reason=reason, needed=needed)
    reason = f"{_percent(change)} of the actions change when the image is exchanged, {_percent(needed)} needed"
    return Check(name="image", passed=change >= needed, reason=reason, needed=needed, got=change)


def _against_champion(cfg: GateConfig, candidate: EvalReport, champion: EvalReport) -> Iterator[Check]:
    unlike = unlike_rules(candidate, champion)
    yield _protocol_check(unlike)
    if unlike:  # a difference of the rates would be one of the rules
        return
    if champion.open_loop:
        yield _not_worse(cfg, candidate, champion)
    pooled = [0, 0, 0, 0]
    for task, best in sorted(champion.per_task.items()):
        score = candidate.per_task.get(task)
        if score is None:
            reason = f"{NOT_ENOUGH}: {task} is a task of the champion, the candidate was not evaluated on it"
            yield Check(name=f"non-inferior/{task}", passed=False, reason=reason, needed=-cfg.margin)
            continue
        counts = (score.successes, score.trials, best.successes, best.trials)
        pooled = [a + b for a, b in zip(pooled, counts, strict=True)]
        yield _non_inferior(cfg, task, counts, cfg.margin)
    if pooled[1] and len(champion.per_task) > 1:
        yield _non_inferior(cfg, "all tasks", (pooled[0], pooled[1], pooled[2], pooled[3]), cfg.margin / math.sqrt(len(champion.per_task)))


def _not_worse(cfg: GateConfig, candidate: EvalReport, champion: EvalReport) -> Check:
    where, ours, theirs = "held-out frames", candidate.open_loop[ERROR_RATIO], champion.open_loop[ERROR_RATIO]
    if shared := shared_episodes(candidate, champion):
        where = f"the {len(shared)} episodes that both held out"
        mine, before = ([row for row in report.held_out if row.episode in shared] for report in (candidate, champion))
        ours, theirs = error_ratio_of(mine, mine), error_ratio_of(before, mine)
    allowed = theirs * (1.0 + cfg.margin)
    reason = f"error on {where}: {ours:.3f} against the champion's {theirs:.3f}, may be up to {allowed:.3f}"
    return Check(name="non-inferior/open-loop", passed=ours <= allowed, reason=reason, needed=allowed, got=ours)


def shared_episodes(candidate: EvalReport, champion: EvalReport) -> set[str]:
    """The episodes that neither was trained on and both answered."""
    mine, before = ({row.episode for row in report.held_out if row.rows} for report in (candidate, champion))
    return mine & before


def error_ratio_of(rows: Sequence[HeldOutRow], unit: Sequence[HeldOutRow]) -> float:
    """The error of `rows` over that of the mean action in `unit`, which are of the same episodes; the mean over the dimensions of both."""

    def per_row(found: Sequence[HeldOutRow], errors: Iterable[float]) -> float:
        return sum(errors) / sum(row.rows for row in found)

    dims = [dim for dim in unit[0].mean_error if dim in rows[0].error and any(row.mean_error[dim] for row in unit)]
    ratios = [per_row(rows, (row.error[dim] for row in rows)) / per_row(unit, (row.mean_error[dim] for row in unit)) for dim in dims]
    return sum(ratios) / len(ratios) if ratios else math.inf


def unlike_rules(candidate: EvalReport, champion: EvalReport) -> tuple[str, ...]:
    """In what the two evaluations differ, champion first: every rule that either report records, and the scenes of each task.

    One may have more scenes than the other, of which it then has all. Held-out episodes differ as recordings are added; the two are alike
    where they share some.
    """
    rules = {*candidate.protocol, *champion.protocol} - BY_EPISODE
    missing = {rule for rule in RECORDED_LATER if not (candidate.protocol.get(rule) and champion.protocol.get(rule))}
    told = [(rule, champion.protocol.get(rule, "not recorded"), candidate.protocol.get(rule, "not recorded")) for rule in rules - missing]
    alike = {"suite_version"} if shared_episodes(candidate, champion) else set[str]()
    unlike = [f"{rule} {theirs!r} -> {ours!r}" for rule, theirs, ours in sorted(told) if theirs != ours and rule not in alike]
    laid_out, laid_out_before = _scenes(candidate), _scenes(champion)
    for task in sorted(laid_out.keys() & laid_out_before.keys()):
        seeds, before = laid_out[task], laid_out_before[task]
        if not (seeds <= before or before <= seeds):
            unlike.append(f"scenes of {task}: seeds {min(before)} to {max(before)} -> {min(seeds)} to {max(seeds)}")
    return tuple(unlike)


def _scenes(report: EvalReport) -> dict[str, set[int]]:
    scenes: dict[str, set[int]] = {}
    for row in report.episodes:
        scenes.setdefault(row.task, set()).add(row.seed)
    return scenes


def _protocol_check(unlike: tuple[str, ...]) -> Check:
    reason = "champion and candidate were evaluated under the same rules on the same scenes"
    if unlike:
        reason = (
            f"champion and candidate were evaluated differently ({'; '.join(unlike)}), so they are not compared. Fix: evaluate the "
            "champion under the candidate's rules (run its recipe with them, its training is kept), or the candidate under the champion's"
        )
    return Check(name="protocol", passed=not unlike, reason=reason)


def _non_inferior(cfg: GateConfig, what: str, counts: tuple[int, int, int, int], margin: float) -> Check:
    low, high = difference(*counts, cfg.confidence)
    a, m, b, n = counts
    reason = f"{what}: {a}/{m} against the champion's {b}/{n}, difference {low:+.2f} to {high:+.2f}, may be down to {-margin:+.2f}"
    name = f"non-inferior/{what}"
    if low > -margin:
        return Check(name=name, passed=True, reason=reason, needed=-margin, got=low)
    if high <= -margin or (m and n and a / m - b / n <= -margin):
        return Check(name=name, passed=False, reason=f"{reason}: worse than the champion", needed=-margin, got=low)
    more = trials_to_decide(a / m, b / n, margin, cfg.confidence) if m and n else None
    advice = f"; about {more} trials each would decide" if more else ""
    return Check(name=name, passed=False, reason=f"{NOT_ENOUGH}: {reason}{advice}", needed=-margin, got=low)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
