"""One answer in the making: what was decoded, what to feed next, what a block's outputs mean.

A block feeds the *pending* tokens (decoded, but not in the cache yet) and then guesses. Output j is the model's choice for the state
after input j. Choices are taken as long as the guess fed next equals the choice; the first that does not is replaced by the
choice, and the other guesses stay where they are, by state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model_core.engine.automaton import REFUSED, Grammar, Stage
from model_core.engine.rounds.guesses import Guesses
from model_core.engine.rounds.row_state import RowOptions, RowStart, Tally, Window
from model_core.engine.rounds.window import NO_BETTER, UNLIKELY, Acceptance, Source
from model_core.spec.errors import GrammarError

# Where a width gives so many fewer ids for its milliseconds than a narrower one, wider ones are not looked at.
_HOPELESS = 0.8


class AnswerRow:
    """One row of a round."""

    def __init__(self, start: RowStart, grammar: Grammar, options: RowOptions, acceptance: Acceptance) -> None:
        self.request, self.prompt, self.grammar, self.options = start.request, start.prompt, grammar, options
        self.acceptance, self.is_cancelled, self.on_part = acceptance, start.is_cancelled, start.on_part
        self.state, self.ids, self.finite = start.begin, [], True
        # the prompt's last token waits with what is decoded before the first forward, so that every block looks the same
        self.pending, self.pending_places = [int(start.prompt.ids_L[-1])], [int(start.prompt.places_L[-1])]
        self.cached = len(start.prompt.ids_L) - 1
        self.tally, self.timing_ms = Tally(), {}
        self.ids_by_stage: dict[Stage, list[int]] = {}
        self.own: dict[Stage, int] = {}  # how many of them the model chose
        self._guesses = Guesses(grammar, options, acceptance, start.given, start.drafts)
        self._append_facts()

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""
        return self.state == self.grammar.done

    @property
    def reuse_depth(self) -> float | None:
        """As `Drafts.reuse_depth`, until the depth drafts were read."""
        return self._guesses.reuse_depth

    @property
    def block(self) -> dict[int, int]:
        """What placeholders chose, {state: id}: a source of guesses (`engine.rounds.parallel`)."""
        return self._guesses.tables[Source.BLOCK]

    @block.setter
    def block(self, ids: dict[int, int]) -> None:
        self._guesses.set_block(ids)

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
        known, best_guess, count, whole = self._guesses.known, self._guesses.best, len(ids), self.reuse_depth is not None
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
            token, following, likely, better = known.get(state) or best_guess(state, guessed)
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

    # ---- what came out

    def take_block(self, ids: Mapping[int, int]) -> None:
        """Take every id that is left, chosen all at once; what is given stands."""
        while not self.done:
            fact = self._guesses.fact(self.state)
            self._append(ids[self.state] if fact == REFUSED else fact)

    def take(self, window: Window, chosen: Sequence[int], margins: Sequence[float] | None = None, bound: float = 0.0) -> bool:
        """Take what output j of `window` chose (ids), as long as guesses were right. True: the next output is guarded.

        margins: of every output, how far the second best id is behind; an output with less than `bound` is not trusted.
        Raises `GrammarError` where the model's choice is not in the language.
        """
        if self.reuse_depth is not None:
            self._reuse(window, chosen)
        used, guarded, before = window.first, False, len(self.ids)
        for j in range(window.first, len(window.ids)):
            state, fact = self.state, self._guesses.fact(self.state)
            if fact == REFUSED and margins is not None and margins[j] < bound:
                guarded = True
                break
            token = chosen[j] if fact == REFUSED else fact
            fed = window.ids[j + 1] if j + 1 < len(window.ids) else REFUSED
            if fact == REFUSED:
                self._judge(state, token, fed)
            self._append(token)
            used = j + 1
            if fed != token or self.done:
                break
        if self.options.refine and not self.done:
            for state, token in zip(window.states[used:], chosen[used:], strict=True):
                if state is not None and state != self.state:
                    self._guesses.refine(state, token)
        self.cached += used
        self._settle(window, used)
        self.tally.guarded += guarded
        self.acceptance.note_pace(len(self.ids) - before)
        if self.done:
            self.acceptance.note_answer(self._guesses.decoded)
        return guarded

    def _settle(self, window: Window, used: int) -> None:
        """The last decoded token waits again, with the facts that follow it."""
        if used == window.first:  # nothing was decoded: the guard stopped the first output
            self.pending, self.pending_places = window.ids[used : used + 1], window.places[used : used + 1]
            return
        last_state = window.states[used - 1]
        assert last_state is not None
        self.pending = [self.ids[-1]]
        self.pending_places = [self.grammar.place(last_state, self.cached)]
        self._append_facts()

    def _append(self, token: int) -> None:
        grammar, state = self.grammar, self.state
        following = grammar.after(state, token)
        if following == REFUSED:
            place, stage = len(self.ids), grammar.stage(state).value
            raise GrammarError(f"the model chose id {token} at position {place} ({stage}), which is not in its language", place, place + 1)
        stage = grammar.stage(state)
        self.ids_by_stage.setdefault(stage, []).append(token)
        if state not in self._guesses.given:
            self.own[stage] = self.own.get(stage, 0) + 1
        self.ids.append(token)
        self._guesses.decoded[state] = token
        self.state = following

    def _append_facts(self) -> None:
        while not self.done and (token := self._guesses.fact(self.state)) != REFUSED:
            place = self.grammar.place(self.state, self.cached + len(self.pending))
            self._append(token)
            self.pending.append(token)
            self.pending_places.append(place)

    def _judge(self, state: int, token: int, fed: int) -> None:
        """Note which sources would have been right, and whether the guess that was fed was."""
        stage = self.grammar.stage(state)
        if fed != REFUSED:
            entry = self.tally.guesses.setdefault(stage, [0, 0])
            entry[0] += 1
            entry[1] += fed == token
        self._guesses.judge(state, stage, token)

    def _reuse(self, window: Window, chosen: Sequence[int]) -> None:
        """Level "reuse-depth": the whole depth draft was fed; it stands where the model agrees with enough of it."""
        cells = [
            (state, window.ids[j + 1], chosen[j])
            for j, state in enumerate(window.states[: len(window.ids) - 1])
            if state is not None and self.grammar.stage(state) is Stage.DEPTH and self._guesses.fact(state) == REFUSED
        ]
        agreed = sum(fed == own for _, fed, own in cells)
        assert self.reuse_depth is not None
        if cells and agreed >= self.reuse_depth * len(cells):
            self._guesses.given |= {state: fed for state, fed, _ in cells}
            self.tally.guesses[Stage.DEPTH] = [len(cells), agreed]
            self.tally.reused = len(cells)
            self.own[Stage.DEPTH] = len(cells)
        self._guesses.end_reuse()
