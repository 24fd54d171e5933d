"""The path of the gripper in the image: scaling, the future trace of a track, and the drawn overlay.

A trace has 1..5 points of 0..255 over the image, whatever its size. Sources: MolmoAct release,
`preprocess/line_utils.py` and `processors.py`. The release stores raw pixels, right only for 256-pixel images; here
a pixel p of a side of W is round(p * 255 / (W - 1)).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import SpecError, require
from model_core.spec.types import TRACE_MAX_POINTS, TRACE_RANGE, Trace

STEERING_RGB = (0, 255, 255)  # cyan; the release means yellow, but writes BGR yellow into RGB images
TRAINING_THICKNESS = 2


def to_range(pixels_N2: NDArray[np.floating], *, width: int, height: int) -> NDArray[np.int64]:
    """Pixel coordinates (..., 2) as (x, y) -> 0..255. Raises `SpecError` outside the image or on NaN."""
    _check_size(width, height)
    pixels = np.asarray(pixels_N2, np.float64)
    last = np.array([width - 1, height - 1], np.float64)
    # half a pixel beyond the centre of the border pixel is still inside the image
    inside = np.isfinite(pixels) & (pixels >= -0.5) & (pixels <= last + 0.5)
    if not inside.all():
        raise SpecError(f"trace points must lie inside the {width}x{height} image, got {pixels[~inside.all(axis=-1)].tolist()}")
    return np.clip(np.rint(pixels * TRACE_RANGE / last), 0, TRACE_RANGE).astype(np.int64)


def to_pixels(points_N2: NDArray[np.integer] | NDArray[np.floating], *, width: int, height: int) -> NDArray[np.float64]:
    """Trace coordinates 0..255 (..., 2) -> pixel coordinates, not rounded."""
    _check_size(width, height)
    return np.asarray(points_N2, np.float64) * (np.array([width - 1, height - 1], np.float64) / TRACE_RANGE)


def resampled(points_N2: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """`count` points at equal distances along a drawn line, its two ends among them."""
    along_N = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points_N2, axis=0), axis=1))])
    at = np.linspace(0.0, along_N[-1], count)
    return np.stack([np.interp(at, along_N, points_N2[:, axis]) for axis in range(2)], axis=1)


def future_indices(count: int, points: int = TRACE_MAX_POINTS) -> NDArray[np.int64]:
    """Which of `count` coming points make a trace: all of up to `points`, else evenly spaced, truncated (as published)."""
    require(count >= 1 and 1 <= points <= TRACE_MAX_POINTS, "a trace needs at least one point", got=(count, points))
    if count <= points:
        return np.arange(count)
    return np.linspace(0, count - 1, points).astype(np.int64)


def future_trace(
    track_T2: NDArray[np.floating], valid_T: NDArray[np.bool_], t: int, *, width: int, height: int, points: int = TRACE_MAX_POINTS
) -> Trace | None:
    """The trace at step `t` of a gripper track in pixels: first point about now, last one at the end of the episode.

    track_T2: (T, 2) as (x, y). valid_T: where the gripper was seen. Where it is never seen again the last seen point stands
    for all that follows; None when it was never seen at all until the end: there is no label then.
    """
    require(track_T2.ndim == 2 and track_T2.shape == (len(valid_T), 2), "a track must be (T, 2) with one flag per step", got=track_T2.shape)
    require(0 <= t < len(valid_T), f"step must be 0..{len(valid_T) - 1}", got=t)
    coming_M = t + np.flatnonzero(valid_T[t:])
    if len(coming_M) == 0:
        seen = np.flatnonzero(valid_T[:t])
        if len(seen) == 0:
            return None
        coming_M = seen[-1:]
    chosen_N = coming_M[future_indices(len(coming_M), points)]
    return Trace(points_N2=to_range(track_T2[chosen_N], width=width, height=height))


def future_traces(
    track_T2: NDArray[np.floating], valid_T: NDArray[np.bool_], *, width: int, height: int, points: int = TRACE_MAX_POINTS
) -> list[Trace | None]:
    """`future_trace` of every step of an episode."""
    return [future_trace(track_T2, valid_T, t, width=width, height=height, points=points) for t in range(len(valid_T))]


def published_future(
    points_T: Sequence[tuple[int, int] | None], start: int, *, length: int = TRACE_MAX_POINTS, fallback: tuple[int, int] | None = None
) -> list[tuple[int, int]]:
    """The trace at `start` as the published preparation writes it into answers: pixels as they are, None where nothing was seen.

    Where nothing is seen from `start` on it is `fallback` alone, or empty: `future_trace` keeps the last point that was seen, and gives
    coordinates that mean the same in an image of any size.
    """
    coming = [point for point in points_T[start:] if point is not None]
    if not coming:
        return [fallback] if fallback is not None else []
    return [coming[index] for index in future_indices(len(coming), length)]


def draw_overlay(
    image_HW3: NDArray[np.uint8],
    trace: Trace,
    *,
    thickness: int = TRAINING_THICKNESS,
    color: tuple[int, int, int] = STEERING_RGB,
) -> NDArray[np.uint8]:
    """The image with the trace drawn on it for people: connected, anti-aliased segments, no dots, no arrow.

    A trace of one point changes nothing, as published (at least two points make a line). Coverage is computed from the exact distance to
    the line. What a network reads is drawn by `overlays.styles`, whose lines are the published ones pixel for pixel.
    """
    require(image_HW3.ndim == 3 and image_HW3.shape[2] == 3 and image_HW3.dtype == np.uint8, "an image must be (H, W, 3) uint8")
    require(thickness >= 1, "thickness must be at least one pixel", got=thickness)
    height, width = image_HW3.shape[:2]
    corners_N2 = np.rint(to_pixels(trace.points_N2, width=width, height=height))
    if len(corners_N2) < 2:
        return image_HW3.copy()
    pixels_HW2 = np.stack(np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)), axis=-1)
    distance_HW = np.full((height, width), np.inf)
    for start_2, stop_2 in itertools.pairwise(corners_N2):
        distance_HW = np.minimum(distance_HW, _distance_to_segment(pixels_HW2, start_2, stop_2))
    coverage_HW1 = np.clip(thickness / 2.0 + 0.5 - distance_HW, 0.0, 1.0)[..., None]
    mixed_HW3 = image_HW3 * (1.0 - coverage_HW1) + np.array(color, np.float64) * coverage_HW1
    return np.rint(mixed_HW3).astype(np.uint8)


def _distance_to_segment(pixels_HW2: NDArray[np.float64], start_2: NDArray[np.float64], stop_2: NDArray[np.float64]) -> NDArray[np.float64]:
    along_2 = stop_2 - start_2
    length2 = float(along_2 @ along_2)
    share_HW = np.clip((pixels_HW2 - start_2) @ along_2 / length2, 0.0, 1.0) if length2 else np.zeros(pixels_HW2.shape[:2])
    return np.linalg.norm(pixels_HW2 - start_2 - share_HW[..., None] * along_2, axis=-1)


def _check_size(width: int, height: int) -> None:
    require(width >= 2 and height >= 2, "an image must be at least 2x2 pixels", got=(width, height))
