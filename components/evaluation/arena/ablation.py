"""The trials of an ablation: those of several trainings of a variant together, and the table against the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from components.config.records import EvalReport
from components.evaluation.arena.documents import method, shown
from components.evaluation.arena.pairs import PairResult
from components.evaluation.arena.standings import ArenaResult
from components.evaluation.arena.variants import BASE, Variant
from components.evaluation.intervals import percent
from model_core.spec.contract import digest_of
from model_core.spec.errors import require

APART = 1_000_000_000  # a scene of another training is another case: its number is moved by so much for each training


def pooled(reports: Sequence[EvalReport]) -> EvalReport:
    """The trials of one variant's trainings, in order of their seeds, as those of one policy; a single one stays as it is.

    The scenes of training n are numbered from n x `APART` on, so that variants are paired training by training. Counts and intervals of
    single reports are not carried over.
    """
    require(len(reports) > 0, "expected the evaluation of one training or more")
    if len(reports) == 1:
        return reports[0]
    rows = [replace(row, seed=row.seed + number * APART) for number, report in enumerate(reports) for row in report.episodes]
    return replace(reports[0], checkpoint_digest=digest_of([one.checkpoint_digest for one in reports]), episodes=tuple(rows), per_task={})


def ablation_markdown(result: ArenaResult, variants: Sequence[Variant], trainings: int, left_out: Mapping[str, str]) -> str:
    """Each variant with its rate, and its difference from the base with intervals, then what was shown. left_out: variant -> why."""
    train = variants[0].recipe.train
    lines = [
        f"# Ablation of {variants[0].recipe.name}: {len(result.standings)} variants, trainings of each: {trainings}",
        "",
        f"Each training: {train.steps} steps of {train.global_batch} samples, seeds {train.seed} to {train.seed + trainings - 1}. "
        f"{result.cases} cases ({len(result.tasks)} tasks), paired by training seed and scene.",
        "",
        "| variant | question | solved | rate | exact 95 % interval | difference from base | 95 % interval | corrected p | Elo |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    standings = {one.name: one for one in result.standings}
    for variant in variants:
        if (one := standings.get(variant.name)) is not None:
            solved = f"{one.successes}/{one.trials} | {percent(one.rate)} | {percent(one.low)} to {percent(one.high)}"
            lines.append(
                f"| {variant.name} | {variant.question} | {solved} | {_against_base(variant.name, result.pairs)} | {one.rating:.0f} |"
            )
    lines += ["", *(f"- {name} is left out: {why}" for name, why in left_out.items()), *(f"- {sentence}" for sentence in shown(result)), ""]
    lines += [*method(result), "What is shown holds for these trainings; how another seed would come out, the trials do not say."]
    return "\n".join(lines) + "\n"


def _against_base(name: str, pairs: Sequence[PairResult]) -> str:
    """Difference of the variant from the base (below 0: the variant solved fewer), interval and p value, as cells."""
    pair = next((one for one in pairs if {one.first, one.second} == {name, BASE}), None)
    if pair is None:
        return " | | "
    sign = 1 if pair.first == name else -1
    low, high = sorted((sign * pair.low, sign * pair.high))
    return f"{sign * pair.difference + 0.0:+.3f} | {low:+.3f} to {high:+.3f} | {pair.adjusted:.3f}"
