"""Demonstrations of a simulator as a source: the run records them once into its store, and reads the LeRobot data set that results."""

from __future__ import annotations

from collections.abc import Iterator

from components.config.source_config import SourceConfig
from components.data.lerobot import layout
from components.data.sources.lerobot import LeRobotSource, open_lerobot
from model_core.spec.contract import DimSpec, EmbodimentSpec
from model_core.spec.conversion import unit_factor
from model_core.spec.errors import DatasetError


def open_simulated(cfg: SourceConfig) -> LeRobotSource:
    """The demonstrations of `cfg`, at the path where the run recorded them.

    embodiment: empty for what the simulator states of its robot; a file may use other names (with the maps of the source), but no other
    meaning. Raises `DatasetError` where nothing is recorded yet, and where the file contradicts the simulator.
    """
    if not cfg.path:
        raise DatasetError(f"source {cfg.name!r} is not recorded yet. Fix: run the stage collect of its recipe, which records it")
    source = open_lerobot(cfg)
    if found := next(_contradictions(source), ""):
        raise DatasetError(f"source {cfg.name!r}: {found}. Fix: correct the embodiment file, or leave embodiment out of the source")
    return source


def _contradictions(source: LeRobotSource) -> Iterator[str]:
    """Where the embodiment of the source means something else by a number than the simulator that made it."""
    ours, theirs = source.embodiment, source.reader.embodiment
    for number, (column, place) in enumerate(source.action_places):
        if column == layout.ACTION:  # nothing describes the other columns
            mine, stated = ours.action.dims[number], theirs.action.dims[place]
            mode, stated_mode = ours.action.modes[number], theirs.action.modes[place]
            if mode != stated_mode and mine.name != ours.gripper_dim:  # a gripper has its polarity
                yield f"action {mine.name!r} is {mode}, the simulator's {stated.name!r} is {stated_mode}"
            yield from _scale("action", mine, stated)
    for number, (column, place) in enumerate(source.proprio_places):
        if column == layout.STATE:
            yield from _scale("proprio", ours.proprio.dims[number], theirs.proprio.dims[place])
    if (got := _opening(ours)) != (stated := _opening(theirs)):
        yield f"the gripper is open at {got} of its range, the simulator's at {stated}"


def _scale(name: str, mine: DimSpec, stated: DimSpec) -> Iterator[str]:
    if unit_factor(stated.unit, mine.unit) not in (None, 1.0):
        yield f"{name} {mine.name!r} is in {mine.unit}, the simulator's {stated.name!r} in {stated.unit}"


def _opening(body: EmbodimentSpec) -> float | None:
    """Where in its range the gripper is open, 0..1; None for an arm that has none."""
    for dim in body.action.dims:
        if dim.name == body.gripper_dim:
            low, high = sorted(body.gripper_range or (dim.low, dim.high))
            return round((body.gripper_open - low) / (high - low), 6)
    return None
