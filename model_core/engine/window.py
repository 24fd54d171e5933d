"""How far to look ahead: what a block costs here, how often guesses are right, and the width that says most per millisecond.

A block whose guesses are right with probability p each says 1 + p + p^2 + .. ids on average. Divided by the measured milliseconds
of its width this is the rate of a window: wide where guesses are good, width one (plain decoding) where they are not. Agreement is
seen at no cost: every id that is said is compared with what each source would have guessed, fed or not.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from model_core.engine.automaton import Stage

WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128)
# An estimate forgets: about this many guesses back. What is believed before anything was seen, and how many guesses that is worth.
_MEMORY, _PRIOR, _PRIOR_WEIGHT = 300.0, 0.6, 10.0
# Past this chance of getting so far, more width is not worth planning.
_UNLIKELY = 0.01


class Source(enum.IntEnum):
    """Where a guess comes from."""

    DRAFT = 0  # what was handed in: the last decision, a mean of the data
    REFINED = 1  # the model's own choice there in an earlier block of this answer, made behind a wrong guess
    ECHO = 2  # an earlier value of this answer (`Grammar.echo`)


@dataclass(slots=True)
class Acceptance:
    """Running share of guesses that were right, per stage and source. Estimates decide speed, never an answer."""

    right: dict[tuple[Stage, Source], float] = field(default_factory=dict)
    seen: dict[tuple[Stage, Source], float] = field(default_factory=dict)

    def note(self, stage: Stage, source: Source, right: bool) -> None:
        """Count one guess."""
        key, keep = (stage, source), 1.0 - 1.0 / _MEMORY
        self.right[key] = self.right.get(key, _PRIOR * _PRIOR_WEIGHT) * keep + right
        self.seen[key] = self.seen.get(key, _PRIOR_WEIGHT) * keep + 1.0

    def rate(self, stage: Stage, source: Source) -> float:
        """Probability that the next guess is right."""
        key = (stage, source)
        return self.right.get(key, _PRIOR) / self.seen.get(key, 1.0)

    def copy(self) -> Acceptance:
        """An estimate that goes its own way from here."""
        return Acceptance(dict(self.right), dict(self.seen))


class CostCurve:
    """Milliseconds of one block by rows and width, measured when first asked for.

    measure(rows, width) -> milliseconds. A wider block is never believed cheaper than a narrower one: noise must not choose it.
    """

    def __init__(self, measure: Callable[[int, int], float], *, widths: Sequence[int] = WIDTHS, most_tokens: int = 512) -> None:
        self._measure, self._most_tokens = measure, most_tokens
        self.widths = tuple(sorted(widths))
        self._curves: dict[int, dict[int, float]] = {}

    def at(self, rows: int) -> Mapping[int, float]:
        """{width: milliseconds} of a block of `rows` (the next larger power of two)."""
        bucket = 1 << (rows - 1).bit_length()
        if bucket not in self._curves:
            curve: dict[int, float] = {}
            for width in self.widths:
                if curve and bucket * width > self._most_tokens:
                    break
                curve[width] = max(self._measure(bucket, width), *curve.values(), 1e-6)
            self._curves[bucket] = curve
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


def far_enough(chance: float) -> bool:
    """Whether planning may stop: it is too unlikely that a block's guesses hold so far."""
    return chance < _UNLIKELY
