"""Open raw data as episodes: a LeRobot folder, or whatever the index of a run's sources names."""

from __future__ import annotations

from pathlib import Path

from components.data.lerobot import layout
from components.data.lerobot.reader import DatasetReader
from components.data.sources.interface import EpisodeSource
from model_core.spec.errors import DatasetError


def open_raw(folder: Path) -> EpisodeSource:
    """The episodes of a folder that "collect" made, or of any LeRobot folder that describes its embodiment.

    Raises `DatasetError` for a folder that is neither.
    """
    if (folder / layout.INFO).is_file():
        return DatasetReader(folder)
    raise DatasetError(f"{folder} is no raw data: expected {layout.INFO} in it. Fix: name a LeRobot data set, or run the stage collect")
