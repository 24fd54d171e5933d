"""What a folder of exported logs holds: its body, its topics and the mapping file, and what no topic has a place for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.data.editing.description import SetDescription, describe
from components.data.sources.interface import EpisodeSource
from components.data.sources.mcap.mapping import FORMAT
from model_core.spec.contract import EmbodimentSpec, mismatches
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError

STATE, ACTION, INSTRUCTION = "/state", "/action", "/instruction"
OUTCOME, INTERVENTION, TOOL_CENTRE = "/outcome", "/intervention", "/tool_centre"
_MAX_GAP_S = 0.001  # every step has a message of its very time; another rate is refused, not resampled
_FILE_NAME = re.compile(r"[\w+-][\w.+-]{0,199}")
_NO_NAME = re.compile(r"[^\w.+-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSpec:
    """files: the name of each episode's file without its ending, in their order. task, producer, cell: "" where episodes differ in it.

    has_outcome: whether any episode says if it solved its task. has_intervention, has_tool_centre: whether every episode has them.
    """

    body: EmbodimentSpec
    files: tuple[str, ...]
    task: str
    producer: str
    cell: str
    has_outcome: bool
    has_intervention: bool
    has_tool_centre: bool

    def mapping(self) -> dict[str, Any]:
        """The document of the mapping file that reads the folder back."""
        told: dict[str, Any] = {
            "format": FORMAT,
            "clock": "log",
            "instruction": {"topic": INSTRUCTION, "field": "data"},
            "episodes": {"by": "file", "on_gap": "refuse", "max_trim_s": 0.0},
            "cameras": {camera.name: {"topic": camera_topic(camera.name), "max_gap_s": _MAX_GAP_S} for camera in self.body.cameras},
            "state": [_field(STATE, "position", [dim.name for dim in self.body.proprio.dims])],
            "actions": [_field(ACTION, "position", [dim.name for dim in self.body.action.dims])],
        }
        if self.has_outcome:
            told["outcome"] = {"topic": OUTCOME, "field": "data", "success": [True]}
        if self.has_intervention:
            told["intervention"] = {"topic": INTERVENTION, "field": "data", "max_gap_s": _MAX_GAP_S}
        if self.has_tool_centre:
            told["tool_centre"] = _field(TOOL_CENTRE, "point", ["x", "y", "z"])
        return told | {name: value for name, value in (("task", self.task), ("producer", self.producer), ("cell", self.cell)) if value}


def camera_topic(camera: str) -> str:
    """The topic of a camera's images, as ROS 2 names such ones."""
    return f"/{camera}/compressed"


def log_spec(source: EpisodeSource, given: EmbodimentSpec | None) -> LogSpec:
    """The spec of a source. given: the body as its file describes it; None takes the set's own description.

    Raises `DatasetError` for a source without episodes or a description, of another body than `given`, or with an episode that no
    mapping reads.
    """
    rows = source.rows
    if not rows:
        raise DatasetError(f"{source.name} has no episodes, so there is nothing to export")
    for row in rows:
        _check_row(row.episode_id, row.length, row.instruction)
    parts = [source.episode(row.index, images=False, depth=False) for row in rows]
    return LogSpec(
        body=_body(describe(source), given, source.name),
        files=_file_names([row.episode_id for row in rows]),
        task=_one(row.task for row in rows) if any(row.task != row.instruction for row in rows) else "",
        producer=_one(row.provenance.producer for row in rows),
        cell=_one(row.provenance.cell for row in rows),
        has_outcome=any(row.success is not None for row in rows),
        has_intervention=all(part.intervention_T is not None for part in parts),
        has_tool_centre=all(part.tcp_T3 is not None for part in parts),
    )


def left_out_of(episode: Episode, spec: LogSpec) -> dict[str, bool]:
    """What of an episode the logs do not hold, each with whether it is there."""
    return {
        f"depth of {', '.join(sorted(episode.depth_m))}": bool(episode.depth_m),
        "executed actions that differ from the labels": not np.array_equal(episode.executed_TA, episode.actions_TA),
        "the gripper's path, which other episodes do not have": episode.tcp_T3 is not None and not spec.has_tool_centre,
        "where a person acted, which other episodes do not say": episode.intervention_T is not None and not spec.has_intervention,
        "camera geometry": bool(episode.geometry),
        "a name of its task besides the instruction": episode.task not in (spec.task or episode.instruction, episode.instruction),
    }


def _field(topic: str, field: str, names: list[str]) -> dict[str, Any]:
    return {"topic": topic, "field": field, "dims": names, "keys": names, "max_gap_s": _MAX_GAP_S}


def _check_row(episode_id: str, length: int, instruction: str) -> None:
    if not instruction.strip():
        raise DatasetError(f"episode {episode_id} has no instruction, which a log needs. Fix: state it with `actwright data relabel`")
    if length < 2:
        raise DatasetError(
            f"episode {episode_id} has {length} step, a log is read from 2 on. Fix: leave it out, `actwright data select --min-frames 2`"
        )


def _file_names(ids: list[str]) -> tuple[str, ...]:
    """The ids, where files of these names are read in the order of the episodes; else with the number of each before it."""
    in_order = [path.stem for path in sorted(Path(f"{one}.mcap") for one in ids)] == ids
    if in_order and len(set(ids)) == len(ids) and all(_FILE_NAME.fullmatch(one) for one in ids):
        return tuple(ids)
    return tuple(f"{number:06d}-{_NO_NAME.sub('_', one)[:150]}" for number, one in enumerate(ids))


def _one(values: Iterable[str]) -> str:
    found = set(values)
    return found.pop() if len(found) == 1 else ""


def _body(described: SetDescription, given: EmbodimentSpec | None, name: str) -> EmbodimentSpec:
    own = described.embodiment
    if given is None:
        if own is None:
            raise DatasetError(
                f"{name} does not describe its robot, as a log needs it. Fix: name its embodiment file with --embodiment FILE"
            )
        return own
    odd = [m.field for m in mismatches(own, given)] if own is not None else _differing(described, given)
    if odd:
        raise DatasetError(f"{name} is not of the robot in the embodiment file: {', '.join(odd)} differ. Fix: name the file of this robot")
    return given


def _differing(described: SetDescription, given: EmbodimentSpec) -> list[str]:
    """In what a set that is only known by its columns differs. Dimensions without names are compared by their number."""
    pairs: dict[str, tuple[Any, Any]] = {"control_hz": (described.control_hz, float(given.control_hz))}
    pairs["cameras"] = (sorted(described.cameras), sorted(camera.name for camera in given.cameras))
    sizes = {camera.name: (camera.height, camera.width) for camera in given.cameras}
    known = {name: size for name, size in described.cameras.items() if size is not None}
    pairs["camera sizes"] = (known, {name: sizes.get(name) for name in known})
    for part, names, vector in (("state", described.state, given.proprio), ("action", described.action, given.action)):
        theirs = tuple(dim.name for dim in vector.dims)
        is_named = names != tuple(str(place) for place in range(len(names)))
        pairs[part] = (names, theirs) if is_named else (len(names), len(theirs))
    return [name for name, (mine, theirs) in pairs.items() if mine != theirs]
