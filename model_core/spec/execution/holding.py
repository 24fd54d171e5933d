"""What holding still means for a body. Evaluation and workcells run these very lines, as they do `chunking`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.errors import require

POSES = ("absolute", "relative")  # modes whose number is a place to be at
RATES = ("delta", "velocity")  # modes whose number is a change


def measured_by(embodiment: EmbodimentSpec) -> tuple[int | None, ...]:
    """For every action dimension the proprio dimension (its place) that measures the same quantity; None where there is none.

    The same quantity is the one that `source` of the action dimension names, else the one of the same name; unit and frame
    must agree.
    """
    places = {dim.name: place for place, dim in enumerate(embodiment.proprio.dims)}
    found: list[int | None] = []
    for dim in embodiment.action.dims:
        place = places.get(dim.source or dim.name)
        if place is not None:
            measured = embodiment.proprio.dims[place]
            place = place if (measured.unit, measured.frame) == (dim.unit, dim.frame) else None
        found.append(place)
    return tuple(found)


def hold_action(
    embodiment: EmbodimentSpec, last_action_A: NDArray[np.float32] | None, proprio_P: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The action (A,) that keeps this body where it is, inside its limits.

    A dimension that `embodiment.hold` names gets that value. Otherwise: the gripper keeps its last command (none yet: what it is
    measured to be, so that it drops nothing; where nothing measures it, it is commanded to open); a delta or velocity is 0, which
    moves nothing; a pose (absolute, relative) is the measured one where `proprio_P` (P,) measures it, else the last command. A
    pose that is neither measured nor commanded raises `SpecError`: a target of 0 would be a place.

    Call it once when holding begins and repeat its result: following the measured pose would let a sagging arm sink.
    """
    spec = embodiment.action
    held_A = np.zeros(len(spec), np.float32)
    modes, places = spec.modes, measured_by(embodiment)
    for index, (dim, value) in enumerate(zip(spec.dims, embodiment.hold, strict=True)):
        place = places[index]
        if value is not None:
            held_A[index] = value
        elif dim.name != embodiment.gripper_dim and modes[index] in POSES and place is not None and proprio_P is not None:
            held_A[index] = proprio_P[place]
        elif dim.name != embodiment.gripper_dim and modes[index] in RATES:
            held_A[index] = 0.0
        elif last_action_A is not None:
            held_A[index] = last_action_A[index]
        elif dim.name == embodiment.gripper_dim:
            is_seen = place is not None and proprio_P is not None and modes[index] not in RATES
            held_A[index] = proprio_P[place] if is_seen and place is not None and proprio_P is not None else embodiment.gripper_open
        else:
            require(
                modes[index] not in POSES,  # a body that does not say how it is moved is moved by rates, as it always was
                f"body {embodiment.name!r} names no action that holds {dim.name!r}, does not measure it and has executed none yet; "
                "declare one in `hold`, or a proprio dimension of the same name, unit and frame",
            )
    bounded = np.array([mode != "relative" for mode in modes])  # limits of a relative number are those of the offset
    return np.where(bounded, np.clip(held_A, spec.low, spec.high), held_A).astype(np.float32)
