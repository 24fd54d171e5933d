"""Other projects' field names -> the contract's cameras, state and instruction.

A `FieldMap` may be given in a JSON file, one per dialect:

    {"openpi": {"cameras": {"observation/image": "front"}, "state": ["observation/state"], "instruction": ["prompt"]}}

Without one the usual names are tried: a camera's own name, with or without the dialects' prefixes and suffixes; a contract
of one camera takes the only image that is there. Two images for one camera are ambiguous, and refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import PolicyContract
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
_WHOLE_IMAGE = ("observation/image", "image", "full_image")


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
    given = {name: value for name, value in values.items() if _is_image(value)}
    images = {camera.name: _image_of(given, camera.name, contract, fields) for camera in contract.embodiment.cameras}
    return Observation(images=images, proprio_P=_state(values, contract, fields), instruction=_instruction(values, fields))


def check_norm_tag(tag: Any, contract: PolicyContract, fields: FieldMap) -> None:
    """Whether statistics that a client names are the contract's. Raises ContractError: a wrong scale is a wrong motion."""
    if tag is None or (isinstance(tag, str) and not tag):  # an array has no truth value
        return
    known = (contract.embodiment.name, contract.stats_digest, *fields.norm_tags)
    if not isinstance(tag, str) or tag not in known:
        raise ContractError(f"normalisation {str(tag)[:60]!r} is not this policy's; it has one: {contract.embodiment.name!r}")


def _is_image(value: Any) -> bool:
    return isinstance(value, EncodedImage) or (isinstance(value, np.ndarray) and value.ndim == 3)


def _image_of(given: Mapping[str, Any], camera: str, contract: PolicyContract, fields: FieldMap) -> NDArray[np.uint8]:
    spec = next(c for c in contract.embodiment.cameras if c.name == camera)
    if fields.cameras:
        names = [theirs for theirs, ours in fields.cameras.items() if ours == camera and theirs in given]
    else:
        names = [n for n in (s.format(part) for part in (camera, spec.role) if part for s in _SPELLINGS) if n in given]
        if not names and len(contract.embodiment.cameras) == 1:
            whole = [n for n in _WHOLE_IMAGE if n in given]
            names = whole or (list(given) if len(given) == 1 else [])
    if not names:
        raise ContractError(f"camera {camera!r}: no image for it among {sorted(given)[:8]}; name it so, or use a field map")
    value = given[names[0]]
    if isinstance(value, EncodedImage):
        if value.encoding not in accepted_encodings(spec):
            raise ContractError(f"camera {camera!r}: {value.encoding} is not one of {', '.join(accepted_encodings(spec))}")
        return _in_order(decode_image(value, max_pixels=spec.width * spec.height), spec.color)
    if value.dtype != np.uint8:
        raise ContractError(f"camera {camera!r}: expected uint8 pixels, got {value.dtype}")
    return _in_order(value, spec.color)


def _in_order(rgb_HW3: NDArray[np.uint8], color: str) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rgb_HW3[..., ::-1]) if color == "bgr" else rgb_HW3  # all dialects send RGB


def _state(values: Mapping[str, Any], contract: PolicyContract, fields: FieldMap) -> NDArray[np.float32]:
    wanted = len(contract.embodiment.proprio)
    names = [name for name in fields.state if name in values]
    if not names:
        raise ContractError(f"state: none of {', '.join(fields.state)} is there; the contract has {wanted} values")
    try:
        with np.errstate(over="ignore"):  # what is too large for float32 becomes inf, and is refused as such
            state = np.asarray(values[names[0]], np.float32)
    except (TypeError, ValueError) as error:
        raise ContractError(f"state: {names[0]!r} is not a vector of numbers") from error
    if state.shape != (wanted,):
        raise ContractError(f"state: expected {wanted} values, got shape {state.shape}")
    return state


def _instruction(values: Mapping[str, Any], fields: FieldMap) -> str:
    found = [values[name] for name in fields.instruction if name in values]
    if not found or not isinstance(found[0], str):
        raise ContractError(f"instruction: expected text in one of {', '.join(fields.instruction)}")
    return found[0]
