"""Traces that a LeRobot set carries in its language column (style `trace`), as a point annotator: it looks at no image.

The point of a frame is where its trace begins; the traces themselves stand, as long as no correction, rule or smoothing changes a point.
A frame without a trace has no point. The column's frames are found by episode and camera name, so the set is the one that is labelled.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from components.artifacts.files import dataset_digest
from components.config.data_config import AnnotateConfig
from components.data.annotators.interface import Frames, GripperTrack, PointAnnotator
from components.data.lerobot import layout
from components.data.lerobot.columns.language_traces import COLUMN, STYLE, ReadTraces, column_of, read_traces
from components.data.lerobot.reader import DatasetReader
from model_core.spec.errors import DatasetError
from model_core.tokenization.trace import to_pixels


class StoredTraces:
    """The traces of a LeRobot folder."""

    def __init__(self, root: Path) -> None:
        self._reader = DatasetReader(root)

    @property
    def version(self) -> str:
        """The rows of the set: where its traces, episodes and cameras are."""
        return f"traces/1:{self._digest[:24]}"

    @cached_property
    def _digest(self) -> str:
        return dataset_digest(self._reader.root / "data")

    @property
    def needs_images(self) -> bool:
        """It needs no images."""
        return False

    @cached_property
    def _places(self) -> dict[str, int]:
        return {row.episode_id: row.index for row in self._reader.rows}

    def annotate(self, frames: Frames) -> GripperTrack:
        """Where the trace of each frame begins. Raises `DatasetError` with the reason where the set has none of this episode or camera."""
        found = self._read(frames)
        height, width = frames.size
        begins_T2 = np.where(found.is_known_T[:, None], found.trace_T52[:, 0], 0)
        points_T2 = np.where(found.is_known_T[:, None], to_pixels(begins_T2, width=width, height=height), np.nan)
        return GripperTrack(
            points_T2=points_T2,
            visible_T=found.is_known_T,
            confidence_T=found.is_known_T.astype(np.float32),
            trace_T52=found.trace_T52,
        )

    def _read(self, frames: Frames) -> ReadTraces:
        if frames.episode_id not in self._places:
            raise DatasetError(f"{self._reader.name} has no episode {frames.episode_id!r}. Fix: name the set that is labelled")
        column = column_of(self._reader, self._places[frames.episode_id])
        if len(column) != frames.count:
            raise DatasetError(
                f"{self._reader.name} has {len(column)} frames of it, expected {frames.count}. Fix: label the set at its own rate, whole"
            )
        found = read_traces(column, frames.camera, frames.size)
        if not found.is_known_T.any():
            cameras = sorted({row["camera"] or "none" for rows in column.to_pylist() for row in rows or () if row["style"] == STYLE})
            raise DatasetError(
                f"{COLUMN} has no trace of camera {layout.IMAGE_PREFIX}{frames.camera}; it has {', '.join(cameras) or 'no traces'}"
            )
        return found


def open_points(cfg: AnnotateConfig) -> PointAnnotator:
    """The LeRobot folder that `annotate.point_model` names. Raises `DatasetError` where it is none."""
    return StoredTraces(Path(cfg.point_model).expanduser())
