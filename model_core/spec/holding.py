"""What holding still means for a body. Evaluation and workcells run these very lines, as they do `chunking`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.errors import require


def hold_action(embodiment: EmbodimentSpec, last_action_A: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The action (A,) that keeps this body where it is, inside its limits.

    Where `embodiment.hold` is None the last action is repeated. Before there was one, the gripper is told to open and a delta
    or velocity of 0 moves nothing; an absolute target of 0 would be a place, so for that `SpecError` is raised.
    """
    spec = embodiment.action
    held_A = np.zeros(len(spec), np.float32)
    for place, (dim, value) in enumerate(zip(spec.dims, embodiment.hold, strict=True)):
        if value is not None:
            held_A[place] = value
        elif last_action_A is not None:
            held_A[place] = last_action_A[place]
        elif dim.name == embodiment.gripper_dim:
            held_A[place] = embodiment.gripper_open
        else:
            require(
                spec.mode != "absolute",
                f"body {embodiment.name!r} names no action that holds {dim.name!r} and has executed none yet; declare one in `hold`",
            )
    return np.clip(held_A, spec.low, spec.high)
