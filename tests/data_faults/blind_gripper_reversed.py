"""From some episode on, open and closed mean the opposite: the gripper was replaced by one whose driver counts the other way.

The old gripper said 1 for open, the new one says 1 for closed, in the state and in the action alike, so each session is in order by
itself. Reported like this: Positronic-Robotics/positronic#456, robocurve/inspect-robots#89.
A good tool says: from this episode on, the gripper begins and ends at the other end of its range; a policy would learn both meanings at
once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.data.lerobot import layout
from tests.data_faults.edits_for_blind_faults import COMMANDED, SetFolder
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Mirror the gripper's dimensions within their range over the whole set, in state and action."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    later = data.second_session(rng)
    changed = {name: data.columns[name].copy() for name in (layout.STATE, *COMMANDED) if name in data.columns}
    dims = {name: data.gripper_dims(name) for name in changed}
    moved = [name for name, values in changed.items() for dim in dims[name] if np.ptp(values[:, dim]) > 1e-6]
    if not moved:
        raise NotApplicable("the set has no gripper that moves")
    for name, values in changed.items():
        for dim in dims[name]:
            low, high = data.columns[name][:, dim].min(), data.columns[name][:, dim].max()
            for episode in later:
                values[episode.rows, dim] = low + high - values[episode.rows, dim]
    data.put_columns(changed)
    return (
        f"the gripper's dimensions ({', '.join(f'{n} {d}' for n, d in dims.items() if d)}) are reversed from episode {later[0].number} on"
    )
