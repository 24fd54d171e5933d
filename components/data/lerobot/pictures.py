"""Films and pictures as they are, whole or not, for the inspection, which opens them without the checks of `VideoReader`; their times."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.folder.film_tables import read_film_tables


def open_film(path: Path) -> Any:
    """The container of a film, to be read packet by packet or picture by picture. Raises one of `film_errors()`."""
    import av

    return av.open(str(path))


def film_errors() -> tuple[type[Exception], ...]:
    """What opening, reading or decoding a damaged film raises."""
    from av.error import FFmpegError

    return (FFmpegError, OSError, ValueError, IndexError)


def as_picture(pixels_HW3: NDArray[np.uint8]) -> Any:
    """Pixels that are in memory, as a picture like those of a film."""
    import av

    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_HW3), format="rgb24")


def make_converter() -> Any:
    """A converter of sizes and formats, to be kept for all pictures of a film."""
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()


def picture_times(path: Path, container: Any, stream: Any) -> tuple[list[int], int]:
    """The times of all pictures of a film in its time base, sorted, and how many its header states. None is decoded.

    They are read from the header's tables where those say them: then a film is opened without reading it. Of other files, and of truncated
    ones, every packet is read.
    """
    tables = read_film_tables(path)
    if tables is not None and (stream.time_base or 0) * tables.rate == 1:
        return tables.pts.tolist(), len(tables.pts)
    from av.error import FFmpegError

    times: list[int] = []
    hidden = 0
    with contextlib.suppress(FFmpegError):  # a truncated file: what is there is used
        for packet in container.demux(stream):
            if packet.pts is not None and packet.is_discard:
                hidden += 1
            elif packet.pts is not None and packet.size:
                times.append(packet.pts)
    times.sort()
    return times, max(stream.frames - hidden, len(times))


def key_places(path: Path, count: int) -> NDArray[np.int64]:
    """Which of the `count` pictures of a film can be decoded without others, ascending; all, where its tables do not say it."""
    tables = read_film_tables(path)
    is_known = tables is not None and len(tables.is_key) == count
    return np.flatnonzero(tables.is_key) if tables is not None and is_known else np.arange(count)
