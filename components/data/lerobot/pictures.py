"""Films and pictures for the inspection, which looks at them without the checks of `VideoReader`: opened as they are, whole or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
