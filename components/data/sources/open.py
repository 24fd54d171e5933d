"""Open raw data as episodes: a LeRobot folder, or whatever the index of a run's sources names."""

from __future__ import annotations

from pathlib import Path

from components.data.lerobot import layout
from components.data.lerobot.reader import DatasetReader
from components.data.packing.kept_images import KeptImages
from components.data.sources.interface import EpisodeSource
from components.data.sources.joined import JoinedSource
from components.data.sources.mixed import MixedSource, joined_or_mixed
from components.data.sources.raw_index import INDEX, read_index
from model_core.spec.errors import DatasetError


def is_raw(folder: Path) -> bool:
    """Whether `open_raw` takes the folder for raw data: a LeRobot data set, or an index of sources."""
    return (folder / layout.INFO).is_file() or (folder / INDEX).is_file()


def open_raw(folder: Path, images: KeptImages | None = None) -> EpisodeSource:
    """The episodes of a folder that "collect" made, or of any LeRobot folder that describes its embodiment.

    images: those that were decoded before. Raises `DatasetError` for a folder that is neither, and where a source
    of an index is not here or was changed.
    """
    if (folder / layout.INFO).is_file():
        return DatasetReader(folder, images)
    if (folder / INDEX).is_file():
        return joined_or_mixed(*read_index(folder), kept=images)
    raise DatasetError(
        f"{folder} is no raw data: expected {layout.INFO} or {INDEX} in it. Fix: name a LeRobot data set, or run the stage collect"
    )


def data_sets_of(source: EpisodeSource) -> tuple[DatasetReader, ...]:
    """The LeRobot data sets under a source, for rules that look at a whole set and not at episodes."""
    if isinstance(source, DatasetReader):
        return (source,)
    if isinstance(source, JoinedSource | MixedSource):
        return tuple(reader for part in source.sources for reader in data_sets_of(part))
    reader = getattr(source, "reader", None)
    return (reader,) if isinstance(reader, DatasetReader) else ()


def camera_sizes(source: EpisodeSource) -> dict[str, tuple[int, int] | None]:
    """Camera -> (height, width), in their order; None where a LeRobot folder does not state it."""
    if isinstance(source, DatasetReader):
        return {name: source.picture_size(name) for name in source.cameras}
    return {camera.name: (camera.height, camera.width) for camera in source.embodiment.cameras}


def stated_size(size: tuple[int, int] | None, camera: str) -> tuple[int, int]:
    """The size of a camera, which labelling needs. Raises `DatasetError` where it is not stated."""
    if size is None:
        raise DatasetError(
            f"the data set does not state the size of camera {camera!r}. Fix: write the shape of its feature in meta/info.json"
        )
    return size


def instructions_of(source: EpisodeSource) -> tuple[str, ...]:
    """The instructions of its episodes, each once and sorted; of a LeRobot folder those of its task table, in the order of that."""
    if isinstance(source, DatasetReader):
        return source.instructions
    return tuple(sorted({row.instruction for row in source.rows if row.instruction}))
