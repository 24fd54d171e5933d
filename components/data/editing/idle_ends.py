"""Where an episode begins and ends to move: the ends of a recording in which the operator only waits."""

from __future__ import annotations

import numpy as np

from components.data.editing.description import embodiment_of
from components.data.inspection.motion import MOVED, commanded_T, moved_T
from components.data.sources.interface import EpisodeSource


def moving_parts(source: EpisodeSource, margin: int) -> dict[str, tuple[int, int]]:
    """Episode id -> (first, end) of the frames that are kept, for every episode whose ends are idle for more than `margin` frames.

    A frame is idle where nothing is commanded and the state stays where it is (the rules of validation). An episode that is idle from its
    first to its last frame is left whole: whether it is one at all is not for its length to say.
    """
    body = embodiment_of(source)
    kept: dict[str, tuple[int, int]] = {}
    for row in source.rows:
        episode = source.episode(row.index, images=False, depth=False)
        active = np.flatnonzero(commanded_T(episode, body) | moved_T(episode, body, MOVED))
        if not len(active):
            continue
        first, end = max(int(active[0]) - margin, 0), min(int(active[-1]) + 1 + margin, len(episode))
        if (first, end) != (0, len(episode)):
            kept[row.episode_id] = (first, end)
    return kept
