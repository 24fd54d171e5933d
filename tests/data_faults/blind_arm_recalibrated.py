"""From some episode on, one joint (or axis) is counted from another zero: the arm was calibrated again between two sessions.

The operator moved the arm to its middle by eye, as the program asks, and not to the same place as the first time. State and action are
shifted by the same amount, while the cameras show the same motion as before. Reported like this: huggingface/lerobot#1342,
huggingface/lerobot#1360.
A good tool says: from this episode on, the values of this dimension are shifted by a constant, although the pictures are alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.data.lerobot import layout
from tests.data_faults.edits_for_blind_faults import COMMANDED, SetFolder
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Add a third of its range to one dimension of the state, and to the action that names the place it goes to."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    later = data.second_session(rng)
    dims = data.arm_dims(layout.STATE) if layout.STATE in data.columns else []
    if not dims:
        raise NotApplicable("no dimension of the state moves")
    dim = dims[int(rng.integers(len(dims)))]
    offset = float(np.ptp(data.columns[layout.STATE][:, dim])) * 0.35 * (1 if rng.random() < 0.5 else -1)
    changed = {name: data.columns[name].copy() for name in (layout.STATE, *COMMANDED) if name in data.columns}
    command = data.command_of(dim) if layout.ACTION in changed else None
    command = command if command is not None and data.is_target(dim, command) else None
    for episode in later:
        changed[layout.STATE][episode.rows, dim] += offset
        for name in set(COMMANDED) & set(changed) if command is not None else ():
            changed[name][episode.rows, command] += offset
    data.put_columns(changed)
    name = data.names(layout.STATE)[dim]
    return f"dimension {dim} of {layout.STATE} ({name}) is shifted by {offset:.4g} from episode {later[0].number} on"
