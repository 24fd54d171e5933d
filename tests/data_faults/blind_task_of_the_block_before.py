"""One episode has the sentence of the block of recordings before it: the operator began a new task and forgot to change the sentence.

The frames, the list of the episode and the table of tasks agree with each other; only the motion and the pictures are those of another
task. Reported like this: unitreerobotics/unitree_lerobot#78, google-deepmind/open_x_embodiment#15.
A good tool says: this episode looks and moves like those of the other task; ask the operator.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from tests.data_faults.edits_for_blind_faults import SetFolder
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Give the first episode of a block the task of the episode before it, in every place that names its task."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    tasks = [episode.task for episode in data.episodes]
    changes = [(before, new) for before, new in pairwise(data.episodes) if before.task != new.task and tasks.count(new.task) > 1]
    if not changes or "task_index" not in data.columns:
        raise NotApplicable("no two blocks of episodes have different tasks")
    before, new = changes[int(rng.integers(len(changes)))]
    task_index = data.columns["task_index"].copy()
    task_index[new.rows] = task_index[before.rows.start]
    data.put_columns({"task_index": task_index})
    data.put_meta({"tasks": {new.number: [before.task]}})
    data.put_ours({"task": {new.number: data.ours(before.number).get("task")}})
    return f"episode {new.number} is labelled {before.task!r}, which is the task of episode {before.number}; it shows {new.task!r}"
