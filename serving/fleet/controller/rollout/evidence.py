"""What the cells' episodes say of a new release beside the old one: blocks of both sides in each stratum, evidence, guards.

An episode counts for the side whose release answered it, in the stratum of its task and site, if it began after the rollout did. It enters
a block no sooner than the longest episode would have ended that began when it did: a failed episode often lasts longer, so the first ends
of cells that were switched together would hold too many successes. A block of a stratum is closed when the controller looks and both sides
have such episodes in no block yet. So start times and the clock decide what is in a block, not the outcomes, which is what the test
asks for. Blocks are kept, so that anybody can compute the evidence again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from model_core.spec.fleet.rollout_plan import RolloutPlan
from model_core.statistics.safety import exceeds_at_any_look
from model_core.statistics.two_streams import StreamEvidence, TrialBlock, mirrored, no_evidence, with_block

Side = Literal["new", "old"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Successes and trials of one side."""

    successes: int = 0
    trials: int = 0

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(successes=self.successes + other.successes, trials=self.trials + other.trials)

    @property
    def scores(self) -> tuple[float, ...]:
        """1 for each success, 0 for each failure."""
        return (1.0,) * self.successes + (0.0,) * (self.trials - self.successes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Episodes of both sides in one stratum that one look found."""

    stratum: str
    new: Tally
    old: Tally

    @property
    def trials(self) -> TrialBlock:
        """As the test takes it: the new release is the candidate."""
        return TrialBlock(stratum=self.stratum, candidate=self.new.scores, champion=self.old.scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardCount:
    """How many episodes of the new release had such an event."""

    events: int = 0
    episodes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known. proofs: margin -> evidence of "not worse by the margin". worse: evidence that the new release is worse. strata:
    name -> (new, old), blocks only. finished: counted episodes of the new release, in blocks or not. guards: counter -> count.
    decisions: that were compared in shadow; distances: measure -> mean over them; refusals: of the candidate, among the observations that
    the running release answered."""

    proofs: Mapping[float, StreamEvidence]
    worse: StreamEvidence
    blocks: int = 0
    strata: Mapping[str, tuple[Tally, Tally]] = field(default_factory=dict)
    finished: int = 0
    guards: Mapping[str, GuardCount] = field(default_factory=dict)
    decisions: int = 0
    distances: Mapping[str, float] = field(default_factory=dict)
    refusals: GuardCount = field(default_factory=GuardCount)

    @property
    def sides(self) -> tuple[Tally, Tally]:
        """New and old over all strata."""
        new = old = Tally()
        for one, other in self.strata.values():
            new, old = new.plus(one), old.plus(other)
        return new, old


def before_evidence(plan: RolloutPlan, history: Mapping[str, Tally] | None = None) -> Evidence:
    """Of a rollout that has just begun. history: stratum -> episodes of the old release before it, for the first guesses of rates."""
    margins = sorted({stage.proof.margin for stage in plan.stages if stage.proof})
    seen = {stratum: (float(tally.successes), float(tally.trials)) for stratum, tally in (history or {}).items()}
    return Evidence(proofs={margin: no_evidence(margin, seen=seen) for margin in margins}, worse=no_evidence(seen=seen))


def with_blocks(evidence: Evidence, blocks: Iterable[Block]) -> Evidence:
    """The evidence after further blocks."""
    proofs, worse, strata, count = dict(evidence.proofs), evidence.worse, dict(evidence.strata), evidence.blocks
    for block in blocks:
        trials = block.trials
        proofs = {margin: with_block(one, trials) for margin, one in proofs.items()}
        worse = with_block(worse, mirrored(trials))
        new, old = strata.get(block.stratum, (Tally(), Tally()))
        strata[block.stratum], count = (new.plus(block.new), old.plus(block.old)), count + 1
    return replace(evidence, proofs=proofs, worse=worse, strata=strata, blocks=count)


def closed_blocks(pending: Mapping[str, Mapping[Side, Tally]]) -> list[Block]:
    """The blocks that can be closed now: the strata in which both sides have finished episodes, by name. pending: episodes in no block."""
    both = {stratum: sides for stratum, sides in pending.items() if all(sides.get(side, Tally()).trials for side in ("new", "old"))}
    return [Block(stratum=stratum, new=sides["new"], old=sides["old"]) for stratum, sides in sorted(both.items())]


def exceeded_guards(plan: RolloutPlan, evidence: Evidence) -> list[str]:
    """A sentence for each guard whose share of episodes was shown to be above its limit, in a test that holds at every look."""
    said = []
    for name, limit in plan.guards.items():
        count = evidence.guards.get(name, GuardCount())
        if exceeds_at_any_look(count.events, count.episodes, limit, plan.guard_confidence):
            said.append(f"guard {name}: {count.events} of {count.episodes} episodes, at {plan.guard_confidence:.0%} more than {limit:.1%}")
    return said


def was_shown(evidence: StreamEvidence, alpha: float) -> bool:
    """Whether the evidence reached 1/alpha after any block so far, which a true H0 does with a probability of at most alpha. For rollbacks:
    a look adds many blocks at once, and what later blocks of the same look take back must not hide what was shown."""
    return evidence.best >= math.log(1.0 / alpha)


def is_shown(evidence: StreamEvidence, alpha: float) -> bool:
    """Whether the evidence stands at 1/alpha or more now. For going on: a stage may wait for its episodes or an approval long after its
    proof was reached, and what came in meanwhile counts. Stricter than `was_shown`, so alpha holds."""
    return evidence.log_e >= math.log(1.0 / alpha)


def in_words(evidence: Evidence) -> str:
    """Rates of both sides and how strong the evidence is."""
    new, old = evidence.sides
    told = [f"new {new.successes} of {new.trials}, old {old.successes} of {old.trials}"]
    told += [f"not worse by {margin:g}: {_factor(one.log_e)}" for margin, one in evidence.proofs.items()]
    return "; ".join([*told, f"worse: {_factor(evidence.worse.best)}"])


def _factor(log_e: float) -> str:
    return f"{math.exp(min(log_e, 700.0)):.3g} to 1"
