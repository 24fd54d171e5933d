"""Single frames of packed episodes in a shuffled order that is a pure function of seed and epoch, each exactly once.

On this disk a sample is a view of a mapped file. Over a network the next samples are asked for while the present ones are used, and every
frame stays reachable: no buffer limits how far the order mixes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.packing.packs import IMAGES, PackedEpisode


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameSample:
    """One frame. images: camera -> (H, W, 3) uint8. actions_KA: the chunk from here on, the last action repeated past the episode's end.

    is_padded_K: which actions of the chunk lie past the end.
    """

    episode: int
    frame: int
    images: Mapping[str, NDArray[np.uint8]]
    proprio_P: NDArray[np.float32]
    actions_KA: NDArray[np.float32]
    is_padded_K: NDArray[np.bool_]
    instruction: str


class ShuffledFrames:
    """Samples of all frames of `episodes`. chunk: actions in a sample. ahead: samples that are asked for early; 0 on a disk."""

    def __init__(self, episodes: Sequence[PackedEpisode], *, seed: int, chunk: int = 1, ahead: int = 0) -> None:
        self._episodes, self._seed, self._chunk, self._ahead = list(episodes), seed, chunk, ahead
        self._starts = np.concatenate([[0], np.cumsum([one.frames for one in self._episodes])])
        self._cameras = [sorted(name for name in one.pack.header.places if name.startswith(IMAGES)) for one in self._episodes]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def order(self, epoch: int = 0) -> NDArray[np.int64]:
        """Every frame number once."""
        return np.random.Generator(np.random.PCG64([self._seed, 0x5AFE, epoch])).permutation(len(self))

    def sample(self, number: int) -> FrameSample:
        """Frame `number`, counted over all episodes."""
        place = int(np.searchsorted(self._starts, number, side="right")) - 1
        episode, frame = self._episodes[place], int(number - self._starts[place])
        row, left = episode.first + frame, episode.frames - frame
        actions_KA = episode.pack.rows("actions", row, min(self._chunk, left))
        if left < self._chunk:
            actions_KA = np.concatenate([actions_KA, np.repeat(actions_KA[-1:], self._chunk - left, axis=0)])
        return FrameSample(
            episode=place,
            frame=frame,
            images={name.removeprefix(IMAGES): episode.pack.rows(name, row, 1)[0] for name in self._cameras[place]},
            proprio_P=episode.pack.rows("proprio", row, 1)[0],
            actions_KA=actions_KA,
            is_padded_K=np.arange(self._chunk) >= left,
            instruction=episode.known["instruction"],
        )

    def __iter__(self) -> Iterator[FrameSample]:
        return self.epoch(0)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[FrameSample]:
        """The samples of an epoch from place `start` on: a run that was stopped goes on where it was."""
        numbers = self.order(epoch)[start:]
        if not self._ahead:
            yield from (self.sample(int(number)) for number in numbers)
            return
        with ThreadPoolExecutor(min(self._ahead, 64)) as pool:
            waiting: deque[Future[Any]] = deque()
            try:
                for number in numbers:
                    waiting.append(pool.submit(self.sample, int(number)))
                    if len(waiting) >= self._ahead:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
