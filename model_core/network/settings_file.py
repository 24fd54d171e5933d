"""Read a published settings file (`config.json`, `preprocessor_config.json`) as a JSON object, or say what is there instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_core.spec.errors import CheckpointError


def read_settings(source: Mapping[str, Any] | str | Path, file_name: str, what: str = "config") -> Mapping[str, Any]:
    """A parsed object as it is, the text of one, or the file (or the folder that holds `file_name`) at a `Path`. `what` it is, for errors.

    Raises `CheckpointError` when the file is missing, is not JSON, or holds no object.
    """
    if isinstance(source, Mapping):
        return source
    place = f"the given {what}"
    if isinstance(source, Path):
        path = source / file_name if source.is_dir() else source
        place = str(path)
        if not path.is_file():
            raise CheckpointError(f"no {what} at {path}; expected the published {file_name}")
        source = path.read_text(encoding="utf-8")
    try:
        data = json.loads(source)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{place} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{place} must hold a JSON object, got {type(data).__name__}")
    return data
