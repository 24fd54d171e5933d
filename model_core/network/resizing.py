"""One frame at an exact size in pixels, with the published code's rounding on every machine, and how many crops a size makes."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray


def stretch(image: NDArray[np.uint8], size: tuple[int, int], *, bicubic: bool) -> NDArray[np.float32]:
    """Aspect-ignoring resize of a uint8 image, rounded back to whole values, as 0..1.

    SigLIP: bilinear without antialias. "metaclip": bicubic with antialias.
    """
    out = _antialiased(image, size, "bicubic") if bicubic else _bilinear(image, size)
    return np.rint(np.clip(out, 0, 255)).astype(np.float32) / np.float32(255.0)


def _antialiased(image: NDArray[np.generic], size: tuple[int, int], mode: str) -> NDArray[np.float32]:
    raster = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    out = F.interpolate(raster, size=size, mode=mode, align_corners=False, antialias=True)
    return out[0].permute(1, 2, 0).numpy()


def _bilinear(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bilinear without antialias, in the order of operations of torch's single-threaded kernel.

    `F.interpolate` itself picks another order on more threads or another CPU, and the difference of 1e-5 decides
    which way a value of x.5 is rounded. Written out here, the pixels are the same everywhere.
    """
    planes = np.ascontiguousarray(image.transpose(2, 0, 1)).reshape(image.shape[2], -1)
    first, *others = _corners(image.shape[:2], size)
    total = (planes.take(first.places_HW, axis=1) * first.shares_HW).astype(np.float32)
    for corner in others:
        value = planes.take(corner.places_HW, axis=1).astype(np.float64)
        value *= corner.shares_HW
        value += total
        total = value.astype(np.float32)  # a fused multiply-add: exact product, one rounding
    return total.transpose(1, 2, 0)


class _Corner(NamedTuple):
    """One of the four source pixels of every output pixel: its place in the flattened frame, and its share."""

    places_HW: NDArray[np.int64]
    shares_HW: NDArray[np.float64]


@functools.lru_cache(maxsize=4)
def _corners(source: tuple[int, int], size: tuple[int, int]) -> tuple[_Corner, ...]:
    """In the order in which torch's kernel adds them."""
    y0, y1, top, bottom = _taps(source[0], size[0])
    x0, x1, left, right = _taps(source[1], size[1])
    order = ((y0, x1, top, right), (y0, x0, top, left), (y1, x0, bottom, left), (y1, x1, bottom, right))
    return tuple(_Corner(y[:, None] * source[1] + x, (rows[:, None] * columns).astype(np.float64)) for y, x, rows, columns in order)


def _taps(length: int, out: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Per output place: the two source places and their float32 weights (half-pixel centres)."""
    scale = float(np.float32(length) / np.float32(out))
    centre = np.maximum((scale * (np.arange(out) + 0.5) - 0.5).astype(np.float32), np.float32(0.0))
    first = np.minimum(centre.astype(np.int64), length - 1)
    second_share = np.minimum(centre - first.astype(np.float32), np.float32(1.0))
    return first, np.minimum(first + 1, length - 1), np.float32(1.0) - second_share, second_share


def letterbox(image: NDArray[np.uint8], size: tuple[int, int], pad_value: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Aspect-keeping bilinear resize with antialias on 0..1 floats, centred on a frame of `pad_value`."""
    height, width = image.shape[:2]
    # In float32, as the training code did: it rarely, but sometimes, decides a rounding.
    scale = min(np.float32(size[1]) / np.float32(width), np.float32(size[0]) / np.float32(height))
    scaled = (max(1, int(np.float32(height) * scale)), max(1, int(np.float32(width) * scale)))
    pixels = np.clip(_antialiased(image.astype(np.float32) / np.float32(255.0), scaled, "bilinear"), 0.0, 1.0)
    top, left = (size[0] - scaled[0]) // 2, (size[1] - scaled[1]) // 2
    padding = [(top, size[0] - scaled[0] - top), (left, size[1] - scaled[1] - left)]
    mask = np.pad(np.ones(scaled, np.bool_), padding)
    return np.pad(pixels, [*padding, (0, 0)], constant_values=pad_value).astype(np.float32), mask


def choose_tiling(height: int, width: int, *, crops_allowed: int, window: int, margin: int) -> tuple[int, int]:
    """Rows and columns of tiles: the least enlargement, or the least shrinking where all would shrink.

    window: pixels of a crop that are its own. margin: pixels that all crops of one direction have beside their windows.
    """
    numbers = range(1, crops_allowed + 1)
    tilings = sorted(((i, j) for i in numbers for j in numbers if i * j <= crops_allowed), key=lambda t: (t[0] * t[1], t[0]))
    candidates = np.array(tilings, np.int32)
    original = np.array([height - margin, width - margin], np.float32)
    with np.errstate(divide="ignore"):  # a frame can be exactly as large as the margins
        scales = ((candidates * window).astype(np.float32) / original).min(-1)
    best = np.argmax(scales) if bool(np.all(scales < 1)) else np.argmin(np.where(scales < 1.0, 10e9, scales))
    return int(candidates[best][0]), int(candidates[best][1])


def shrunk_size(height: int, width: int, *, limit: int, longest: int) -> tuple[int, int]:
    """(height, width) of a frame within the trained layout: unchanged up to `limit`, else with its longer side of `longest` pixels."""
    if max(height, width) <= limit:
        return height, width
    scale = min(longest, limit) / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def pooled_grid(rows: int, columns: int, pool: tuple[int, int]) -> tuple[int, int]:
    """Tokens of a grid of patches: windows of `pool` (rows, columns) patches, a window that is not full included."""
    return -(-rows // pool[0]), -(-columns // pool[1])
