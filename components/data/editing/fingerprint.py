"""Contents of episodes as short digests a frame, so that versions are compared by what is in them and never by names or paths."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.sources.interface import EpisodeSource
from model_core.spec.episode import Episode


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fingerprint:
    """numbers_T: of state, action and executed action of each frame. images: camera -> of each frame; empty where none were read.

    times_T: seconds from the first frame, as recorded.
    """

    numbers_T: NDArray[np.uint64]
    images: Mapping[str, NDArray[np.uint64]]
    times_T: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.numbers_T)

    @property
    def frames_T(self) -> NDArray[np.uint64]:
        """One digest of everything of each frame."""
        together = self.numbers_T.copy()
        for name in sorted(self.images):
            together = together * np.uint64(0x9E3779B97F4A7C15) + self.images[name]  # wraps, as a hash may
        return together

    @property
    def numbers(self) -> str:
        """One digest of all numbers of the episode."""
        return hashlib.sha256(self.numbers_T.tobytes()).hexdigest()

    @property
    def whole(self) -> str:
        """One digest of all frames of the episode."""
        return hashlib.sha256(self.frames_T.tobytes()).hexdigest()


def fingerprint(source: EpisodeSource, index: int, *, images: bool = True) -> Fingerprint:
    """The fingerprint of one episode of a source. images: whether its cameras are decoded, too."""
    return fingerprint_of(source.episode(index, images=images, depth=images))


def fingerprint_of(episode: Episode) -> Fingerprint:
    """The fingerprint of an episode with what it holds. Depth counts as a camera of its own."""
    parts = (episode.proprio_TP, episode.actions_TA, episode.executed_TA)
    rows_TX = np.concatenate([np.ascontiguousarray(part, "<f4").view(np.uint8).reshape(len(episode), -1) for part in parts], axis=1)
    cameras = {name: _digests(frames) for name, frames in episode.images.items()}
    depth = {f"{name} (depth)": _digests(frames) for name, frames in episode.depth_m.items()}
    return Fingerprint(numbers_T=_digests(rows_TX), images=cameras | depth, times_T=episode.timestamps_T - episode.timestamps_T[0])


def _digests(rows_TX: NDArray[np.generic]) -> NDArray[np.uint64]:
    shape = repr(rows_TX.shape[1:]).encode()
    found = [hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=8, key=shape).digest() for row in rows_TX]
    return np.frombuffer(b"".join(found), "<u8")
