"""Which dimension of an action is the gripper: by its name in the embodiment, never by its place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec


def gripper_mask(embodiment: EmbodimentSpec) -> NDArray[np.bool_]:
    """(A,) True where the action dimension is the gripper; nowhere for an arm that has none."""
    return np.array([dim.name == embodiment.gripper_dim for dim in embodiment.action.dims], bool)
