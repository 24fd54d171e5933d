"""meta/info.json, read and checked: version, rate, counts, path templates and features. Nothing in it that matters is read past."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.data.lerobot import layout
from components.data.lerobot.tables import read_json
from model_core.spec.errors import DatasetError

READ_VERSIONS = (*layout.ONE_FILE_AN_EPISODE, layout.CODEBASE_VERSION)
_CONVERT_OLDER = "bring a copy to v2.1 with the LeRobot release of that version, and name the folder it makes"


def read_info(root: Path) -> Mapping[str, Any]:
    """The checked document. Raises `DatasetError` naming the field that is missing or wrong, or the version that this cannot read."""
    info = read_json(root / layout.INFO)
    _check_version(root, info.get("codebase_version"))
    fps = info.get("fps")
    if not isinstance(fps, int | float) or isinstance(fps, bool) or not math.isfinite(fps) or fps <= 0:
        raise _wrong(root, "fps", "a number of frames a second above 0", fps)
    for name in ("total_episodes", "total_frames"):
        if not isinstance(info.get(name), int) or info[name] < 0:
            raise _wrong(root, name, "a whole number", info.get(name))
    features = info.get("features")
    if not isinstance(features, dict) or not all(isinstance(f, dict) and isinstance(f.get("dtype"), str) for f in features.values()):
        raise _wrong(root, "features", "a table of features, each with its dtype", features)
    _check_chunks(root, info)
    _check_path(root, info, "data_path", {})
    if any(is_film(feature) for feature in features.values()):
        _check_path(root, info, "video_path", {"video_key": "k"})
    return info


def is_camera(feature: Mapping[str, Any]) -> bool:
    """Whether a feature holds colour images, as a film or one by one. Depth is no camera: its grey values are distances."""
    described = feature.get("info") or feature.get("video_info") or {}
    is_depth = feature.get("is_depth_map") or described.get("video.is_depth_map") or described.get("is_depth_map")
    return feature["dtype"] in ("video", "image") and not is_depth


def is_film(feature: Mapping[str, Any]) -> bool:
    """Whether a feature is a camera whose images are in mp4 files."""
    return is_camera(feature) and feature["dtype"] == "video"


def picture_size(feature: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) that a camera's feature states, by the names of its axes; None where it states none."""
    shape, names = feature.get("shape"), feature.get("names")
    if not isinstance(shape, Sequence) or len(shape) != 3:
        return None
    if isinstance(names, Sequence) and "height" in names and "width" in names:
        return int(shape[names.index("height")]), int(shape[names.index("width")])
    # without names: channels come first where only the first axis can be one
    first = shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4)
    return (int(shape[1]), int(shape[2])) if first else (int(shape[0]), int(shape[1]))


def width_of(feature: Mapping[str, Any]) -> int | None:
    """How many numbers a step of this feature has, where it states that."""
    shape = feature.get("shape")
    return math.prod(int(n) for n in shape) if isinstance(shape, Sequence) and shape else None


def names_of(feature: Mapping[str, Any]) -> list[str]:
    """Names of a feature's dimensions in the forms that LeRobot has had: a list, {"motors": [...]}, {name: place}; empty for none."""
    stated: object = feature.get("names")
    if isinstance(stated, Mapping):
        if all(isinstance(place, int) for place in stated.values()):
            return [str(name) for name, _ in sorted(stated.items(), key=lambda item: item[1])]
        stated = [name for part in stated.values() for name in (part if isinstance(part, list | tuple) else [part])]
    return [str(name) for name in stated] if isinstance(stated, list | tuple) else []


def _check_version(root: Path, version: object) -> None:
    if version is None:
        raise DatasetError(
            f"{root.name}/{layout.INFO} names no codebase_version, expected one of {', '.join(READ_VERSIONS)}; its layout cannot be known. "
            "Fix: export the data set again with a LeRobot release that writes the version"
        )
    if version not in READ_VERSIONS:
        todo = _CONVERT_OLDER if str(version).startswith("v1") else f"export it as {layout.CODEBASE_VERSION}, or use a newer Actwright"
        raise DatasetError(f"{root.name} is a LeRobot {version} data set, expected one of {', '.join(READ_VERSIONS)}. Fix: {todo}")
    has_lines, has_tables = (root / layout.EPISODE_LINES).exists(), (root / "meta" / "episodes").is_dir()
    if version == layout.CODEBASE_VERSION and has_lines and not has_tables:
        raise DatasetError(
            f"{root.name} says that it is a LeRobot {version} data set, but its files are those of v2 ({layout.EPISODE_LINES}). "
            f"Fix: set codebase_version in {layout.INFO} back to v2.1"
        )
    if version != layout.CODEBASE_VERSION and has_tables and not has_lines:
        raise DatasetError(
            f"{root.name} says that it is a LeRobot {version} data set, but its files are those of {layout.CODEBASE_VERSION} "
            f"(meta/episodes). Fix: set codebase_version in {layout.INFO} to {layout.CODEBASE_VERSION}"
        )


def _check_chunks(root: Path, info: Mapping[str, Any]) -> None:
    """In versions 2.0 and 2.1 the folder of an episode follows from its number and the size of a chunk."""
    size = info.get("chunks_size")
    if layout.is_one_file_an_episode(info) and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise _wrong(root, "chunks_size", "a whole number of at least 1", size)


def _check_path(root: Path, info: Mapping[str, Any], name: str, keys: Mapping[str, str]) -> None:
    words = ("episode_chunk", "episode_index") if layout.is_one_file_an_episode(info) else ("chunk_index", "file_index")
    expected = ", ".join((*words, *keys))
    try:
        layout.file_path(info, name, 0, 0, **keys)
    except (KeyError, IndexError, ValueError) as error:
        raise _wrong(root, name, f"a path made of {expected}", info.get(name)) from error
    if info[name] is None:
        raise _wrong(root, name, "a path", None)


def _wrong(root: Path, name: str, expected: str, got: object) -> DatasetError:
    said = "nothing" if got is None else repr(got)
    return DatasetError(
        f"{root.name}/{layout.INFO}: {name} must be {expected}, got {said[:200]}. Fix: correct it, or export the data set again"
    )
