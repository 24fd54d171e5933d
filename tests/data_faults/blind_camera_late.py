"""One camera's pictures arrive a quarter of a second late, from some episode on.

A capture card was put between a camera and the computer. It holds back some pictures, so every step is stored with a picture that was
taken before it. Nothing is missing and every clock is even. Reported like this: yanlai00/bridge_data_robot_infra#1, osrf/subt#371.
A good tool says: from this episode on, what this camera shows follows the state and the action later than before, and by how many frames.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.data_faults.edits_for_blind_faults import SetFolder, noisy
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Delay the pictures of one camera; the first steps of an episode show the resting scene, with the noise of the sensor."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    later = data.second_session(rng)
    if not data.cameras:
        raise NotApplicable("a set without cameras has no camera that is late")
    camera = data.cameras[int(rng.integers(len(data.cameras)))]
    delay = min(max(2, round(0.25 * data.fps)), min(episode.length for episode in later) // 2)
    if delay < 1:
        raise NotApplicable("the episodes are too short for a delay")
    data.check_pictures()
    shown = data.pictures(camera, later)
    for number, pictures in shown.items():
        late = pictures[np.maximum(np.arange(len(pictures)) - delay, 0)]
        late[1 : delay + 1] = noisy(late[1 : delay + 1], rng)
        shown[number] = late
    data.put_pictures({camera: shown})
    return f"the pictures of camera {camera!r} are {delay} frames late from episode {later[0].number} on"
