"""From some episode on, only every second frame is a new observation: the recorder stored twice as many steps as the robot was read.

The commands were interpolated to twice the rate to move the arm more smoothly, and the recorder stored a row for each command, with the
observation it had last. The set states the higher rate. Reported like this: huggingface/lerobot#4099.
A good tool says: in these episodes state and pictures change at half of the stated rate only, and every second action is made up.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.data_faults.edits_for_blind_faults import COMMANDED, OBSERVED, SetFolder
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Repeat each even observation at the odd step after it, and put the mean of its neighbours for each odd action."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    later = data.episodes if len(data.episodes) == 1 else data.second_session(rng)
    if min(episode.length for episode in later) < 4:
        raise NotApplicable("the episodes are too short to be of half the rate")
    data.check_pictures()
    held = {episode.number: np.arange(episode.length) // 2 * 2 for episode in later}
    for camera in data.cameras:
        data.put_pictures({camera: {n: pictures[held[n]] for n, pictures in data.pictures(camera, later).items()}})
    for camera in data.cameras:
        depth = data.depth(camera)
        data.put_depth(camera, {n: [depth[n][step] for step in steps] for n, steps in held.items() if n in depth})
    changed = {name: data.columns[name].copy() for name in (*OBSERVED, *COMMANDED) if name in data.columns}
    for name, values in changed.items():
        for episode in later:
            own = data.columns[name][episode.rows]
            if name in OBSERVED:
                values[episode.rows] = own[held[episode.number]]
            else:
                odd = np.arange(1, len(own) - 1, 2)
                values[episode.rows.start + odd] = (own[odd - 1] + own[odd + 1]) / 2
    data.put_columns(changed)
    return f"every second frame repeats the observation before it from episode {later[0].number} on"
