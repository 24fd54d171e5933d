"""One answer in the making: what was said, what to feed next, what a block's outputs mean.

A block feeds the *pending* tokens (said, but not in the cache yet) and then guesses. Output j is the model's choice for the state
after input j. Choices are taken as long as the guess fed next equals the choice; the first that does not is replaced by the
choice, and the other guesses stay where they are, by state. Facts are not guesses: given values (edited, committed) and, in
constrained decoding, ids without an alternative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from model_core.engine.automaton import REFUSED, Grammar, Stage
from model_core.engine.decode_request import Drafts, Prompt
from model_core.engine.rounds.window import NO_BETTER, UNLIKELY, Acceptance, Source
from model_core.spec.errors import GrammarError

# Where a width says so much less for its milliseconds than a narrower one, wider ones are not looked at.
_HOPELESS = 0.8


@dataclass(slots=True, eq=False)
class Window:
    """What one row feeds. states[j]: the state that output j chooses for, None where the next token is said already.

    gains[w - 1]: ids expected from feeding the first w tokens. first: the first output that is asked for anything.
    """

    ids: list[int]
    places: list[int]
    states: list[int | None]
    gains: list[float]
    first: int

    def cut(self, width: int) -> Window:
        """The first `width` tokens; pending ones are never cut off."""
        width = max(width, self.first + 1)
        if len(self.ids) <= width:
            return self
        return Window(self.ids[:width], self.places[:width], self.states[:width], self.gains[:width], self.first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How rows are decoded. constrained: ids without an alternative are said unasked. speculate: guess at all. refine: replace
    guesses behind a wrong one by the model's choices there, where that has been the better source."""

    constrained: bool = True
    speculate: bool = True
    refine: bool = True
    echo: bool = True
    block_says: bool = False


@dataclass(slots=True, eq=False)
class Tally:
    """What decoding did for one row: blocks, guarded positions, and [fed guesses judged, right] per stage."""

    forwards: int = 0
    guarded: int = 0
    reused: int = 0
    guesses: dict[Stage, list[int]] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """As `Decision.counts` names them."""
        found = {"forwards": self.forwards, "guarded": self.guarded}
        if self.reused:
            found["reused.depth"] = self.reused
        for stage, (drafted, accepted) in self.guesses.items():
            found |= {f"drafted.{stage.value}": drafted, f"accepted.{stage.value}": accepted}
        return found


class AnswerRow:
    """One row of a round."""

    def __init__(
        self,
        question: Any,
        prompt: Prompt,
        grammar: Grammar,
        ways: Ways,
        *,
        begin: int,
        given: dict[int, int],
        drafts: Drafts,
        acceptance: Acceptance,
        is_cancelled: Callable[[], bool] | None = None,
        on_part: Callable[[str, Any], None] | None = None,
    ) -> None:
        self.question, self.prompt, self.grammar, self.ways = question, prompt, grammar, ways
        self.given, self.reuse_depth = given, drafts.reuse_depth
        self.acceptance, self.is_cancelled, self.on_part = acceptance, is_cancelled, on_part
        self.state, self.said, self.finite = begin, [], True
        # the prompt's last token waits with what is said before the first forward, so that every block looks the same
        self.pending, self.pending_places = [int(prompt.ids_L[-1])], [int(prompt.places_L[-1])]
        self.cached = len(prompt.ids_L) - 1
        self.tally, self.timing_ms = Tally(), {}
        self.said_by: dict[Stage, list[int]] = {}
        self.own: dict[Stage, int] = {}
        self._said_at: dict[int, int] = {}
        self._echo: dict[int, int] = {}  # stands for the source that is no table
        # by Source: draft, refined, echo, block, recent
        self._tables: list[dict[int, int]] = [dict(drafts.ids), {}, self._echo, {}, acceptance.recent if ways.echo else {}]
        self._plans: dict[int, tuple[int, float, list[tuple[float, dict[int, int]]]]] = {}
        self._guesses: dict[int, tuple[int, int, float, float]] = {}
        self._forced = [int(ids[0]) if len(ids) == 1 else REFUSED for ids in grammar.groups]
        self._say_facts()

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""
        return self.state == self.grammar.done

    # ---- what to feed

    def window(self, most: int, curve: Mapping[int, float] | None = None) -> Window:
        """The pending tokens and up to `most` tokens in all, as far as guesses reach and seem worth planning.

        curve: {width: milliseconds}; a window that has become much wider than its best width is not planned on.
        This loop runs for every place of every window: it looks up, and computes nothing twice.
        """
        grammar, state, index = self.grammar, self.state, self.cached + len(self.pending)
        ids, places = list(self.pending), list(self.pending_places)
        states: list[int | None] = [None] * (len(ids) - 1)
        gains, expected, chance, pace = [1.0] * len(ids), 1.0, 1.0, self.acceptance.pace
        guessed: dict[int, int] = {}
        known, count, whole = self._guesses, len(ids), self.reuse_depth is not None
        costs, best = curve or {}, 0.0
        while True:
            states.append(state)
            if count >= most and not (whole and grammar.stage(state) is Stage.DEPTH):
                break
            if count in costs and not whole:
                rate = expected / costs[count]
                if rate < best * _HOPELESS:
                    break
                best = max(best, rate)
            token, following, likely, better = known.get(state) or self._guess(state, guessed)
            if following == REFUSED:
                break
            # a guess that is reached may be right; one that is not is at least improved, which saves a part of a later block
            expected += chance * likely + (1.0 - chance) * better * pace
            chance *= likely
            if chance < UNLIKELY and better < NO_BETTER and not whole:
                break
            guessed[state] = token
            ids.append(token)
            places.append(grammar.place(state, index))
            gains.append(expected)
            state, index, count = following, index + 1, count + 1
        return Window(ids, places, states, gains, len(self.pending) - 1)

    def _guess(self, state: int, guessed: Mapping[int, int]) -> tuple[int, int, float, float]:
        """What to feed in `state`: the id, the state behind it, the chance that it is right, what a refined guess would add to that.

        `REFUSED` as the state behind it: nothing may be fed. Kept until a source says something new here.
        """
        known, improved, ranked = self._plan(state)
        token, likely, better, lasting = known, 1.0, 0.0, True
        if token == REFUSED:
            for likely, table in ranked:  # noqa: B007, the chance of the guess that is taken is used below
                if table is self._echo:
                    token, lasting = self._echoed(state, guessed), False
                else:
                    token = table.get(state, REFUSED)
                if token != REFUSED:
                    break
            if improved > likely and state not in self._tables[Source.REFINED]:
                better = improved - likely
        following = REFUSED if token == REFUSED else self.grammar.after(state, token)
        if following == self.grammar.done or (self.ways.block_says and self.grammar.stage(following) is Stage.ACTION):
            following = REFUSED
        found = token, following, likely, better
        if lasting:
            self._guesses[state] = found
        return found

    def _plan(self, state: int) -> tuple[int, float, list[tuple[float, dict[int, int]]]]:
        """What may be fed in `state`: the id that is known or forced, the chance of a refined guess, the sources with their chances.

        The sources stand best first. Nothing of it changes while the row is decoded, except by `_reuse`.
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
            return REFUSED, 0.0, [(1.0, self._tables[Source.DRAFT])]
        if not self.ways.speculate:
            return REFUSED, 0.0, []
        rates = self.acceptance.rates_at(state, stage)
        improved = next(rate for rate, source in rates if source == Source.REFINED) if self.ways.refine else 0.0
        return REFUSED, improved, [(rate, self._tables[source]) for rate, source in rates]

    def _fact(self, state: int) -> int:
        token = self.given.get(state, REFUSED)
        return self._forced[self.grammar.group(state)] if token == REFUSED and self.ways.constrained else token

    def _echoed(self, state: int, guessed: Mapping[int, int]) -> int:
        if not self.ways.echo:
            return REFUSED
        earlier = self.grammar.echo(state)
        return self._said_at.get(earlier, guessed.get(earlier, REFUSED))

    @property
    def block(self) -> dict[int, int]:
        """What placeholders chose, {state: id}: a source of guesses (`engine.parallel`)."""
        return self._tables[Source.BLOCK]

    @block.setter
    def block(self, ids: dict[int, int]) -> None:
        self._tables[Source.BLOCK].clear()
        self._tables[Source.BLOCK].update(ids)
        self._guesses.clear()

    # ---- what came out

    def say_block(self, ids: Mapping[int, int]) -> None:
        """Say every id that is left, chosen all at once; what is given stands."""
        while not self.done:
            fact = self._fact(self.state)
            self._say(ids[self.state] if fact == REFUSED else fact)

    def take(self, window: Window, chosen: Sequence[int], margins: Sequence[float] | None = None, bound: float = 0.0) -> bool:
        """Say what output j of `window` chose (ids), as long as guesses were right. True: the next output is guarded.

        margins: of every output, how far the second best id is behind; an output with less than `bound` is not trusted.
        Raises `GrammarError` where the model's choice is not in the language.
        """
        if self.reuse_depth is not None:
            self._reuse(window, chosen)
        used, guarded, before = window.first, False, len(self.said)
        for j in range(window.first, len(window.ids)):
            state, fact = self.state, self._fact(self.state)
            if fact == REFUSED and margins is not None and margins[j] < bound:
                guarded = True
                break
            token = chosen[j] if fact == REFUSED else fact
            fed = window.ids[j + 1] if j + 1 < len(window.ids) else REFUSED
            if fact == REFUSED:
                self._judge(state, token, fed)
            self._say(token)
            used = j + 1
            if fed != token or self.done:
                break
        if self.ways.refine and not self.done:
            refined = self._tables[Source.REFINED]
            for state, token in zip(window.states[used:], chosen[used:], strict=True):
                if state is not None and state != self.state:
                    refined[state] = token
                    self._guesses.pop(state, None)
        self.cached += used
        self._settle(window, used)
        self.tally.guarded += guarded
        self.acceptance.note_pace(len(self.said) - before)
        if self.done:
            self.acceptance.note_answer(self._said_at)
        return guarded

    def _settle(self, window: Window, used: int) -> None:
        """The last said token waits again, with the facts that follow it."""
        if used == window.first:  # nothing was said: the guard stopped the first output
            self.pending, self.pending_places = window.ids[used : used + 1], window.places[used : used + 1]
            return
        last_state = window.states[used - 1]
        assert last_state is not None
        self.pending = [self.said[-1]]
        self.pending_places = [self.grammar.place(last_state, self.cached)]
        self._say_facts()

    def _say(self, token: int) -> None:
        grammar, state = self.grammar, self.state
        following = grammar.after(state, token)
        if following == REFUSED:
            place, stage = len(self.said), grammar.stage(state).value
            raise GrammarError(f"the model said id {token} at position {place} ({stage}), which is not in its language", place, place + 1)
        stage = grammar.stage(state)
        self.said_by.setdefault(stage, []).append(token)
        if state not in self.given:
            self.own[stage] = self.own.get(stage, 0) + 1
        self.said.append(token)
        self._said_at[state] = token
        self.state = following

    def _say_facts(self) -> None:
        while not self.done and (token := self._fact(self.state)) != REFUSED:
            place = self.grammar.place(self.state, self.cached + len(self.pending))
            self._say(token)
            self.pending.append(token)
            self.pending_places.append(place)

    def _judge(self, state: int, token: int, fed: int) -> None:
        """Note which sources would have been right, and whether the guess that was fed was."""
        stage = self.grammar.stage(state)
        if fed != REFUSED:
            entry = self.tally.guesses.setdefault(stage, [0, 0])
            entry[0] += 1
            entry[1] += fed == token
        guesses = [table.get(state) for table in self._tables]
        echoed = self._echoed(state, {})
        guesses[Source.ECHO] = None if echoed == REFUSED else echoed
        self.acceptance.judge(state, stage, guesses, token)

    def _reuse(self, window: Window, chosen: Sequence[int]) -> None:
        """Level "reuse-depth": the whole depth draft was fed; it stands where the model agrees with enough of it."""
        cells = [
            (state, window.ids[j + 1], chosen[j])
            for j, state in enumerate(window.states[: len(window.ids) - 1])
            if state is not None and self.grammar.stage(state) is Stage.DEPTH and self._fact(state) == REFUSED
        ]
        agreed = sum(fed == said for _, fed, said in cells)
        assert self.reuse_depth is not None
        if cells and agreed >= self.reuse_depth * len(cells):
            self.given |= {state: fed for state, fed, _ in cells}
            self.tally.guesses[Stage.DEPTH] = [len(cells), agreed]
            self.tally.reused = len(cells)
            self.own[Stage.DEPTH] = len(cells)
        self.reuse_depth = None
        self._plans.clear()
        self._guesses.clear()
