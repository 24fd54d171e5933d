"""meta/stats.json describes the first session alone: the set was recorded further, and its statistics were not counted again.

A policy is normalised with these numbers, so the later episodes lie partly outside of the range that it is given. Reported like this:
huggingface/lerobot#3788 (statistics that stay behind after a merge).
A good tool says: the statistics count fewer frames than the set has, and do not fit the data; count them again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.data.lerobot.statistics import picture_histogram, picture_statistics, vector_statistics
from tests.data_faults.edits_for_blind_faults import SetFolder


def inject(folder: Path, seed: int) -> str:
    """Count the statistics over the episodes before the second session alone."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    first = data.episodes[: data.second_session(rng)[0].index]
    frames = sum(episode.length for episode in first)
    share = frames / sum(episode.length for episode in data.episodes)
    found = {
        name: vector_statistics(np.concatenate([values[episode.rows] for episode in first]))
        for name, values in data.columns.items()
        if np.issubdtype(values.dtype, np.number)
    }
    for camera, key in data.keys.items():
        histograms = [picture_histogram(pictures) for pictures in data.pictures(camera, first).values()]
        found[key] = picture_statistics(sum(histograms, np.zeros((3, 256), np.int64)), frames)
    stated = data.statistics()
    for name, statistics in stated.items():
        if name in found:
            count = [max(1, round(value * share)) for value in np.ravel(statistics.get("count", [])).tolist()]
            statistics |= {key: value for key, value in found[name].items() if key in statistics}
            statistics |= {"count": count} if count else {}
    data.put_statistics(stated)
    return f"meta/stats.json is that of the first {len(first)} of {len(data.episodes)} episodes"
