"""Whether champion and candidate can be compared at all, and their comparison on held-out episodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from components.config.judging.verdict import ERROR_RATIO, Check
from components.config.recipe import GateConfig
from components.config.records import EvalReport, HeldOutRow, RolloutRow

RECORDED_LATER = {"suite", "suite_version", "action"}  # older reports do not have them, or have an empty version
BY_EPISODE = {"first_seed"}  # what was really laid out stands in the episodes


def open_loop_comparison(cfg: GateConfig, candidate: EvalReport, champion: EvalReport) -> Check:
    """The candidate's error may be at most 1 + `margin` times the champion's, on the episodes that both held out, if there are some."""
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
    if by_scene(candidate).keys() == by_scene(champion).keys():
        return tuple(unlike)
    laid_out, laid_out_before = _scenes(candidate), _scenes(champion)
    for task in sorted(laid_out.keys() & laid_out_before.keys()):
        seeds, before = laid_out[task], laid_out_before[task]
        if not (seeds <= before or before <= seeds):
            unlike.append(f"scenes of {task}: seeds {min(before)} to {max(before)} -> {min(seeds)} to {max(seeds)}")
    return tuple(unlike)


def by_scene(report: EvalReport) -> dict[tuple[int, str], RolloutRow]:
    """The trials by initial state: seed and task."""
    return {(row.seed, row.task): row for row in report.episodes}


def _scenes(report: EvalReport) -> dict[str, set[int]]:
    scenes: dict[str, set[int]] = {}
    for row in report.episodes:
        scenes.setdefault(row.task, set()).add(row.seed)
    return scenes


def protocol_check(unlike: tuple[str, ...]) -> Check:
    """Without equal rules and scenes nothing can be compared, whatever the rates are."""
    if not unlike:
        reason = "champion and candidate were evaluated under the same rules on the same scenes"
        return Check(name="protocol", passed=True, reason=reason, state="holds")
    reason = (
        f"champion and candidate were evaluated differently ({'; '.join(unlike)}), so they are not compared. Fix: evaluate the "
        "champion under the candidate's rules (run its recipe with them, its training is kept), or the candidate under the champion's"
    )
    return Check(name="protocol", passed=False, reason=reason, state="invalid")
