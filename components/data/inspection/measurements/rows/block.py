"""The rows of several episodes, one after the other, and what is reduced to one value for each episode of them.

N rows of all episodes, E episodes, D dimensions. Everything that is made of a block depends on the rows of each episode alone: a block of
one episode gives the same numbers as a block of many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.measurements.raw_episode import RawEpisode

MOST_NUMBERS = 100_000  # of the widest column of a block: what is made of it stays in the processor's cache, and small for any set


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowBlock:
    """Episodes that have the same columns, of at least one row each. starts_E, lengths_E: their first rows and numbers of rows.

    ends_E: their last rows. place_N: of each row in its episode.
    """

    episodes: tuple[RawEpisode, ...]
    starts_E: NDArray[np.int64]
    lengths_E: NDArray[np.int64]
    ends_E: NDArray[np.int64]
    place_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def rows(self) -> int:
        """Of all episodes together."""
        return len(self.place_N)

    def column(self, name: str) -> NDArray[np.float64]:
        """A column of vectors, (D, N): each dimension lies in one piece. (0, N) where the episodes do not have it."""
        parts = [episode.vectors[name] for episode in self.episodes if name in episode.vectors]
        return np.ascontiguousarray(np.concatenate(parts).T) if parts else np.zeros((0, self.rows))

    def each(self, reduce: np.ufunc, values_XN: NDArray[Any]) -> NDArray[Any]:
        """`reduce` over the rows of each episode: (..., N) to (..., E)."""
        return reduce.reduceat(values_XN, self.starts_E, axis=-1)

    def count(self, flags_XN: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many flags are set in each episode."""
        return np.add.reduceat(flags_XN.view(np.int8), self.starts_E, axis=-1, dtype=np.int64)

    def spread(self, values_XE: NDArray[Any]) -> NDArray[Any]:
        """One value for each episode, at each of its rows: (..., E) to (..., N)."""
        return np.repeat(values_XE, self.lengths_E, axis=-1)

    def parts(self) -> Iterator[slice]:
        """The rows of each episode."""
        return (slice(start, start + length) for start, length in zip(self.starts_E.tolist(), self.lengths_E.tolist(), strict=True))

    def sort(self, values_DN: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sort the rows of each episode in place, each dimension for itself; returns `values_DN`."""
        for part in self.parts():
            values_DN[:, part].sort(axis=1)
        return values_DN

    def ahead(self, values_DN: NDArray[np.float64]) -> NDArray[np.float64]:
        """The change from each row to the next one; 0 at the last row of an episode, which has no next one."""
        found = np.empty_like(values_DN)
        np.subtract(values_DN[:, 1:], values_DN[:, :-1], out=found[:, :-1])
        found[:, self.ends_E] = 0.0
        return found

    def longest_runs(self, flags_XN: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The longest run of flags that are set within each episode: (..., N) to (..., E)."""
        number_N = np.arange(1, self.rows + 1)
        before_N = self.spread(self.starts_E)
        # how many rows there are up to the last flag that is not set, of this episode or of those before
        last_XN = np.maximum.accumulate(np.where(flags_XN, before_N, number_N), axis=-1)
        return self.each(np.maximum, number_N - last_XN)


def make_block(episodes: Sequence[RawEpisode]) -> RowBlock:
    """A block of episodes that have the same columns. Raises `ValueError` for an episode without a row."""
    lengths_E = np.array([len(episode) for episode in episodes], np.int64)
    if not lengths_E.all():
        raise ValueError(f"{episodes[int(np.argmin(lengths_E))].episode_id} has no row, expected one at least. Fix: leave it out")
    ends_E = np.cumsum(lengths_E)
    starts_E = ends_E - lengths_E
    place_N = np.arange(int(ends_E[-1])) - np.repeat(starts_E, lengths_E)
    return RowBlock(episodes=tuple(episodes), starts_E=starts_E, lengths_E=lengths_E, ends_E=ends_E - 1, place_N=place_N)


def blocks(episodes: Sequence[RawEpisode]) -> Iterator[RowBlock]:
    """Blocks of at most `MOST_NUMBERS` (or of one larger episode) in the order of the episodes, whose columns may differ."""
    waiting: list[RawEpisode] = []
    rows, columns = 0, None
    for episode in episodes:
        own = tuple((name, values.shape[1]) for name, values in episode.vectors.items())
        widest = max((width for _, width in own), default=1)
        if waiting and (own != columns or (rows + len(episode)) * widest > MOST_NUMBERS):
            yield make_block(waiting)
            waiting, rows = [], 0
        waiting.append(episode)
        rows, columns = rows + len(episode), own
    if waiting:
        yield make_block(waiting)
