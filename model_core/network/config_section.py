"""One section of a `config.json` (vision, adapter, decoder): read with what it does not know kept, written as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, ClassVar, Protocol, TypeVar

from model_core.spec.documents import from_document
from model_core.spec.errors import SpecError


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


_Section = TypeVar("_Section", bound=_Dataclass)
_OURS = {
    "patch_stem": "linear",
    "stem_channels": (),
    "further_input_sizes": (),
    "pool_residual": False,
    "num_slots": 0,
    "use_rope": True,
    "image_padding_embed": None,
}


def section_to_json(section: Any) -> dict[str, Any]:
    """A section as published; fields of ours appear only where they differ from "as published"."""
    out: dict[str, Any] = dict(section.extras)
    for entry in fields(section):
        value = getattr(section, entry.name)
        if entry.name == "extras" or (entry.name in _OURS and value == _OURS[entry.name]):
            continue
        out[entry.name] = list(value) if isinstance(value, tuple) else value
    return out


def section_from_json(kind: type[_Section], data: Mapping[str, Any], section: str) -> _Section:
    """The section `section` of a parsed `config.json` as `kind`; unknown fields become its extras. Raises `SpecError`."""
    given, known = data[section], {entry.name for entry in fields(kind)} - {"extras"}
    if not isinstance(given, Mapping):
        raise SpecError(f"{section}: expected a mapping, got {given!r}")
    values = {key: value for key, value in given.items() if key in known}
    return from_document(kind, {**values, "extras": {key: value for key, value in given.items() if key not in known}}, where=section)
