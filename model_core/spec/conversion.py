"""What may differ between a policy and a cell without loss, found at the handshake and applied to every message.

The whole list: order of cameras, a camera's name where its role says which it is, rgb for bgr, metres for milli- or
centimetres and radians for degrees, and an image's encoding where the contract takes it. Any other difference is a
refusal that names its field. Pure: no sockets, no clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, Mismatch, PolicyContract, VectorSpec, mismatches
from model_core.spec.errors import ContractError
from model_core.spec.types import Observation

KINDS = ("camera order", "camera rename", "channel order", "unit scale", "image encoding")
_MEANINGS = ("camera rename", "channel order", "unit scale")
_SCALES = ({"m": 1.0, "cm": 1e-2, "mm": 1e-3}, {"rad": 1.0, "deg": math.pi / 180})


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """One difference that is converted: `offered` as the cell says it, `made_for` as the policy takes it.

    kind: one of `KINDS`. factor, dim: of a unit scale; the policy's number is factor times the cell's, in dimension `dim` of
    `vector` ("proprio" or "action"). camera: the policy's name of the camera, for the kinds that are of one camera.
    """

    kind: str
    field: str
    offered: object
    made_for: object
    camera: str = ""
    vector: str = ""
    dim: int = 0
    factor: float = 1.0

    def explain(self) -> str:
        """A sentence for READY."""
        return f"{self.kind}: {self.field}: {self.offered!r} of the cell is converted to {self.made_for!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came of a handshake: `refusals` (any: nothing may move) and `conversions` that must be applied."""

    refusals: tuple[Mismatch, ...]
    conversions: tuple[Conversion, ...]


def compare(made: PolicyContract | EmbodimentSpec, offered: EmbodimentSpec) -> Comparison:
    """Compare a cell's body with the one that the policy was made for, field by field."""
    body, tolerance = (made.embodiment, made.hz_tolerance) if isinstance(made, PolicyContract) else (made, 0.0)
    cameras, of_cameras = _cameras(body.cameras, offered.cameras)
    proprio, of_proprio = _vector("proprio", body.proprio, offered.proprio)
    action, of_action = _vector("action", body.action, offered.action)
    seen = _rescaled(replace(offered, cameras=cameras, proprio=proprio, action=action), of_action, body)
    if abs(offered.control_hz - body.control_hz) <= tolerance:
        seen = replace(seen, control_hz=body.control_hz)
    return Comparison(refusals=tuple(mismatches(body, seen)), conversions=(*of_cameras, *of_proprio, *of_action))


def unagreed(made: PolicyContract | EmbodimentSpec, offered: EmbodimentSpec, announced: Sequence[str]) -> list[str]:
    """Conversions that change what a number or image means and on which the two sides do not agree, as sentences.

    announced: what the service converts, as its READY lists it. A service that does not convert what this body needs, or converts
    what it does not need, would move it by other numbers than were meant.
    """
    ours = {c.explain()[:1000] for c in compare(made, offered).conversions if c.kind in _MEANINGS}
    theirs = {text for text in announced if text.startswith(_MEANINGS)}
    return [f"needed, and not announced by the service: {text}" for text in sorted(ours - theirs)] + [
        f"announced by the service, and not needed: {text}" for text in sorted(theirs - ours)
    ]


def convert_observation(conversions: Sequence[Conversion], observation: Observation, body: EmbodimentSpec) -> Observation:
    """An observation of the cell as the policy takes it. Images are shared where they stay as they are.

    body: the policy's. Cameras that the policy does not have stay, at the end: the gateway names and refuses them.
    """
    if not conversions:
        return observation
    names = camera_names(conversions)
    swapped = {c.camera for c in conversions if c.kind == "channel order"}
    images = {names.get(name, name): image for name, image in observation.images.items()}
    images = {name: np.ascontiguousarray(image[..., ::-1]) if name in swapped else image for name, image in images.items()}
    order = {camera.name: place for place, camera in enumerate(body.cameras)}
    images = dict(sorted(images.items(), key=lambda item: order.get(item[0], len(order))))
    return replace(observation, images=images, proprio_P=_scaled(conversions, "proprio", observation.proprio_P, inverse=False))


def convert_actions(conversions: Sequence[Conversion], actions_KA: NDArray[np.float32]) -> NDArray[np.float32]:
    """Actions of the policy (K, A) in the units of the cell."""
    return _scaled(conversions, "action", actions_KA, inverse=True)


def convert_committed(conversions: Sequence[Conversion], actions_DA: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows that a cell has committed (D, A) in the units of the policy: the inverse of `convert_actions`."""
    return _scaled(conversions, "action", actions_DA, inverse=False)


def camera_names(conversions: Sequence[Conversion]) -> dict[str, str]:
    """The cell's name of every renamed camera -> the policy's; also for ages and for what steering was drawn on."""
    return {str(c.offered): c.camera for c in conversions if c.kind == "camera rename"}


def _scaled(conversions: Sequence[Conversion], vector: str, values: NDArray[np.float32], *, inverse: bool) -> NDArray[np.float32]:
    scales = [c for c in conversions if c.kind == "unit scale" and c.vector == vector]
    if not scales:
        return values
    if any(c.dim >= values.shape[-1] for c in scales):
        raise ContractError(f"{vector} has {values.shape[-1]} values, fewer than the contract names")
    factors = np.ones(values.shape[-1])
    for scale in scales:
        factors[scale.dim] = 1.0 / scale.factor if inverse else scale.factor
    return (values * factors).astype(np.float32)


def _cameras(made: tuple[CameraSpec, ...], offered: tuple[CameraSpec, ...]) -> tuple[tuple[CameraSpec, ...], list[Conversion]]:
    """The cell's cameras in the policy's words and order, as far as they can be distinguished."""
    found = [_match(camera, made, offered) for camera in made]
    if None in found or len(made) != len(offered):
        return offered, []
    matched = [camera for camera in found if camera is not None]
    conversions: list[Conversion] = []
    if [c.name for c in matched] != [c.name for c in offered]:
        conversions.append(
            Conversion(
                kind="camera order", field="cameras", offered=tuple(c.name for c in offered), made_for=tuple(c.name for c in matched)
            )
        )
    seen: list[CameraSpec] = []
    for place, (ours, theirs) in enumerate(zip(made, matched, strict=True)):
        changed, found_here = _camera(f"cameras[{place}]", ours, theirs)
        seen.append(changed)
        conversions += found_here
    return tuple(seen), conversions


def _match(camera: CameraSpec, made: tuple[CameraSpec, ...], offered: tuple[CameraSpec, ...]) -> CameraSpec | None:
    by_name = [c for c in offered if c.name == camera.name]
    if by_name:
        return by_name[0]
    taken = {c.name for c in made}
    by_role = [c for c in offered if camera.role and c.role == camera.role and c.name not in taken]
    is_only_one = len(by_role) == 1 and sum(c.role == camera.role for c in made) == 1
    return by_role[0] if is_only_one else None


def _camera(path: str, made: CameraSpec, offered: CameraSpec) -> tuple[CameraSpec, list[Conversion]]:
    conversions: list[Conversion] = []
    if offered.name != made.name:
        conversions.append(
            Conversion(kind="camera rename", field=f"{path}.name", offered=offered.name, made_for=made.name, camera=made.name)
        )
    if offered.color != made.color:
        conversions.append(
            Conversion(kind="channel order", field=f"{path}.color", offered=offered.color, made_for=made.color, camera=made.name)
        )
    seen = replace(offered, name=made.name, color=made.color)
    usable = [e for e in offered.encodings if e in accepted_encodings(made)]
    if offered.encodings != made.encodings and usable:
        conversions.append(
            Conversion(kind="image encoding", field=f"{path}.encodings", offered=tuple(usable), made_for=made.encodings, camera=made.name)
        )
        seen = replace(seen, encodings=made.encodings)
    return seen, conversions


def accepted_encodings(camera: CameraSpec) -> tuple[str, ...]:
    """What a service takes for this camera: what the contract names, and PNG wherever raw pixels are taken."""
    is_extra = "raw" in camera.encodings and "png" not in camera.encodings
    return (*camera.encodings, "png") if is_extra else camera.encodings


def _vector(name: str, made: VectorSpec, offered: VectorSpec) -> tuple[VectorSpec, list[Conversion]]:
    """The cell's vector in the policy's units, where only the scale differs; one way of stating a mode is as good as another."""
    if len(made) != len(offered):
        return offered, []
    dims: list[DimSpec] = []
    conversions: list[Conversion] = []
    for place, (ours, theirs) in enumerate(zip(made.dims, offered.dims, strict=True)):
        if ours.mode != theirs.mode and made.modes[place] == offered.modes[place]:
            theirs = replace(theirs, mode=ours.mode)
        factor = _factor(theirs.unit, ours.unit)
        if factor is not None:
            field = f"{name}.dims[{place}].unit"
            conversions.append(
                Conversion(kind="unit scale", field=field, offered=theirs.unit, made_for=ours.unit, vector=name, dim=place, factor=factor)
            )
            theirs = _in_unit(theirs, ours, factor)
        dims.append(theirs)
    return replace(offered, dims=tuple(dims)), conversions


def unit_factor(offered: str, made: str) -> float | None:
    """By what a number in unit `offered` is multiplied to be one in `made`: 1 for the same unit, None where there is no such factor."""
    return 1.0 if offered == made else _factor(offered, made)


def _factor(offered: str, made: str) -> float | None:
    for scales in _SCALES:
        if offered != made and offered in scales and made in scales:
            return scales[offered] / scales[made]
    return None


def _in_unit(offered: DimSpec, made: DimSpec, factor: float) -> DimSpec:
    def scaled(value: float | None, wanted: float | None) -> float | None:
        return None if value is None else _close(value * factor, wanted)

    low, high = _close(offered.low * factor, made.low), _close(offered.high * factor, made.high)
    soft = {"soft_low": scaled(offered.soft_low, made.soft_low), "soft_high": scaled(offered.soft_high, made.soft_high)}
    return replace(offered, unit=made.unit, low=low, high=high, **soft)


def _rescaled(seen: EmbodimentSpec, conversions: Sequence[Conversion], made: EmbodimentSpec) -> EmbodimentSpec:
    """The numbers of a body that are in units of its action: hold, and the gripper's polarity, range and threshold."""
    factors = {c.dim: c.factor for c in conversions}
    if not factors or len(seen.hold) != len(made.hold):
        return seen
    hold = tuple(
        _close(value * factors[i], made.hold[i]) if value is not None and i in factors else value for i, value in enumerate(seen.hold)
    )
    names = [d.name for d in seen.action.dims]
    factor = factors.get(names.index(seen.gripper_dim)) if seen.gripper_dim in names else None
    if factor is None:
        return replace(seen, hold=hold)
    span, wanted = seen.gripper_range, made.gripper_range or (None, None)
    return replace(
        seen,
        hold=hold,
        gripper_open=_close(seen.gripper_open * factor, made.gripper_open),
        gripper_range=None if span is None else (_close(span[0] * factor, wanted[0]), _close(span[1] * factor, wanted[1])),
        gripper_threshold=None if seen.gripper_threshold is None else _close(seen.gripper_threshold * factor, made.gripper_threshold),
    )


def _close(value: float, wanted: float | None) -> float:
    """`wanted` where a scaled value equals it but for rounding."""
    return wanted if wanted is not None and math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-12) else value
