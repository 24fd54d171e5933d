"""Frames of one camera <-> mp4, by frame number and exactly.

Default codec: H.264 in RGB with quantiser 0, which is lossless. Measured on our 80x80 images: any 4:2:0 codec
(H.264, AV1) stops at 31 dB with single pixels off by 255 whatever its quality setting, because a finger is one
chroma sample wide; lossless costs 2.8 kB a frame against 0.7 kB. A policy trained on lossy images and run on
raw ones would see two distributions. `COMPACT` is for large images. One encoder thread: equal frames give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        self.path = path
        self.frames = 0
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
            for packet in self._stream.encode(frame):
                self._container.mux(packet)

    def close(self) -> None:
        """Finish the file."""
        for packet in self._stream.encode():
            self._container.mux(packet)
        self._container.close()


class VideoReader:
    """Frames of one mp4 by number. Going on where the last call ended costs no seek."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self._fps = fps
        self._container: Any = None
        self._frames: Iterator[tuple[int, Any]] = iter(())
        self._next = -1
        self._convert: Any = None

    def read(self, start: int, count: int) -> NDArray[np.uint8]:
        """Frames start .. start+count-1 as (count, H, W, 3) uint8 RGB. Raises `DatasetError` when they are not there."""
        from av.error import FFmpegError

        try:
            frames = self._collect(start, count)
        except (FFmpegError, OSError, ValueError) as error:
            self.close()
            raise DatasetError(
                f"video {self.path.name}: cannot be decoded at frame {start} ({error}); the file is truncated or damaged"
            ) from error
        if len(frames) != count:
            self.close()
            raise DatasetError(
                f"video {self.path.name}: expected frames {start}..{start + count - 1}, got {len(frames)}; the file is truncated"
            )
        return np.stack(frames)

    def _collect(self, start: int, count: int) -> list[NDArray[np.uint8]]:
        if self._container is None or self._next != start:
            self._seek(start)
        frames: list[NDArray[np.uint8]] = []
        for number, frame in self._frames:
            self._next = number + 1
            if number >= start:
                if number != start + len(frames):
                    raise ValueError(f"frame {start + len(frames)} is missing, frame {number} follows")
                frames.append(self._convert.reformat(frame, format="rgb24").to_ndarray())
            if len(frames) == count:
                break
        return frames

    def _seek(self, start: int) -> None:
        import av

        if self._container is None:
            from av.video.reformatter import VideoReformatter

            # One converter for all frames: making one for each frame halves the speed.
            self._convert = VideoReformatter()
            self._container = av.open(str(self.path))
            self._container.streams.video[0].thread_count = 1
        stream = self._container.streams.video[0]
        self._container.seek(int(start / self._fps / stream.time_base), stream=stream, backward=True)
        self._frames = ((round(float(f.pts * stream.time_base) * self._fps), f) for f in self._container.decode(stream))

    def close(self) -> None:
        """Let the file go; a later `read` opens it again."""
        if self._container is not None:
            self._container.close()
        self._container, self._frames, self._next = None, iter(()), -1
