"""One demonstration is in the set twice, under two numbers: once whole, and once cut at its beginning and encoded again.

Two people exported parts of the same recordings, one of them after cutting, and the parts were merged. The copy has its own number, and
its pictures are not equal to the byte. Reported like this: droid-dataset/droid#66.
A good tool says: these two episodes are one demonstration; it counts twice in training, and may be on both sides of a split.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.data_faults.edits_for_blind_faults import MOVED, SetFolder
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Put the end of an episode in place of another one of the same task and outcome that is not longer."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    pairs = [
        (source, copy)
        for source in data.episodes
        for copy in data.episodes
        if source != copy and source.task == copy.task and source.success == copy.success and copy.length <= source.length
    ]
    if not pairs:
        raise NotApplicable("no two episodes have one task and one outcome")
    data.check_pictures()
    cut = [(source, copy) for source, copy in pairs if source.length > copy.length] or pairs
    source, copy = cut[int(rng.integers(len(cut)))]
    steps = np.arange(copy.length) + source.length - copy.length
    data.show_again({copy.number: (source.number, steps)}, columns=MOVED, noise=rng)
    return f"episode {copy.number} is episode {source.number} from its frame {int(steps[0])} on"
