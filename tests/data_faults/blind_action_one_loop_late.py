"""From some episode on, each action is stored one step late: beside the observation that it led to, not the one it answers.

After an update the recorder first sends the action, then reads the robot and the cameras, and stores what it has in hand. Reported like
this: huggingface/lerobot#636, google-deepmind/envlogger#13.
A good tool says: between these two parts of the set, the time from an action to the motion that follows it differs by one frame.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.data.lerobot import layout
from tests.data_faults.edits_for_blind_faults import COMMANDED, SetFolder
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Move the actions of the later episodes one row down; the first row keeps its own."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    later = data.second_session(rng)
    if layout.ACTION not in data.columns or max(episode.length for episode in later) < 2:
        raise NotApplicable("the set has no actions to move")
    changed = {name: data.columns[name].copy() for name in COMMANDED if name in data.columns}
    for values in changed.values():
        for episode in later:
            own = values[episode.rows].copy()
            values[episode.rows] = own[np.maximum(np.arange(len(own)) - 1, 0)]
    data.put_columns(changed)
    return f"the actions are stored one step late from episode {later[0].number} on"
