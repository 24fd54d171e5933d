"""The standings as a table for people: Markdown, and the sentences of what was shown and how."""

from __future__ import annotations

from collections.abc import Iterator

from components.evaluation.arena.pairs import PairResult
from components.evaluation.arena.standings import ArenaResult, Standing
from components.evaluation.intervals import percent


def arena_markdown(result: ArenaResult) -> str:
    """Title, the table of policies by group, what was shown, every pair, and how it was computed."""
    lines = [
        f"# {title_of(result)}",
        "",
        f"Suite version: {result.version}; {len(result.tasks)} tasks, {result.cases} cases.",
        "",
        "| group | policy | Elo | 95 % interval | solved | rate | exact 95 % interval | mean progress | missing |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_line(one) for one in result.standings),
        "",
        *(f"- {sentence}" for sentence in shown(result)),
        "",
        "| pair | cases | only the first | only the second | difference | 95 % interval | p | corrected p |",
        "|---|---|---|---|---|---|---|---|",
        *(_pair_line(pair) for pair in result.pairs),
        "",
        *method(result),
    ]
    return "\n".join(lines) + "\n"


def title_of(result: ArenaResult) -> str:
    """Who was compared on what."""
    groups = result.standings[-1].group
    found = "no difference shown" if groups == 1 and not any(pair.better for pair in result.pairs) else f"{groups} groups"
    return f"Arena: {len(result.standings)} policies on {result.suite or 'one set of cases'}, {found if groups != 1 else found.rstrip('s')}"


def shown(result: ArenaResult) -> list[str]:
    """What the tests showed, a sentence each, and which policies they could not tell apart."""
    told = [
        f"{pair.better} is better than {pair.other}: {_cases(pair)}, corrected p {_p(pair.adjusted)}."
        for pair in result.pairs
        if pair.better
    ]
    for group in sorted({one.group for one in result.standings}):
        names = [one.name for one in result.standings if one.group == group]
        if len(names) > 1:
            told.append(f"{', '.join(names[:-1])} and {names[-1]} are one group: the trials do not tell all of them apart.")
    return told


def method(result: ArenaResult) -> list[str]:
    """How the numbers were computed, in sentences."""
    rules, what = result.rules, "success" if result.rules.score == "success" else "the stage of the task that was reached"
    lines = [
        f"Compared in each case: {what}; equal is a tie, half a win of both. Ratings: Bradley-Terry by maximum likelihood on Elo's scale "
        f"with mean 1000; intervals: {rules.resamples} resamples of whole cases inside each task, seed {rules.seed}.",
        f"Pairs: exact two-sided test of McNemar on the cases that both had, Holm's correction over {len(result.pairs)} "
        f"{'pairs' if len(result.pairs) > 1 else 'pair'}: a wrong claim has a probability of at most {rules.alpha:g} if the number of "
        "cases was chosen before. A group ends only where all above were shown to differ from all below.",
    ]
    if result.added_ties:
        lines.append("In the data or in a resample some policy never lost, so one tie was added to each pair to keep the ratings finite.")
    brought = sorted({(rule, one.rules.get(rule, "")) for one in result.standings for rule in one.rules})
    for rule in dict.fromkeys(rule for rule, _ in brought):
        if len({one.rules.get(rule, "") for one in result.standings}) > 1:
            lines.append(
                f"Policies differ in {rule}: " + ", ".join(f"{one.name} {one.rules.get(rule, '')}" for one in result.standings) + "."
            )
    return lines


def facts(result: ArenaResult) -> Iterator[tuple[str, str]]:
    """What names the policies and the trials."""
    for one in result.standings:
        rules = ", ".join(f"{rule} {value}" for rule, value in one.rules.items())
        yield one.name, f"checkpoint {one.policy}, contract {one.contract}; {rules}"
    yield "suite", f"{result.suite}, {result.version}"


def _line(one: Standing) -> str:
    return (
        f"| {one.group} | {one.name} | {one.rating:.0f} | {one.rating_low:.0f} to {one.rating_high:.0f} | {one.successes}/{one.trials} | "
        f"{percent(one.rate)} | {percent(one.low)} to {percent(one.high)} | {one.mean_progress:.2f} | {one.missing} |"
    )


def _pair_line(pair: PairResult) -> str:
    return (
        f"| {pair.first}, {pair.second} | {pair.cases} | {pair.wins} | {pair.losses} | {pair.difference:+.3f} | "
        f"{pair.low:+.3f} to {pair.high:+.3f} | {_p(pair.p)} | {_p(pair.adjusted)} |"
    )


def _cases(pair: PairResult) -> str:
    return f"of {pair.cases} common cases {pair.first} alone won {pair.wins}, {pair.second} alone {pair.losses}, {pair.ties} were ties"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
