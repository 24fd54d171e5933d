"""Exact statistics of an exported set, of each episode and of the whole: every row and every image counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.lerobot import layout
from components.data.lerobot.statistics import picture_histogram, picture_statistics, vector_statistics
from model_core.spec.episode import Episode


class SetStatistics:
    """Adds up episodes. Quantiles of the whole set are taken over all rows, never averaged over episodes."""

    def __init__(self) -> None:
        self._columns: dict[str, list[NDArray[Any]]] = {}
        self._histograms: dict[str, NDArray[np.int64]] = {}
        self._frames = 0

    def add(self, columns: Mapping[str, NDArray[Any]], episode: Episode) -> dict[str, dict[str, Any]]:
        """The statistics of one episode, which counts from now on: feature -> {min, max, mean, std, count, q01 ... q99}."""
        found = {name: vector_statistics(values) for name, values in columns.items()}
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)
        for camera, frames in episode.images.items():
            key, histogram = f"{layout.IMAGE_PREFIX}{camera}", picture_histogram(frames, sample=len(frames))
            self._histograms[key] = self._histograms.get(key, np.zeros_like(histogram)) + histogram
            found[key] = picture_statistics(histogram, len(frames))
        self._frames += len(episode)
        return found

    def whole(self) -> dict[str, dict[str, Any]]:
        """The statistics of everything that was added."""
        found = {name: vector_statistics(np.concatenate(parts)) for name, parts in self._columns.items()}
        return found | {key: picture_statistics(histogram, self._frames) for key, histogram in self._histograms.items()}
