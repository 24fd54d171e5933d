"""Measurements of the pictures of one camera over one episode, frame by frame as they are decoded: no picture is kept.

Every frame is reduced to 32 x 32 pixels by its area; whether it equals the one before is decided on all of its bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.lerobot.pictures import as_picture, film_errors, make_converter

SIDE = 32
KEPT = 8  # small pictures kept of an episode, evenly spaced


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CameraMeasurements:
    """The pictures of one camera. All _T are one number a frame, in levels 0..255.

    mean_T, spread_T: of all pixels and channels. change_T: mean distance from the frame before (0 for the first). skip_T: from the last but
    one. is_same_T: every byte equals the frame before. colour_3: mean red, green, blue. picture_SS3: mean picture, 16 x 16.
    kept_N: small grey pictures of 8 x 8 at evenly spaced frames. detail: mean distance of neighbouring pixels before any reduction.
    digest: of all frames as they are decoded. error: why not every frame could be decoded.
    """

    height: int = 0
    width: int = 0
    mean_T: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    spread_T: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    change_T: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    skip_T: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    is_same_T: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    colour_3: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    picture_SS3: NDArray[np.float64] = field(default_factory=lambda: np.zeros((16, 16, 3)))
    kept_N: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 8, 8)))
    detail: float = 0.0
    digest: str = ""
    error: str = ""

    def __len__(self) -> int:
        return len(self.mean_T)


def measure_pictures(frames: Iterable[Any], length: int) -> CameraMeasurements:
    """Measure `av.VideoFrame`s as they come; `length`: how many are expected. A decoding error ends it, and is told."""
    meter = _Meter(convert=make_converter(), every=max(1, length // KEPT))
    error = ""
    try:
        for frame in frames:
            meter.feed(frame)
    except film_errors() as problem:
        error = str(problem)
    return meter.measured(error)


def as_frames(frames_THW3: NDArray[np.uint8]) -> Iterator[Any]:
    """Pictures that are in memory, as `av.VideoFrame`s."""
    return (as_picture(pixels_HW3) for pixels_HW3 in frames_THW3)


@dataclass(slots=True, kw_only=True, eq=False)
class _Meter:
    """What was seen so far of one camera of one episode."""

    convert: Any
    every: int
    rows: list[tuple[float, float, float, float, bool]] = field(default_factory=list[tuple[float, float, float, float, bool]])
    before: list[NDArray[np.float32]] = field(default_factory=list[NDArray[np.float32]])
    planes: bytes = b""
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros((SIDE, SIDE, 3)))
    kept: list[NDArray[np.float64]] = field(default_factory=list[NDArray[np.float64]])
    details: list[float] = field(default_factory=list[float])
    size: tuple[int, int] = (0, 0)
    sha: Any = field(default_factory=hashlib.sha256)

    def feed(self, frame: Any) -> None:
        """Measure the next frame."""
        planes = b"".join(bytes(plane) for plane in frame.planes)
        same = planes == self.planes
        if not same:
            small = self.convert.reformat(frame, width=SIDE, height=SIDE, format="rgb24", interpolation="AREA").to_ndarray()
            small = small.astype(np.float32)
        else:
            small = self.before[-1]
        self.sha.update(hashlib.blake2b(planes, digest_size=16).digest())
        change = float(np.abs(small - self.before[-1]).mean()) if self.before else 0.0
        skip = float(np.abs(small - self.before[-2]).mean()) if len(self.before) > 1 else 0.0
        number = len(self.rows)
        self.rows.append((float(small.mean()), float(small.std()), change, skip, same and bool(number)))
        self.total += small
        if number % self.every == 0 and len(self.kept) < KEPT:
            self.kept.append(small.mean(axis=2).reshape(8, 4, 8, 4).mean(axis=(1, 3)).astype(np.float64))
            self.details.append(_detail(frame))
        self.before, self.planes, self.size = [*self.before[-1:], small], planes, (frame.height, frame.width)

    def measured(self, error: str) -> CameraMeasurements:
        """The measurements of what was fed."""
        if not self.rows:
            return CameraMeasurements(error=error or "no frame could be decoded")
        mean_T, spread_T, change_T, skip_T, same_T = (np.array(column, np.float64) for column in zip(*self.rows, strict=True))
        mean_SS3 = (self.total / len(self.rows)).reshape(16, SIDE // 16, 16, SIDE // 16, 3).mean(axis=(1, 3))
        return CameraMeasurements(
            height=self.size[0],
            width=self.size[1],
            mean_T=np.round(mean_T, 3),
            spread_T=np.round(spread_T, 3),
            change_T=np.round(change_T, 4),
            skip_T=np.round(skip_T, 4),
            is_same_T=same_T.astype(np.bool_),
            colour_3=np.round(mean_SS3.mean(axis=(0, 1)), 3),
            picture_SS3=np.round(mean_SS3, 2),
            kept_N=np.round(np.stack(self.kept), 1),
            detail=round(float(np.mean(self.details)), 4),
            digest=self.sha.hexdigest(),
            error=error,
        )


def _detail(frame: Any) -> float:
    """Mean distance of neighbouring pixels along a row, of the first plane (brightness, or green)."""
    plane = frame.planes[0]
    channels = 3 if frame.format.name in ("rgb24", "bgr24") else 1
    if plane.line_size < frame.width * channels:
        return 0.0
    pixels = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[::4, : frame.width * channels : channels]
    return float(np.abs(np.diff(pixels.astype(np.int16), axis=1)).mean()) if pixels.shape[1] > 1 else 0.0
