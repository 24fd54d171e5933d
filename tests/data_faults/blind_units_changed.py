"""From some episode on, the robot reports and takes another unit: degrees instead of radians, or millimetres instead of metres.

The driver of the robot was updated between two sessions, and its new release changed the default unit. Nobody converted the older
episodes. The gripper has a unit of its own and stays as it is. Reported like this: huggingface/lerobot#2968, strands-labs/robots#693.
A good tool says: from this episode on, these dimensions are larger or smaller by one constant factor, and which change of unit that is.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from components.data.lerobot import layout
from tests.data_faults.edits_for_blind_faults import COMMANDED, SetFolder
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Multiply every dimension of the state but the gripper's, and the dimension of the action that commands it."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    later = data.second_session(rng)
    if layout.STATE not in data.columns:
        raise NotApplicable("the set has no state")
    changed = {name: data.columns[name].copy() for name in (layout.STATE, *COMMANDED) if name in data.columns}
    state, names = data.columns[layout.STATE], data.names(layout.STATE)
    dims = data.arm_dims(layout.STATE)
    if not dims:
        raise NotApplicable("no dimension of the state moves")
    factors = {dim: _factor(names[dim], float(np.abs(state[:, dim]).max())) for dim in dims}
    for episode in later:
        for dim, factor in factors.items():
            changed[layout.STATE][episode.rows, dim] *= factor
            if (command := data.command_of(dim) if layout.ACTION in changed else None) is not None:
                for name in set(COMMANDED) & set(changed):
                    changed[name][episode.rows, command] *= factor
    data.put_columns(changed)
    said = ", ".join(f"{names[dim]} x {factor:.4g}" for dim, factor in factors.items())
    return f"the unit changes from episode {later[0].number} on: {said}"


def _factor(name: str, largest: float) -> float:
    if re.search(r"(^|[._ ])[xyz]$", name):
        return 1000.0 if largest < 10 else 0.001
    return 180 / math.pi if largest <= 7 else math.pi / 180
