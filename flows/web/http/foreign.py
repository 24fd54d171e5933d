"""What another service answered, read as a document of ours; fields that only it knows are passed over."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from model_core.spec.errors import NotReady

T = TypeVar("T")


def read_foreign(found: Any, kind: type[T], *, who: str, path: str) -> T:
    """`found` as `kind`. Raises `NotReady` where a field that the pages show is missing or of another type."""
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise NotReady(f"{who} answered {path} in another form: {error}. Fix: run it and the console in the same version") from error
