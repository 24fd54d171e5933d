"""The drafted tokens of one row: what to feed in each state, from facts and from several sources of guesses, best first.

Facts are not guesses: given values (edited, prefix actions) and, in constrained decoding, ids without an alternative.
"""

from __future__ import annotations

from collections.abc import Mapping

from model_core.engine.automaton import REFUSED, Grammar, Stage
from model_core.engine.decode_request import Drafts
from model_core.engine.rounds.row_state import RowOptions
from model_core.engine.rounds.window import Acceptance, Source

# An id to feed, the state behind it (`REFUSED`: feed nothing), the chance that it is right, what a refined guess would add to that.
Guess = tuple[int, int, float, float]


class Guesses:
    """The sources of guesses of one row. decoded: {state: id} of what was decoded. known: guesses that were looked up already."""

    def __init__(self, grammar: Grammar, options: RowOptions, acceptance: Acceptance, given: dict[int, int], drafts: Drafts) -> None:
        self.grammar, self.options, self.acceptance = grammar, options, acceptance
        self.given, self.reuse_depth = given, drafts.reuse_depth
        self.decoded: dict[int, int] = {}
        self.known: dict[int, Guess] = {}
        self._echo: dict[int, int] = {}  # stands for the source that is no table
        # by Source: draft, refined, echo, block, recent
        self.tables: list[dict[int, int]] = [dict(drafts.ids), {}, self._echo, {}, acceptance.recent if options.echo else {}]
        self._plans: dict[int, tuple[int, float, list[tuple[float, dict[int, int]]]]] = {}
        self._forced = [int(ids[0]) if len(ids) == 1 else REFUSED for ids in grammar.groups]

    def fact(self, state: int) -> int:
        """The id that stands in `state` without being scored, or `REFUSED`."""
        token = self.given.get(state, REFUSED)
        return self._forced[self.grammar.group(state)] if token == REFUSED and self.options.constrained else token

    def best(self, state: int, guessed: Mapping[int, int]) -> Guess:
        """What to feed in `state`; guessed: {state: id} of this window so far. Kept in `known` until a source has something new here."""
        known, improved, ranked = self._plan(state)
        token, likely, better, lasting = known, 1.0, 0.0, True
        if token == REFUSED:
            for likely, table in ranked:  # noqa: B007, the chance of the guess that is taken is used below
                if table is self._echo:
                    token, lasting = self.echoed(state, guessed), False
                else:
                    token = table.get(state, REFUSED)
                if token != REFUSED:
                    break
            if improved > likely and state not in self.tables[Source.REFINED]:
                better = improved - likely
        following = REFUSED if token == REFUSED else self.grammar.after(state, token)
        if following == self.grammar.done or (self.options.block_predicts and self.grammar.stage(following) is Stage.ACTION):
            following = REFUSED
        found = token, following, likely, better
        if lasting:
            self.known[state] = found
        return found

    def echoed(self, state: int, guessed: Mapping[int, int]) -> int:
        """The earlier value of the answer that is a fair guess in `state`, or `REFUSED`."""
        if not self.options.echo:
            return REFUSED
        earlier = self.grammar.echo(state)
        return self.decoded.get(earlier, guessed.get(earlier, REFUSED))

    def refine(self, state: int, token: int) -> None:
        """The model itself chose `token` in `state`, behind a wrong guess."""
        self.tables[Source.REFINED][state] = token
        self.known.pop(state, None)

    def set_block(self, ids: Mapping[int, int]) -> None:
        """What placeholders chose, {state: id}."""
        self.tables[Source.BLOCK].clear()
        self.tables[Source.BLOCK].update(ids)
        self.known.clear()

    def end_reuse(self) -> None:
        """The depth drafts were read once; from now on they are drafts like any others."""
        self.reuse_depth = None
        self._plans.clear()
        self.known.clear()

    def judge(self, state: int, stage: Stage, token: int) -> None:
        """Note which sources would have been right."""
        guesses = [table.get(state) for table in self.tables]
        echoed = self.echoed(state, {})
        guesses[Source.ECHO] = None if echoed == REFUSED else echoed
        self.acceptance.judge(state, stage, guesses, token)

    def _plan(self, state: int) -> tuple[int, float, list[tuple[float, dict[int, int]]]]:
        """What may be fed in `state`: the id that is known or forced, the chance of a refined guess, the sources with their chances.

        The sources stand best first. Nothing of it changes while the row is decoded, except by `end_reuse`.
        """
        plan = self._plans.get(state)
        if plan is None:
            plan = self._plans[state] = self._planned(state)
        return plan

    def _planned(self, state: int) -> tuple[int, float, list[tuple[float, dict[int, int]]]]:
        token = self.given.get(state, REFUSED)
        if token == REFUSED:
            token = self._forced[self.grammar.group(state)]
        if token != REFUSED:
            return token, 0.0, []
        stage = self.grammar.stage(state)
        if self.reuse_depth is not None and stage is Stage.DEPTH:
            return REFUSED, 0.0, [(1.0, self.tables[Source.DRAFT])]
        if not self.options.speculate:
            return REFUSED, 0.0, []
        rates = self.acceptance.rates_at(state, stage)
        improved = next(rate for rate, source in rates if source == Source.REFINED) if self.options.refine else 0.0
        return REFUSED, improved, [(rate, self.tables[source]) for rate, source in rates]
