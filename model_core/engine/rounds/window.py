"""How far to look ahead: what a block costs here, how often guesses are right, and the width that yields most ids per millisecond.

A block whose guesses are right with probability p each yields 1 + p + p^2 + .. ids on average. Divided by the measured milliseconds
of its width this is the rate of a window: wide where guesses are good, width one (plain decoding) where they are not. Agreement is
seen at no cost: every id that is chosen is compared with what each source would have guessed, fed or not.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Mapping, Sequence

from model_core.engine.automaton import Stage

WIDTHS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
# An estimate forgets: about this many guesses back. What is assumed before anything was seen, and how many guesses that is worth.
_MEMORY, _PRIOR_WEIGHT = 400.0, 10.0
# The same for one place of an answer, seen once a decision; and how many sightings its stage is worth there.
_PLACE_MEMORY, _PLACE_WEIGHT = 12.0, 3.0
# For so many answers at most the sources of a place, once ranked, are taken to stand in that order; for fewer while it was seldom seen.
_RANKED_FOR = 8
# Past this chance of getting so far, and where a block can improve no guess by this much, more width is not worth planning.
UNLIKELY, NO_BETTER = 0.01, 0.02


class Source(enum.IntEnum):
    """Where a guess comes from."""

    DRAFT = 0  # what was handed in: the last decision, a mean of the data
    REFINED = 1  # the model's own choice there in an earlier block of this answer, made behind a wrong guess
    ECHO = 2  # an earlier value of this answer (`Grammar.echo`)
    BLOCK = 3  # what placeholders chose (`engine.rounds.parallel`)
    RECENT = 4  # what was chosen there last, in any answer: better than nothing at an episode's first decision


_PRIORS = (0.7, 0.75, 0.3, 0.6, 0.5)  # in the order of Source
_KEEP, _PLACE_KEEP, _NEVER_SEEN = 1.0 - 1.0 / _MEMORY, 1.0 - 1.0 / _PLACE_MEMORY, [[0.0, 0.0]] * len(_PRIORS)
_NEVER_RANKED: tuple[int, list[tuple[float, int]]] = (0, [])
# A grammar whose states hold what was answered (`engine.published`, two views) has more of them than memory: past this many places all
# are forgotten, and estimated again from their stages.
_MOST_PLACES = 50_000


class Acceptance:
    """How often guesses were right: per stage and source, and per place of the answer. Estimates decide speed, never an answer.

    A place (a state of the grammar) is trusted as far as it was seen and its stage for the rest: a still background cell is guessed
    better from the last decision, a moving one from what the model just chose there. pace: ids that a block yields on average.
    recent: the last answers that were completed, the newest id for each state.
    """

    def __init__(self) -> None:
        # [right, seen] by source, of a stage and of a place: plain numbers, because this is counted at every id
        self._stages: dict[Stage, list[list[float]]] = {}
        self._places: dict[int, list[list[float]]] = {}
        self._ranked: dict[int, tuple[int, list[tuple[float, int]]]] = {}  # by place: until which answer it holds, and `rates_at`
        self._answers = 0
        self.pace = 2.0
        self.recent: dict[int, int] = {}

    def note(self, state: int, stage: Stage, source: int, right: bool) -> None:
        """Count one guess."""
        self.judge(state, stage, [right - 1 if other == source else None for other in Source], 0)

    def judge(self, state: int, stage: Stage, guesses: Sequence[int | None], token: int) -> None:
        """Count what every source guessed (in the order of `Source`, None where it did not) by the `token` that was chosen."""
        place = self._places.get(state)
        if place is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
                self._ranked.clear()
            place = self._places[state] = [[0.0, 0.0] for _ in _PRIORS]
        for guess, of_stage, of_place in zip(guesses, self._of(stage), place, strict=True):
            if guess is None:
                continue
            right = guess == token
            of_stage[0] = of_stage[0] * _KEEP + right
            of_stage[1] = of_stage[1] * _KEEP + 1.0
            of_place[0] = of_place[0] * _PLACE_KEEP + right
            of_place[1] = of_place[1] * _PLACE_KEEP + 1.0

    def note_answer(self, answer: Mapping[int, int]) -> None:
        """Keep a completed answer, {state: id}, as `recent`."""
        self._answers += 1
        if len(self.recent) >= _MOST_PLACES:
            self.recent.clear()
        self.recent.update(answer)

    def _of(self, stage: Stage) -> list[list[float]]:
        found = self._stages.get(stage)
        if found is None:
            found = self._stages[stage] = [[prior * _PRIOR_WEIGHT, _PRIOR_WEIGHT] for prior in _PRIORS]
        return found

    @property
    def seen(self) -> dict[tuple[Stage, Source], float]:
        """Guesses that count now beside what was assumed before, by stage and source; none that was never seen."""
        table = {(stage, source): entries[source][1] for stage, entries in self._stages.items() for source in Source}
        return {key: seen for key, seen in table.items() if seen != _PRIOR_WEIGHT}

    def rate(self, stage: Stage, source: Source) -> float:
        """Probability that a guess of `stage` is right."""
        right, seen = self._of(stage)[source]
        return right / seen

    def rates_at(self, state: int, stage: Stage) -> list[tuple[float, int]]:
        """Probability that a guess for `state` is right, by source, best first."""
        until, found = self._ranked.get(state, _NEVER_RANKED)
        if self._answers < until:
            return found
        place = self._places.get(state, _NEVER_SEEN)
        found = [
            ((right + _PLACE_WEIGHT * all_right / all_seen) / (seen + _PLACE_WEIGHT), source)
            for source, ((right, seen), (all_right, all_seen)) in enumerate(zip(place, self._of(stage), strict=True))
        ]
        found.sort(reverse=True)
        if place is not _NEVER_SEEN:
            self._ranked[state] = self._answers + min(_RANKED_FOR, int(max(seen for _, seen in place)) // 2), found
        return found

    def note_pace(self, count: int) -> None:
        """Count the ids that one block yielded."""
        self.pace += (count - self.pace) / 50.0


class CostCurve:
    """Milliseconds of one block by rows and width, measured when first asked for.

    measure(rows, width) -> milliseconds of one run; `passes` over all widths, of which the least counts, so that a moment of other
    work does not fall on one width alone. Other work only ever adds: a narrower block is taken to be as cheap as any wider one was.
    """

    def __init__(
        self, measure: Callable[[int, int], float], *, widths: Sequence[int] = WIDTHS, most_tokens: int = 512, passes: int = 4
    ) -> None:
        self._measure, self._most_tokens, self._passes = measure, most_tokens, passes
        self.widths = tuple(sorted(widths))
        self._curves: dict[int, dict[int, float]] = {}

    def at(self, rows: int) -> Mapping[int, float]:
        """{width: milliseconds} of a block of `rows` (the next larger power of two)."""
        bucket = 1 << (rows - 1).bit_length()
        if bucket not in self._curves:
            widths = [width for width in self.widths if width == self.widths[0] or bucket * width <= self._most_tokens]
            passes = [[self._measure(bucket, width) for width in widths] for _ in range(self._passes)]
            least = [max(min(times), 1e-6) for times in zip(*passes, strict=True)]
            falling = [*itertools.accumulate(reversed(least), min)]
            self._curves[bucket] = dict(zip(widths, reversed(falling), strict=True))
        return self._curves[bucket]

    def known(self) -> dict[int, dict[int, float]]:
        """What was measured so far: {rows: {width: milliseconds}}."""
        return {rows: dict(curve) for rows, curve in self._curves.items()}


def best_width(curve: Mapping[int, float], gains: Sequence[Sequence[float]]) -> int:
    """The width with the most expected ids per millisecond; the narrowest of equals.

    gains: of every row, gains[w - 1] ids expected from feeding w tokens; a row with less to feed has a shorter list, whose last
    entry holds from there on.
    """
    best, best_rate = next(iter(curve)), 0.0
    for width, cost in curve.items():
        rate = sum(row[min(width, len(row)) - 1] for row in gains) / cost
        if rate > best_rate * 1.0001:
            best, best_rate = width, rate
    return best
