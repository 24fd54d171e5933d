"""Images that stand one by one in the rows of the data files, or in files of their own beside them, instead of in films."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.data.lerobot import layout
from model_core.spec.errors import DatasetError

_FIX = "Fix: export the data set again with its images"
COLOUR_MODES = ("RGB", "RGBA", "L", "P", "1", "CMYK", "YCbCr")  # of 8 bits a channel; others are depth or would lose their values


@dataclass(frozen=True, slots=True)
class ImageEpisode:
    """Which episode the images are of, and which of its steps are read: in some sets their files are named by that."""

    number: int
    steps: range


def read_images(root: Path, key: str, path: Path, first: int, episode: ImageEpisode) -> NDArray[np.uint8]:
    """The images of steps of one episode of one camera as (T, H, W, 3) uint8 RGB. Only the row groups that hold them are read.

    path: the data file; first: the row of it at which the episode begins. A cell is {bytes, path}: the encoded image itself, or the
    name of its file inside the data set. Without such a column they are files named by episode and frame.
    Raises `DatasetError` naming file and row for an image that is missing, damaged, of another size or not of 8 bits.
    """
    where = f"{path.relative_to(root).as_posix()}: column {key!r}"
    cells = _cells(path, key, where, first := first + episode.steps.start, episode)
    images: list[NDArray[np.uint8]] = []
    for step, cell in enumerate(cells):
        place = f"{where}, row {first + step}"
        images.append(_decode(_content(root, cell, place), place))
        if images[-1].shape != images[0].shape:
            raise DatasetError(f"{place} is an image of {images[-1].shape[:2]}, expected {images[0].shape[:2]} as in row {first}. {_FIX}")
    return np.stack(images)


def _cells(path: Path, key: str, where: str, first: int, episode: ImageEpisode) -> list[Any]:
    count = len(episode.steps)
    try:
        with pq.ParquetFile(path) as file:
            if key not in file.schema_arrow.names:
                names = {"image_key": key, "episode_index": episode.number}
                return [layout.IMAGE_PATH.format(frame_index=step, **names) for step in episode.steps]
            wanted, before, skipped = [], 0, 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if before + rows > first and before < first + count:
                    wanted.append(group)
                elif before + rows <= first:
                    skipped += rows
                before += rows
            column = file.read_row_groups(wanted, columns=[key], use_threads=False)[key]
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{where} cannot be read: {error}. {_FIX}") from error
    return column.slice(first - skipped, count).to_pylist()


def _content(root: Path, cell: Mapping[str, Any] | bytes | str | None, where: str) -> bytes:
    known: Mapping[str, Any] = cell if isinstance(cell, Mapping) else {"bytes" if isinstance(cell, bytes) else "path": cell}
    content, named = known.get("bytes"), known.get("path")
    if content:
        return content
    if not named:
        raise DatasetError(f"{where} holds no image, expected its bytes or the name of its file. {_FIX}")
    path = (root / str(named)).resolve()
    if not path.is_relative_to(root.resolve()):
        raise DatasetError(f"{where} names the file {named}, expected one inside the data set. {_FIX}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{where}: the image {named} cannot be read ({error.strerror}). {_FIX}") from error


def _decode(content: bytes, where: str) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode not in COLOUR_MODES:
                raise DatasetError(
                    f"{where} is an image of mode {image.mode}, expected 8 bits a channel. Fix: mark its feature as "
                    "is_depth_map, or export it as 8-bit colour"
                )
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{where} is no readable image ({error}). {_FIX}") from error
