"""Other projects' field names -> the contract's cameras, state and instruction.

A `FieldMap` may be given in a JSON file, one per dialect:

    {"openpi": {"cameras": {"observation/image": "front"}, "state": ["observation/state"], "instruction": ["prompt"]}}

Without one the usual names are tried: a camera's own name or its role, with or without the dialects' prefixes and suffixes. A
contract of one camera, unless it is a wrist camera, also takes the field that these projects give their main image. An image of any
other name belongs to no camera. Two values that say different things of one camera, of the state or of the instruction are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import CameraSpec, PolicyContract
from model_core.spec.conversion import accepted_encodings
from model_core.spec.documents import from_document
from model_core.spec.errors import ContractError, SpecError, require
from model_core.spec.protocol.image_codec import decode_image
from model_core.spec.protocol.wire import EncodedImage
from model_core.spec.types import Observation

DIALECTS = ("openpi", "act", "vla-eval")
STATE_NAMES = ("state", "states", "observation/state", "observation.state", "proprio")
INSTRUCTION_NAMES = ("instruction", "prompt", "task_description", "language_instruction", "task")
_SPELLINGS = ("{}", "{}_cam", "{}_image", "observation/{}", "observation/{}_image", "observation.images.{}", "images/{}")
_MAIN_IMAGE = ("observation/image", "image", "full_image")
_AT_THE_WRIST = ("wrist", "hand", "gripper")
NORM_TAGS = ("unnorm_key", "normalization_tag", "norm_tag")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMap:
    """Names of another project. cameras: theirs -> the contract's; empty: by the usual names."""

    cameras: Mapping[str, str] = field(default_factory=dict)
    state: tuple[str, ...] = STATE_NAMES
    instruction: tuple[str, ...] = INSTRUCTION_NAMES
    norm_tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [*self.cameras, *self.cameras.values(), *self.state, *self.instruction, *self.norm_tags]
        require(all(names), "the name of a field is a text that is not empty")


def read_field_maps(path: Path) -> dict[str, FieldMap]:
    """Field maps by dialect ("openpi", "act", "vla-eval"). Raises SpecError naming what is wrong in the file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path.name}: not a JSON file of field maps ({error})") from error
    require(isinstance(document, dict), f"{path.name}: expected a map from dialects to their fields")
    unknown = sorted(set(document) - set(DIALECTS))
    require(not unknown, f"{path.name}: there are the dialects {', '.join(DIALECTS)}", got=unknown)
    return {name: from_document(FieldMap, given, where=f"{path.name}: {name}") for name, given in document.items()}


def observation_of(values: Mapping[str, Any], contract: PolicyContract, fields: FieldMap) -> Observation:
    """Their decoded fields -> an observation of the contract. Raises ContractError naming what is missing or does not fit.

    values: flat; images as arrays or `EncodedImage`. Shapes are compared by the gateway.
    """
    for name, tag in values.items():
        if name.rpartition("/")[2] in NORM_TAGS:
            _check_norm_tag(tag, contract, fields)
    given = {name: value for name, value in values.items() if _is_image(value)}
    images = {camera.name: _image_of(given, camera, contract.embodiment.cameras, fields) for camera in contract.embodiment.cameras}
    return Observation(images=images, proprio_P=_state(values, contract, fields), instruction=_instruction(values, fields))


def _check_norm_tag(tag: Any, contract: PolicyContract, fields: FieldMap) -> None:
    """Whether statistics that a client names are the contract's. Raises ContractError: a wrong scale is a wrong motion."""
    if tag is None or (isinstance(tag, str) and not tag):  # an array has no truth value
        return
    known = (contract.embodiment.name, contract.stats_digest, *fields.norm_tags)
    if not isinstance(tag, str) or tag not in known:
        raise ContractError(f"normalisation {str(tag)[:60]!r} is not this policy's; it has one: {contract.embodiment.name!r}")


def _is_image(value: Any) -> bool:
    return isinstance(value, EncodedImage) or (isinstance(value, np.ndarray) and value.ndim == 3)


def _names_of(spec: CameraSpec, cameras: tuple[CameraSpec, ...]) -> list[str]:
    """What other projects may call the image of this camera: by its name, by a role that no other camera has or is named after."""
    parts = [spec.name]
    if spec.role and not any(spec.role in (other.name, other.role) for other in cameras if other is not spec):
        parts.append(spec.role)
    named = [spelling.format(part) for part in dict.fromkeys(parts) for spelling in _SPELLINGS]
    is_main = len(cameras) == 1 and not any(word in f"{spec.name} {spec.role}".lower() for word in _AT_THE_WRIST)
    return [*named, *(_MAIN_IMAGE if is_main else ())]


def _image_of(given: Mapping[str, Any], spec: CameraSpec, cameras: tuple[CameraSpec, ...], fields: FieldMap) -> NDArray[np.uint8]:
    ours = [theirs for theirs, name in fields.cameras.items() if name == spec.name] if fields.cameras else _names_of(spec, cameras)
    names = [name for name in dict.fromkeys(ours) if name in given]
    if not names:
        raise ContractError(
            f"camera {spec.name!r}: no image for it among {[name[:40] for name in sorted(given)[:8]]}. Fix: send it as {ours[:1]}, or "
            "name it in a field map"
        )
    images = {name: _pixels(given[name], spec) for name in names}
    _require_one(f"camera {spec.name!r}", images)
    return images[names[0]]


def _pixels(value: Any, spec: CameraSpec) -> NDArray[np.uint8]:
    if isinstance(value, EncodedImage):
        if value.encoding not in accepted_encodings(spec):
            raise ContractError(f"camera {spec.name!r}: {value.encoding} is not one of {', '.join(accepted_encodings(spec))}")
        return _in_order(decode_image(value, max_pixels=spec.width * spec.height), spec.color)
    if value.dtype != np.uint8:
        raise ContractError(f"camera {spec.name!r}: expected uint8 pixels, got {value.dtype}")
    return _in_order(value, spec.color)


def _require_one(what: str, found: Mapping[str, Any]) -> None:
    """Several names for one thing are fine while they say the same."""
    first, *others = found
    unlike = [name for name in others if not np.array_equal(found[first], found[name])]
    if unlike:
        raise ContractError(f"{what}: {first!r} and {unlike[0]!r} say different things of it. Fix: send one, or name one in a field map")


def _in_order(rgb_HW3: NDArray[np.uint8], color: str) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rgb_HW3[..., ::-1]) if color == "bgr" else rgb_HW3  # all dialects send RGB


def _state(values: Mapping[str, Any], contract: PolicyContract, fields: FieldMap) -> NDArray[np.float32]:
    wanted = len(contract.embodiment.proprio)
    states = {name: _vector(name, values[name], wanted) for name in fields.state if name in values}
    if not states:
        raise ContractError(f"state: none of {', '.join(fields.state)} is there; the contract has {wanted} values")
    _require_one("state", {name: state.tobytes() for name, state in states.items()})  # bytes: NaN is refused later, as itself
    return next(iter(states.values()))


def _vector(name: str, value: Any, wanted: int) -> NDArray[np.float32]:
    try:
        given = np.asarray(value)
        if given.dtype.kind not in "fiu":  # neither texts that look like numbers nor truth values
            raise TypeError(given.dtype)  # noqa: TRY301
        with np.errstate(over="ignore"):  # what is too large for float32 becomes inf, and is refused as such
            state = given.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ContractError(f"state: {name!r} is not a vector of numbers") from error
    if state.shape != (wanted,):
        raise ContractError(f"state: expected {wanted} values in {name!r}, got shape {state.shape}")
    return state


def _instruction(values: Mapping[str, Any], fields: FieldMap) -> str:
    found = {name: values[name] for name in fields.instruction if name in values}
    if not found or not all(isinstance(text, str) for text in found.values()):
        raise ContractError(f"instruction: expected text in one of {', '.join(fields.instruction)}")
    _require_one("instruction", found)
    return str(next(iter(found.values())))
