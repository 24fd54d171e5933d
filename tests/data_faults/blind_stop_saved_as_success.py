"""The robot went into a protective stop in the middle of an episode, the recorder went on, and the episode was saved like the solved ones.

From the stop on, the arm stands still in the state and in the pictures, while the commands of the leader arm go on: the operator had not
seen the stop. The outcome is still the one that the recorder sets by itself. Reported like this: jhu-lcsr/costar_plan#498,
ARISE-Initiative/robosuite#312 (failures among the successes).
A good tool says: from this frame on the robot does not follow its commands, and the episode is unlikely to have solved its task.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.data_faults.edits_for_blind_faults import OBSERVED, SetFolder
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Hold the observations of one episode, which is not marked as failed, from its middle on."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    passed = [episode for episode in data.episodes if episode.success is not False and episode.length >= 6]
    if not passed:
        raise NotApplicable("no episode is long enough and not marked as failed")
    data.check_pictures()
    episode = passed[int(rng.integers(len(passed)))]
    stop = int(rng.integers(episode.length // 3, episode.length // 2 + 1))
    steps = np.minimum(np.arange(episode.length), stop)
    data.show_again({episode.number: (episode.number, steps)}, columns=OBSERVED, noise=rng)
    return f"the robot stands still from frame {stop} of episode {episode.number} on, its commands go on, and its outcome is unchanged"
