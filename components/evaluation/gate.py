"""Champion against candidate on declared criteria. Pure: reports and a bar in, a verdict with every reason out.

Outcomes: "promote" (every criterion holds), "reject" (one was shown to fail), "not enough" (none fails, one is not decided) and "invalid"
(the two cannot be compared). Criteria, in the order in which they are listed:

    trials         every task has at least `min_trials` trials (episodes that the simulator broke are not trials)
    floor          the exact one-sided lower bound of every task's success rate >= `floor`
    refusals       refused share of all decisions <= `max_refusal_rate`
    safety         listed only where it vetoes: the share of trials with a refusal was shown to be above `max_refused_trials`
    image          share of actions that change when the image is exchanged >= `min_image_swap_change`
    protocol       candidate and champion were evaluated under the same rules on the same scenes; else they are not compared
    open-loop      without a suite: error on held-out frames <= `max_open_loop_error` of that of the mean action, and at most
                   1 + `margin` times the champion's on the episodes that both held out; it takes the place of trials, floor and refusals
    non-inferior   pairs of trials from the same scenes: shown by a test that is valid however often one looks
    superior       the same, where the recipe claims it (`components.evaluation.judging.pairs`)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from components.config.judging.verdict import Check, GateVerdict, verdict_of
from components.config.recipe import GateConfig
from components.config.records import EvalReport
from components.evaluation.judging.comparison import open_loop_comparison, protocol_check, unlike_rules
from components.evaluation.judging.criteria import absolute_checks, shown_check
from components.evaluation.judging.pairs import Rounds, paired_checks


def gate(
    cfg: GateConfig,
    candidate: EvalReport,
    champion: EvalReport | None,
    blindness: Mapping[str, float] | None = None,
    *,
    others: Mapping[str, EvalReport] = MappingProxyType({}),
    further: Rounds = (),
) -> GateVerdict:
    """Decide whether `candidate` may become champion; without a champion only the absolute criteria count.

    blindness: what the image-swap measurement found (default: what the report carries). others: reports of the embodiments that the same
    network acts for and that are not released: they are shown, and nothing is asked of them. further: blocks of pairs that were run for the
    comparison after the two evaluations; the absolute criteria are of the evaluation alone.
    """
    checks = [*absolute_checks(cfg, candidate, candidate.blindness if blindness is None else blindness)]
    if champion is not None:
        checks += _against_champion(cfg, ((candidate, champion), *further))
    checks += [shown_check(name, report) for name, report in others.items()]
    return verdict_of(checks, candidate.checkpoint_digest, champion.checkpoint_digest if champion else "")


def needs_pairs(verdict: GateVerdict) -> bool:
    """Whether further pairs can change the outcome: the comparison is open, and nothing else stands in the way."""
    states = {check.stands for check in verdict.checks}
    return "open" in states and not states & {"fails", "invalid", "not enough"}


def _against_champion(cfg: GateConfig, rounds: Rounds) -> Iterator[Check]:
    candidate, champion = rounds[0]
    unlike = unlike_rules(candidate, champion)
    yield protocol_check(unlike)
    if unlike:  # a difference of the rates would be one of the rules
        return
    if champion.open_loop:
        yield open_loop_comparison(cfg, candidate, champion)
    yield from paired_checks(cfg, rounds)
