"""Finished annotations of this machine, and which of them labelled the episodes of a place."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from components.data.episodes.place import file_state
from flows.pipeline.episodes.library import EpisodeLibrary
from model_core.spec.errors import DatasetError

if TYPE_CHECKING:
    from components.data.episodes.place import Place
    from components.data.failures.incident import UnsureFrames

_STAGE, _RECORD, _POINTS = "annotate", "provenance.json", "points"
Lengths = Mapping[str, int]  # episode id -> labelled frames


@dataclass(frozen=True)
class Annotations:
    """The annotations of one library: of `data/annotate` and of finished steps. What was read stays until its file changes."""

    library: EpisodeLibrary
    _lengths: dict[Path, tuple[str, Lengths]] = field(default_factory=dict)
    _unsure: dict[Path, tuple[str, Mapping[str, tuple[UnsureFrames, ...]]]] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def are_there(self) -> bool:
        """Whether any is finished."""
        return bool(self._finished())

    def of(self, place: Place) -> Path:
        """The annotation of most episodes of this place, the newest of equal ones. An episode is the same by its id and its number of
        frames. Raises `DatasetError` where no episode of it was labelled."""
        from components.data.episodes.query import EpisodeQuery

        rows = {one.row.episode_id: one.row.length for one in self.library.index.every(EpisodeQuery(place=place.key))}
        return self._best(rows, place.name)

    def unsure(self, place: Place, rows: Lengths) -> Mapping[str, tuple[UnsureFrames, ...]]:
        """Episode id -> where the annotation of this place was not sure of the gripper; {} where none is finished.

        rows: the episodes of the place that are asked for, with their frames.
        """
        from components.data.failures.incident import of_points

        try:
            labels = self._best(rows, place.name)
            folder, state = labels / _POINTS, file_state(labels / _RECORD)
            with self._guard:
                known = self._unsure.get(folder)
            if known is None or known[0] != state:
                known = state, of_points(folder)
                with self._guard:
                    self._unsure[folder] = known
        except (DatasetError, OSError, ValueError):  # none, or it is being written
            return {}
        return {name: found for name, found in known[1].items() if rows.get(name) == found[0].length}

    def _best(self, rows: Lengths, name: str) -> Path:
        found = [(sum(rows.get(episode) == length for episode, length in self._read(path).items()), path) for path in self._finished()]
        labelled, path = max(found, key=lambda one: one[0], default=(0, Path()))
        if not labelled:
            raise DatasetError(f"no finished annotation labels episodes of {name}. Fix: `actwright data annotate`, or a run with this set")
        return path

    def _finished(self) -> list[Path]:
        """Every annotation with points, the newest first."""
        settings = self.library.settings
        folders = [settings.data.resolve() / _STAGE, *(settings.store_root / _STAGE).glob("*")]
        records = [folder / _RECORD for folder in folders if (folder / _POINTS).is_dir()]
        return [path.parent for path in sorted((one for one in records if one.is_file()), key=lambda one: -one.stat().st_mtime_ns)]

    def _read(self, folder: Path) -> Lengths:
        path = folder / _RECORD
        state = file_state(path)
        with self._guard:
            known = self._lengths.get(folder)
        if known is None or known[0] != state:
            labelled = json.loads(path.read_text(encoding="utf-8"))["episodes"]
            known = (
                state,
                {name: max((end for _, end, _ in kinds["points"]), default=0) for name, kinds in labelled.items() if "points" in kinds},
            )
            with self._guard:
                self._lengths[folder] = known
        return known[1]
