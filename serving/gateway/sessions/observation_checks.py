"""What is wrong with an OBSERVE by the contract alone: a code and a sentence, or None."""

from __future__ import annotations

import numpy as np

from model_core.spec.contract import PolicyContract
from model_core.spec.protocol.wire import Observe
from model_core.spec.types import Observation, RefusalCode


def complaint(observation: Observation, contract: PolicyContract) -> tuple[RefusalCode, str] | None:
    """What is wrong with an observation, by the contract; None when it may be answered."""
    cameras = contract.embodiment.cameras
    if list(observation.images) != [c.name for c in cameras]:
        return RefusalCode.CONTRACT, f"cameras must be {[c.name for c in cameras]} in this order, got {list(observation.images)}"
    for camera in cameras:
        expected, got = (camera.height, camera.width, 3), observation.images[camera.name].shape
        if got != expected:
            return RefusalCode.CONTRACT, f"camera {camera.name!r}: expected {expected} uint8, got {got}; send the raw frame"
    if observation.proprio_P.shape != (len(contract.embodiment.proprio),):
        return RefusalCode.CONTRACT, f"proprio must have {len(contract.embodiment.proprio)} values, got {observation.proprio_P.shape}"
    if not np.isfinite(observation.proprio_P).all():
        return RefusalCode.NONFINITE, "proprio holds NaN or inf"
    unasked = contract.refused_instruction(observation.instruction)
    return (RefusalCode.CONTRACT, unasked) if unasked else None


def too_old(observe: Observe, contract: PolicyContract) -> tuple[RefusalCode, str] | None:
    """Which sensor's reading is older than the contract allows; proprioception is held to the strictest camera's limit."""
    limits_ms = {camera.name: camera.max_age_ms for camera in contract.embodiment.cameras}
    limits_ms["proprio"] = min(limits_ms.values())
    for name, age_ms in observe.age_ms.items():
        if age_ms > limits_ms.get(name, float("inf")):
            what = "the state" if name == "proprio" else f"camera {name!r}: the image"
            return RefusalCode.STALE_OBS, f"{what} is {age_ms:.0f} ms old, at most {limits_ms[name]:.0f} ms are allowed"
    return None


def level_wrong(observe: Observe, contract: PolicyContract) -> tuple[RefusalCode, str] | None:
    """A level that the contract does not have."""
    if observe.level and observe.level not in contract.reasoning.levels:
        return RefusalCode.CONTRACT, f"level {observe.level!r} is not in the contract, which allows {', '.join(contract.reasoning.levels)}"
    return None


def prefix_wrong(observe: Observe, contract: PolicyContract) -> tuple[RefusalCode, str] | None:
    """Prefix actions (committed rows) of another shape, too many, or not finite."""
    rows_DA = observe.committed_DA
    if rows_DA is None:
        return None
    dims = len(contract.embodiment.action)
    if rows_DA.ndim != 2 or rows_DA.shape[1] != dims or len(rows_DA) > contract.max_prefix_rows:
        text = f"committed rows must be (D, {dims}) with D of at most {contract.max_prefix_rows}, got {rows_DA.shape}"
        return RefusalCode.CONTRACT, text
    if not np.isfinite(rows_DA).all():
        return RefusalCode.NONFINITE, "committed rows hold NaN or inf"
    return None
