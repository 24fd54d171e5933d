"""Single frames of packed episodes in a shuffled order that is a pure function of seed and epoch, each exactly once.

On this disk a sample is a view of a mapped file, and the order is one permutation of all frames. Over a network the next samples are asked
for while the present ones are used. There a request costs more than its bytes, so that frames may be read in blocks: the order is then one
of blocks of the whole set, and within it the frames of some blocks are mixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.packing.packs import IMAGES, PackedEpisode
from model_core.spec.errors import require

_MOST_REQUESTS = 64  # at one time


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
    """Samples of all frames of `episodes`. chunk: actions in a sample. ahead: samples that are asked for early; 0 on a disk.

    block: frames of an episode, one after the other, that are read together; with 1 the order is a permutation of all frames. Else it is
    one of all blocks, and the frames of `window` blocks at a time are permuted. Memory holds at most the images of two windows.
    """

    def __init__(
        self, episodes: Sequence[PackedEpisode], *, seed: int, chunk: int = 1, ahead: int = 0, block: int = 1, window: int = 64
    ) -> None:
        require(block >= 1 and window >= 1, "block and window must be at least 1", got=(block, window))
        self._episodes, self._seed, self._chunk, self._ahead, self._window = list(episodes), seed, chunk, ahead, window
        self._starts = np.concatenate([[0], np.cumsum([one.frames for one in self._episodes])])
        firsts = [np.arange(start, start + one.frames, block) for start, one in zip(self._starts[:-1], self._episodes, strict=True)]
        self._edges = np.concatenate([*firsts, self._starts[-1:]])  # of the blocks: first frame of each, and the end
        self._cameras = [sorted(name for name in one.pack.header.places if name.startswith(IMAGES)) for one in self._episodes]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def order(self, epoch: int = 0) -> NDArray[np.int64]:
        """Every frame number once."""
        rng = np.random.Generator(np.random.PCG64([self._seed, 0x5AFE, epoch]))
        blocks = rng.permutation(len(self._edges) - 1)
        if len(blocks) == len(self):
            return blocks
        parts = [blocks[place : place + self._window] for place in range(0, len(blocks), self._window)]
        return np.concatenate([rng.permutation(_spans(self._edges[part], self._edges[part + 1])) for part in parts])

    def sample(self, number: int) -> FrameSample:
        """Frame `number`, counted over all episodes."""
        return self._sample(number, number, self._images(number, 1))

    def _images(self, first: int, count: int) -> dict[str, NDArray[np.uint8]]:
        """Camera -> the images of frames `first` .. `first` + count - 1 of one episode."""
        place = self._place(first)
        episode = self._episodes[place]
        row = episode.first + first - int(self._starts[place])
        return {name.removeprefix(IMAGES): episode.pack.rows(name, row, count) for name in self._cameras[place]}

    def _place(self, number: int) -> int:
        return int(np.searchsorted(self._starts, number, side="right")) - 1

    def _sample(self, number: int, first: int, images: Mapping[str, NDArray[np.uint8]]) -> FrameSample:
        """Frame `number`. images: of the frames from `first` on."""
        place = self._place(number)
        episode, frame = self._episodes[place], int(number - self._starts[place])
        row, left = episode.first + frame, episode.frames - frame
        actions_KA = episode.pack.rows("actions", row, min(self._chunk, left))
        if left < self._chunk:
            actions_KA = np.concatenate([actions_KA, np.repeat(actions_KA[-1:], self._chunk - left, axis=0)])
        return FrameSample(
            episode=place,
            frame=frame,
            images={name: found[number - first] for name, found in images.items()},
            proprio_P=episode.pack.rows("proprio", row, 1)[0],
            actions_KA=actions_KA,
            is_padded_K=np.arange(self._chunk) >= left,
            instruction=episode.known["instruction"],
        )

    def __iter__(self) -> Iterator[FrameSample]:
        return self.epoch(0)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[FrameSample]:
        """The samples of an epoch from place `start` on: a run that was stopped goes on where it was."""
        numbers_N = self.order(epoch)[start:]
        if not self._ahead:
            return (self.sample(number) for number in numbers_N.tolist())
        return self._asked_early(numbers_N)

    def _asked_early(self, numbers_N: NDArray[np.int64]) -> Iterator[FrameSample]:
        """Each block is asked for once, when the first of its samples is `ahead` samples away, and let go after the last."""
        blocks_N = np.searchsorted(self._edges, numbers_N, side="right") - 1
        left = np.bincount(blocks_N, minlength=len(self._edges))
        numbers, blocks, asked = numbers_N.tolist(), blocks_N.tolist(), 0
        coming: dict[int, Future[dict[str, NDArray[np.uint8]]]] = {}
        with ThreadPoolExecutor(min(self._ahead, _MOST_REQUESTS)) as pool:
            try:
                for place, (number, block) in enumerate(zip(numbers, blocks, strict=True)):
                    for wanted in blocks[asked : place + self._ahead]:
                        if wanted not in coming:
                            first = int(self._edges[wanted])
                            coming[wanted] = pool.submit(self._images, first, int(self._edges[wanted + 1]) - first)
                    asked = max(asked, place + self._ahead)
                    yield self._sample(number, int(self._edges[block]), coming[block].result())
                    left[block] -= 1
                    if not left[block]:
                        del coming[block]
            finally:
                for future in coming.values():
                    future.cancel()


def _spans(firsts_N: NDArray[np.int64], ends_N: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.arange(first, end) for first, end in zip(firsts_N.tolist(), ends_N.tolist(), strict=True)])
