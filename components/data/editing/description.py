"""What a set is made of besides its episodes: embodiment, control rate, cameras and dimensions; and in which fields two sets differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.data.editing.edited_source import EditedSource
from components.data.lerobot import layout
from components.data.lerobot.meta.info import names_of, width_of
from components.data.lerobot.reader import DatasetReader
from components.data.sources.interface import EpisodeSource
from model_core.spec.contract import EmbodimentSpec, mismatches
from model_core.spec.errors import DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDescription:
    """robot: its name. cameras: name -> (height, width). state, action: names of the dimensions, or "0", "1", ... where none are stated.

    embodiment: the whole description; None where the set has none and only its columns are known.
    """

    robot: str
    control_hz: float
    cameras: Mapping[str, tuple[int, int] | None]
    state: tuple[str, ...]
    action: tuple[str, ...]
    embodiment: EmbodimentSpec | None


def describe(source: EpisodeSource) -> SetDescription:
    """The embodiment of a set where it has one, else what its own files say. Raises `DatasetError` where neither is there."""
    folder = source
    while isinstance(folder, EditedSource):
        folder = folder.parents[0]
    if embodiment_of(source) is not None or not isinstance(folder, DatasetReader):
        return _of(source.embodiment)
    return SetDescription(
        robot=str(folder.info.get("robot_type") or "unknown"),
        control_hz=folder.fps,
        cameras={name: folder.picture_size(name) for name in folder.cameras},
        state=_names(folder.features, layout.STATE),
        action=_names(folder.features, layout.ACTION),
        embodiment=None,
    )


def embodiment_of(source: EpisodeSource) -> EmbodimentSpec | None:
    """The embodiment of a source; None where it is not described, as in plain sets."""
    try:
        return source.embodiment
    except DatasetError:
        return None


def differing_fields(one: SetDescription, other: SetDescription) -> list[str]:
    """One sentence for each field in which two sets differ so that they cannot be one set; empty where they can."""
    if one.embodiment is not None and other.embodiment is not None:
        return [f"{m.field}: {m.made_for!r} and {m.offered!r}" for m in mismatches(one.embodiment, other.embodiment)]
    pairs: Sequence[tuple[str, Any, Any]] = (
        ("robot", one.robot, other.robot),
        ("control_hz", one.control_hz, other.control_hz),
        ("cameras", dict(sorted(one.cameras.items())), dict(sorted(other.cameras.items()))),
        ("state", one.state, other.state),
        ("action", one.action, other.action),
        ("embodiment", _described(one), _described(other)),
    )
    return [f"{name}: {mine!r} and {theirs!r}" for name, mine, theirs in pairs if mine != theirs]


def _of(body: EmbodimentSpec) -> SetDescription:
    return SetDescription(
        robot=body.name,
        control_hz=float(body.control_hz),
        cameras={camera.name: (camera.height, camera.width) for camera in body.cameras},
        state=tuple(dim.name for dim in body.proprio.dims),
        action=tuple(dim.name for dim in body.action.dims),
        embodiment=body,
    )


def _described(one: SetDescription) -> str:
    return "described" if one.embodiment is not None else "not described"


def _names(features: Mapping[str, Any], key: str) -> tuple[str, ...]:
    feature = features.get(key)
    if feature is None:
        return ()
    return tuple(names_of(feature)) or tuple(str(place) for place in range(width_of(feature) or 0))
