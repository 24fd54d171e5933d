"""An `EmbodimentSpec` as the document of an embodiment file: the inverse of `EmbodimentDocument.spec`."""

from __future__ import annotations

from typing import Any

from components.data.embodiments.document import FORMAT, RATES
from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec
from model_core.spec.documents import Number
from model_core.spec.errors import SpecError


def document_of_spec(body: EmbodimentSpec) -> dict[str, Any]:
    """The document without note and signature. Raises `SpecError` for a gripper whose values of closure and opening are not stated."""
    return {
        "format": FORMAT,
        "name": body.name,
        "control_hz": body.control_hz,
        "cameras": [_camera(camera) for camera in body.cameras],
        "proprio": {"dims": [_dim(dim) for dim in body.proprio.dims]},
        "action": _action(body.action, body.hold, body.gripper_dim),
        "gripper": _gripper(body),
        "rotation": body.rotation,
    }


def _camera(camera: CameraSpec) -> dict[str, Any]:
    names = ("name", "width", "height", "role", "color", "max_age_ms")
    return {name: getattr(camera, name) for name in names}


def _dim(dim: DimSpec) -> dict[str, Any]:
    names = ("name", "unit", "frame", "low", "high", "soft_low", "soft_high", "source", "mode")
    return {name: value for name in names if (value := getattr(dim, name)) is not None and not (name in ("source", "mode") and not value)}


def _action(vector: VectorSpec, hold: tuple[Number | None, ...], gripper: str) -> dict[str, Any]:
    dims: list[dict[str, Any]] = []
    for dim, mode, value in zip(vector.dims, vector.modes, hold, strict=True):
        # a file leaves out what follows from the mode: 0 keeps a robot still that is moved by steps or speeds
        follows = dim.name != gripper and value == (0 if mode in RATES else None)
        dims.append(_dim(dim) if follows or value is None else _dim(dim) | {"hold": value})
    return ({"mode": vector.mode} if vector.mode else {}) | {"dims": dims}


def _gripper(body: EmbodimentSpec) -> dict[str, Any]:
    if not body.gripper_dim:
        return {"dim": ""}
    if body.gripper_range is None:
        raise SpecError(
            f"embodiment {body.name!r} does not say which values close and open {body.gripper_dim!r} fully, which an embodiment file must. "
            "Fix: name a file that does, with --embodiment"
        )
    told = {"dim": body.gripper_dim, "values": sorted(body.gripper_range), "open": body.gripper_open}
    return told if body.gripper_threshold is None else told | {"threshold": body.gripper_threshold}
