"""An encoder passes its zero: in some episodes one dimension of the state jumps by a whole turn and back, the command goes on smoothly.

A servo of a joint (or the motor of a linear axis) was put on its horn one tooth further, so its zero now lies inside the way that it
goes. The reading above it begins again from the other end. Reported like this: huggingface/lerobot#3587, huggingface/lerobot#3373.
A good tool says: in these episodes this dimension of the state jumps by one turn between two frames, which no robot can do.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from components.data.lerobot import layout
from tests.data_faults.edits_for_blind_faults import SetFolder
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Take one turn off every reading above a level that a third of the episodes pass."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    if layout.STATE not in data.columns:
        raise NotApplicable("the set has no state")
    state, names = data.columns[layout.STATE].copy(), data.names(layout.STATE)
    dims = data.arm_dims(layout.STATE)
    linear = [dim for dim in dims if re.search(r"(^|[._ ])[xyz]$", names[dim])]
    joints = [dim for dim in dims if dim not in linear] or linear
    if not joints:
        raise NotApplicable("no dimension of the state moves")
    dim = joints[int(rng.integers(len(joints)))]
    turn = _turn(float(np.abs(state[:, dim]).max()), is_linear=dim in linear)
    moving = [episode for episode in data.episodes if np.ptp(state[episode.rows, dim]) > 0]
    chosen = sorted(rng.permutation(len(moving))[: max(1, len(moving) // 3)].tolist())
    for place in chosen:
        values = state[moving[place].rows, dim]
        level = values.min() + 0.6 * np.ptp(values)
        state[moving[place].rows, dim] = np.where(values > level, values - turn, values)
    data.put_columns({layout.STATE: state})
    numbers = [moving[place].number for place in chosen]
    return f"dimension {dim} of {layout.STATE} ({names[dim]}) wraps around by {turn:g} in episodes {numbers}"


def _turn(largest: float, *, is_linear: bool) -> float:
    """What one turn of the encoder is in the unit of the values: radians, degrees or ticks of a joint; metres or millimetres of an axis."""
    if is_linear:
        return 0.5 if largest < 10 else 500.0
    return next((size for size, most in ((2 * np.pi, 7.0), (360.0, 400.0)) if largest <= most), 4096.0)
