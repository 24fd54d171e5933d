"""How web sources are drawn beside the robot's samples.

An epoch has places for each source, as many as its rate says relative to the groups: (number of the place, number of the source behind
the groups). Which row stands in a place follows from the number of the epoch: rows come in a random order, all of them before any comes
again, however many epochs that takes. So a source of any size is mixed in at its rate.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from components.config.train_config import TrainConfig, start_folder
from components.data.web_pairs.opened import WebPairs
from components.training.published.drawing import web_places
from components.training.published.examples import Look
from components.training.published.shapes import NetworkShape
from components.training.published.web.examples import WebExamples

_ORDER = 0x3EB


def row_order(seed: int, number: int, round_: int, size: int) -> NDArray[np.int64]:
    """The order in which the rows of source `number` come for the `round_`-th time."""
    return np.random.Generator(np.random.PCG64([seed, _ORDER, number, round_])).permutation(size)


class WebMixture:
    """The web sources of a training, opened. first: the number under which the first row of the first source is drawn, behind all samples
    of robots. robot_draws: of the groups in an epoch. Raises `DatasetError` for a listing that is not there or whose rows are all too long.

    places_M2: the places of all sources in an epoch.
    """

    def __init__(self, config: TrainConfig, network: NetworkShape, look: Look, *, first: int, robot_draws: int) -> None:
        published = config.published
        self.places_M2 = web_places(published.web, published.groups, robot_draws)
        self._seed, self._groups = config.seed, len(published.groups)
        self.listed = [WebPairs(start_folder(source.path)) for source in published.web]
        opened = list(zip(published.web, self.listed, strict=True))
        self.train = [WebExamples(source, pairs, network, published, look) for source, pairs in opened]
        self.held_out = [WebExamples(source, pairs, network, published, look, held_out=True) for source, pairs in opened]
        self._counts = np.bincount(self.places_M2[:, 1] - self._groups, minlength=len(self.train)).tolist()
        self._first = first + np.cumsum([0, *(len(one) for one in self.train)])
        self._order = lru_cache(maxsize=2 * len(self.train) + 1)(row_order)

    def rows(self, pairs_B2: NDArray[np.int64], epochs_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Under which number each draw's sample is found: that of a robot stays, a place of a source becomes its row in that epoch."""
        found_B = pairs_B2[:, 0].copy()
        for at in np.flatnonzero(pairs_B2[:, 1] >= self._groups):
            number = int(pairs_B2[at, 1]) - self._groups
            size = len(self.train[number])
            round_, place = divmod(int(epochs_B[at]) * self._counts[number] + int(pairs_B2[at, 0]), size)
            found_B[at] = self._first[number] + self._order(self._seed, number, round_, size)[place]
        return found_B
