"""What is in a LeRobot folder: documents, rows, films and facts about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.folder.entries import EpisodeEntry
from components.data.inspection.folder.facts import FactList
from components.data.inspection.folder.films import FilmScan
from components.data.inspection.folder.table import RawTable
from model_core.spec.contract import EmbodimentSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FolderView:
    """What is in a folder. films: camera key -> path -> its scan. image_columns: cameras whose pictures stand in the data files.

    rows_of: episode number -> its rows of the table, in their order. ours: our own row of each episode. embodiment: of the set's own
    description, or as the caller gave it. card: text and front matter of README.md.
    """

    root: Path
    info: Mapping[str, Any]
    fps: float
    features: Mapping[str, Any]
    cameras: tuple[str, ...]
    image_columns: tuple[str, ...]
    entries: tuple[EpisodeEntry, ...]
    table: RawTable
    sentences: Mapping[int, str]
    statistics: Mapping[str, Any]
    card: tuple[str, Mapping[str, str]]
    facts: FactList
    films: Mapping[str, FilmScan] = field(default_factory=dict[str, FilmScan])
    rows_of: Mapping[int, NDArray[np.int64]] = field(default_factory=dict[int, NDArray[np.int64]])
    ours: Mapping[int, Mapping[str, Any]] = field(default_factory=dict[int, Mapping[str, Any]])
    embodiment: EmbodimentSpec | None = None

    @property
    def is_v2(self) -> bool:
        """Whether an episode has files of its own (LeRobot v2.x)."""
        return not (self.root / "meta" / "episodes").is_dir()

    def episode_id(self, number: int) -> str:
        """The name of an episode in reports, which is the one that `DatasetReader` gives it."""
        return str(self.ours.get(number, {}).get("episode_id", f"{self.root.name}-{number:06d}"))
