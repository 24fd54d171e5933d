"""The clock of the computer was set back in the middle of an episode: the recorded times jump backwards and go on from there.

The recorder stamps its frames with the time of day. The computer had started without a network, and its time service corrected the clock
while an episode was being recorded. Reported like this: introlab/rtabmap_ros#1333, ros/ros_comm#2317, huggingface/lerobot#933.
A good tool says: in this episode the time goes back at this frame; the frames are in order, only the clock is wrong.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.data.lerobot import layout
from tests.data_faults.edits_for_blind_faults import SetFolder
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Take a constant off the times of the second part of one episode."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    column = layout.RECORDED if layout.RECORDED in data.columns else "timestamp"
    long = [episode for episode in data.episodes if episode.length >= 4]
    if not long:
        raise NotApplicable("the episodes are too short for a jump in the middle")
    episode = long[int(rng.integers(len(long)))]
    step = int(rng.integers(episode.length // 4 + 1, 3 * episode.length // 4 + 1))
    back_s = float(rng.uniform(0.4, 1.6)) + 2 / data.fps
    times = data.columns[column].copy()
    times[episode.rows.start + step : episode.rows.stop] -= back_s
    data.put_columns({column: times})
    return f"{column} of episode {episode.number} goes back by {back_s:.3f} s at frame {step}"
