"""Frames of one camera <-> mp4, by frame number and exactly.

Default codec: H.264 in RGB with quantiser 0, which is lossless. On our 80x80 images any 4:2:0 codec (H.264, AV1) stops at 31 dB with
single pixels off by 255 whatever its quality setting, because a finger is one chroma sample wide; lossless costs 2.8 kB a frame against
0.7 kB. A policy trained on lossy images and run on raw ones would see two distributions. One encoder thread: equal frames, equal bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.adapters.scheduling import scheduling_kept
from components.data.lerobot.film_spans import FilmError, FilmSpan, number_pictures
from components.data.lerobot.pictures import key_places, picture_times
from model_core.spec.errors import DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoCodec:
    """How frames are encoded. gop: a key frame at least every so many frames, which bounds the cost of random access."""

    encoder: str = "libx264rgb"
    pix_fmt: str = "rgb24"
    stored_pix_fmt: str = "gbrp"
    codec_name: str = "h264"
    gop: int = 8
    options: dict[str, str] = field(default_factory=lambda: {"qp": "0", "preset": "veryfast", "bf": "0"})


LOSSLESS = VideoCodec()
COMPACT = VideoCodec(
    encoder="libx264", pix_fmt="yuv420p", stored_pix_fmt="yuv420p", gop=2, options={"crf": "16", "preset": "veryfast", "bf": "0"}
)


class VideoWriter:
    """Appends frames (H, W, 3) uint8 RGB to one mp4. The index is at the front, so a cut file keeps its beginning."""

    def __init__(self, path: Path, *, fps: int, width: int, height: int, codec: VideoCodec = LOSSLESS) -> None:
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.frames, self._has_failed = path, 0, False
        self._fps = fps
        self._container: Any = av.open(str(path), "w", format="mp4", options={"movflags": "faststart", "fflags": "bitexact"})
        self._stream: Any = self._container.add_stream(codec.encoder, rate=fps)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, codec.pix_fmt
        self._stream.thread_count = 1
        self._stream.codec_context.gop_size = codec.gop
        self._stream.options = {**codec.options, "sc_threshold": "0"}
        self._shape = (height, width, 3)

    def append(self, frames_THW3: NDArray[np.uint8]) -> None:
        """Add frames; the first one becomes a key frame, so every episode can be reached directly."""
        import av
        from av.video.frame import PictureType

        if frames_THW3.shape[1:] != self._shape:
            raise DatasetError(f"{self.path.name}: frames must be {self._shape}, got {frames_THW3.shape[1:]}")
        for position, pixels_HW3 in enumerate(frames_THW3):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_HW3), format="rgb24")
            frame.pts = self.frames
            if position == 0:
                frame.pict_type = PictureType.I
            self.frames += 1
            self._write(frame)

    def close(self) -> None:
        """Finish the file; one in which a write failed stays as it is, since libav ends the process where more is written then."""
        if not self._has_failed:
            self._write(None)
        self._container.close()

    def _write(self, frame: Any) -> None:
        self._has_failed = True
        with scheduling_kept() if self.frames <= 1 else contextlib.nullcontext():  # the encoder begins with the first frame
            self._container.mux(self._stream.encode(frame))
        self._has_failed = False


class VideoReader:
    """Frames of one mp4 by number, as the episodes in it count them. Going on where the last call ended costs no seek, nor does going
    further ahead of it up to the next key frame."""

    def __init__(self, path: Path, fps: float, span: FilmSpan | None = None) -> None:
        self.path = path
        self._fps, self._span = fps, span
        self._container: Any = None
        self._times: list[int] = []
        self._order: dict[int, int] = {}  # time -> place among the pictures
        self._numbers_N: NDArray[np.int64] = np.zeros(0, np.int64)
        self._keys_N: NDArray[np.int64] | None = None  # places of key frames; read when a call first goes on further ahead
        self._stated = 0
        self._pictures: Iterator[tuple[int, Any]] = iter(())
        self._next = -1
        self._convert: Any = None

    def read(self, start: int, count: int) -> NDArray[np.uint8]:
        """Frames start .. start+count-1 as (count, H, W, 3) uint8 RGB, turned as the film says.

        Raises `DatasetError` when they are not there, or are not the episodes' beyond doubt.
        """
        from av.error import FFmpegError

        self._open_or_refuse()
        place = self._place(start, count)
        try:
            return np.stack(self._collect(place, count))
        except FilmError as error:
            self.close()
            raise DatasetError(f"video {self.path.name}: {error}") from error
        except (FFmpegError, OSError, ValueError) as error:
            self.close()
            raise DatasetError(
                f"video {self.path.name}: cannot be decoded at frame {start} ({error}); the file is truncated or damaged"
            ) from error

    def count(self) -> int:
        """How many pictures can be read. Raises `DatasetError` for a film that cannot be opened."""
        self._open_or_refuse()
        return len(self._numbers_N)

    def _open_or_refuse(self) -> None:
        from av.error import FFmpegError

        try:
            self._open()
        except FilmError as error:
            raise DatasetError(f"video {self.path.name}: {error}") from error
        except (FFmpegError, OSError, IndexError) as error:
            self.close()
            raise DatasetError(f"video {self.path.name}: cannot be opened ({error}); the file is truncated or damaged") from error

    def _open(self) -> None:
        import av

        if self._container is not None:
            return
        from av.video.reformatter import VideoReformatter

        # One converter for all frames: making one for each frame halves the speed.
        self._convert = VideoReformatter()
        container: Any = av.open(str(self.path))
        stream = container.streams.video[0]
        stream.thread_count = 1
        if not self._order:
            self._number_pictures(container, stream)
        self._container, self._next = container, -1

    def _number_pictures(self, container: Any, stream: Any) -> None:
        """Read the times of all pictures without decoding any."""
        times, self._stated = picture_times(self.path, container, stream)
        if not times:
            raise FilmError("it holds no picture; the file is truncated or damaged")
        seconds_N = np.array(times, np.float64) * (stream.time_base.numerator / stream.time_base.denominator)
        self._numbers_N = number_pictures(seconds_N, self._stated, self._fps, self._span)
        self._times, self._order = times, {time: place for place, time in enumerate(times)}

    def _place(self, start: int, count: int) -> int:
        """The place of frame `start`; every frame up to start+count-1 must follow it."""
        place = int(np.searchsorted(self._numbers_N, start))
        there = self._numbers_N[place : place + count]
        if np.array_equal(there, np.arange(start, start + count)):
            return place
        last = int(self._numbers_N[-1])
        expected = f"video {self.path.name}: expected frames {start}..{start + count - 1}"
        if start + count - 1 > last:
            cause = "the file is truncated" if len(self._numbers_N) < self._stated else "the film is too short. Fix: export the set again"
            raise DatasetError(f"{expected}, the last one is {last}; {cause}")
        missing = next(number for number in range(start, start + count) if number not in set(there.tolist()))
        raise DatasetError(f"{expected}, but there is no picture at the time of frame {missing}. Fix: export the data set again")

    def _collect(self, place: int, count: int) -> list[NDArray[np.uint8]]:
        if not self._goes_on_to(place):
            self._seek(place)
        frames: list[NDArray[np.uint8]] = []
        for at, picture in self._pictures:
            self._next = at + 1
            if at >= place:
                if at != place + len(frames):
                    raise ValueError(f"picture {place + len(frames)} is missing, picture {at} follows")
                pixels_HW3 = self._convert.reformat(picture, format="rgb24").to_ndarray()
                frames.append(turned(pixels_HW3, _display_matrix(picture)))
            if len(frames) == count:
                return frames
        raise ValueError(f"expected {count} frames, got {len(frames)}; the file is truncated")

    def _goes_on_to(self, place: int) -> bool:
        """Whether decoding on is the shortest way: no key frame lies between the next picture and `place`."""
        if self._next < 0 or self._next >= place:
            return self._next == place
        if self._keys_N is None:
            self._keys_N = key_places(self.path, len(self._times))
        return not np.diff(np.searchsorted(self._keys_N, (self._next, place), "right")).any()

    def _seek(self, place: int) -> None:
        self._pictures = self._decode_from(place)
        first = next(self._pictures, None)
        if place and (first is None or first[0] > place):
            # the file's index led past the frame
            self._pictures = self._decode_from(0)
        elif first is not None:
            self._pictures = itertools.chain([first], self._pictures)

    def _decode_from(self, place: int) -> Iterator[tuple[int, Any]]:
        stream = self._container.streams.video[0]
        self._container.seek(self._times[place], stream=stream, backward=True)
        return ((self._order[f.pts], f) for f in self._container.decode(stream) if f.pts in self._order)

    def close(self) -> None:
        """Let the file go; a later `read` opens it again."""
        if self._container is not None:
            self._container.close()
        self._container, self._pictures, self._next = None, iter(()), -1


def _display_matrix(picture: Any) -> tuple[int, ...] | None:
    from av.sidedata.sidedata import Type

    data = picture.side_data.get(Type.DISPLAYMATRIX)
    return None if data is None else struct.unpack("=9i", bytes(data))


def turned(pixels_HW3: NDArray[np.uint8], matrix: tuple[int, ...] | None) -> NDArray[np.uint8]:
    """The picture as a player shows it. matrix: the display matrix of the file (9 numbers, 65536 is one); None: as it is.

    Raises `FilmError` for a matrix that is no quarter turn or mirror image.
    """
    if matrix is None:
        return pixels_HW3
    a, b, c, d = (value / 65536 for value in (matrix[0], matrix[1], matrix[3], matrix[4]))
    if {abs(a), abs(d)} == {1.0} and b == c == 0:
        across, down = a, d
    elif {abs(b), abs(c)} == {1.0} and a == d == 0:
        pixels_HW3, across, down = pixels_HW3.transpose(1, 0, 2), c, b
    else:
        raise FilmError(
            f"its display matrix ({a:g} {b:g}; {c:g} {d:g}) is no quarter turn and no mirror image, so how its pictures stand cannot be "
            "told. Fix: encode it again without a display matrix"
        )
    return np.ascontiguousarray(pixels_HW3[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
