"""Resizing 8-bit images like `cv2.resize` of OpenCV 4.11: `INTER_AREA` (the frame that is drawn on) and `INTER_LINEAR` (back again).

Area, where both directions shrink: each pixel is the mean of what it covers, summed in float32. Where a direction is enlarged OpenCV goes
over to two neighbours a direction, with weights of that area. Linear: two neighbours a direction too, by the distance of pixel centres.
Weights of neighbours are whole numbers of 1/2048.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import require

_WEIGHT_ONE = 2048
_Places = Callable[[int, int], tuple[NDArray[np.int64], NDArray[np.float32]]]


def area_resized(image_HW3: NDArray[np.uint8], *, width: int, height: int) -> NDArray[np.uint8]:
    """The image at another size, (height, width, 3) uint8. Raises `SpecError` for another kind of image."""
    require(image_HW3.ndim == 3 and image_HW3.dtype == np.uint8 and 0 not in image_HW3.shape, "an image must be (H, W, 3) uint8")
    require(width > 0 and height > 0, "an image must have pixels", got=(width, height))
    if (height, width) == image_HW3.shape[:2]:
        return image_HW3.copy()
    if height <= image_HW3.shape[0] and width <= image_HW3.shape[1]:
        return _averaged(image_HW3, width, height)
    return _between(image_HW3, width, height, _by_area)


def linear_resized(image_HW3: NDArray[np.uint8], *, width: int, height: int) -> NDArray[np.uint8]:
    """The image at another size by its nearest pixels, (height, width, 3) uint8. Raises `SpecError` for another kind of image."""
    require(image_HW3.ndim == 3 and image_HW3.dtype == np.uint8 and 0 not in image_HW3.shape, "an image must be (H, W, 3) uint8")
    require(width > 0 and height > 0, "an image must have pixels", got=(width, height))
    return _between(image_HW3, width, height, _by_centres)


def _averaged(image_HW3: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    rows, columns = image_HW3.shape[0] // height, image_HW3.shape[1] // width
    if (rows * height, columns * width) == image_HW3.shape[:2]:
        sums_HW3 = image_HW3.reshape(height, rows, width, columns, 3).sum((1, 3), dtype=np.int64)
        if (rows, columns) == (2, 2):
            return ((sums_HW3 + 2) >> 2).astype(np.uint8)
        return np.rint(sums_HW3.astype(np.float32) * np.float32(1.0 / (rows * columns))).astype(np.uint8)
    rows_HW3 = image_HW3.astype(np.float32)
    across_HW3 = _weighted(rows_HW3.transpose(1, 0, 2), width).transpose(1, 0, 2)
    return np.rint(np.clip(_weighted(across_HW3, height), 0, 255)).astype(np.uint8)


def _weighted(lines_LX3: NDArray[np.float32], out: int) -> NDArray[np.float32]:
    """`out` means of lines: the covered part of the first, whole ones, the covered part of the last."""
    scale = _scale(len(lines_LX3), out)
    begin = np.arange(out) * scale
    covered = np.minimum(scale, len(lines_LX3) - begin)
    last = np.minimum(np.floor(begin + scale).astype(np.int64), len(lines_LX3) - 1)
    first = np.minimum(np.ceil(begin).astype(np.int64), last)
    before, behind = first - begin, begin + scale - last
    total = np.zeros((out, *lines_LX3.shape[1:]), np.float32)

    def add(lines: NDArray[np.int64], shares: NDArray[np.floating], used: NDArray[np.bool_]) -> None:
        weights = np.where(used, shares / covered, 0.0).astype(np.float32)
        total[...] += lines_LX3[np.clip(lines, 0, len(lines_LX3) - 1)] * weights[:, None, None]

    add(first - 1, before, before > 1e-3)
    for offset in range(int(np.max(last - first))):
        add(first + offset, np.ones(out), first + offset < last)
    add(last, np.minimum(np.minimum(behind, 1.0), covered), behind > 1e-3)
    return total


def _between(image_HW3: NDArray[np.uint8], width: int, height: int, places: _Places) -> NDArray[np.uint8]:
    whole, (rows, columns) = image_HW3.astype(np.int64), image_HW3.shape[:2]
    left, share = places(columns, width)
    # along a row the border pixel alone counts outside; down the rows it stands for both, each rounded
    share = np.where((left < 0) | (left >= columns - 1), np.float32(0), share)
    left = np.clip(left, 0, columns - 1)
    of_left, of_right = _weights(share)
    across = (whole[:, left] * of_left[:, None] + whole[:, np.minimum(left + 1, columns - 1)] * of_right[:, None]) >> 4
    upper, share = places(rows, height)
    of_upper, of_lower = _weights(share)
    upper, lower = np.clip(upper, 0, rows - 1), np.clip(upper + 1, 0, rows - 1)
    mixed = ((of_upper[:, None, None] * across[upper]) >> 16) + ((of_lower[:, None, None] * across[lower]) >> 16)
    return np.clip((mixed + 2) >> 2, 0, 255).astype(np.uint8)


def _scale(length: int, out: int) -> float:
    """Source pixels a pixel, as one over its inverse: the last bit decides where a place is exactly whole."""
    return 1.0 / (out / length)


def _by_area(length: int, out: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The first of two neighbours of each output place, and the share of the second."""
    places = np.arange(out)
    first = np.floor(places * _scale(length, out)).astype(np.int64)
    share = ((places + 1) - (first + 1) * (out / length)).astype(np.float32)
    return first, np.where(share <= 0, np.float32(0), share - np.floor(share))


def _by_centres(length: int, out: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    centre = ((np.arange(out) + 0.5) * _scale(length, out) - 0.5).astype(np.float32)
    first = np.floor(centre).astype(np.int64)
    return first, centre - first.astype(np.float32)


def _weights(share: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The weights of the first and the second of two neighbours, in 1/2048."""
    one = np.float32(_WEIGHT_ONE)
    return np.rint((np.float32(1) - share) * one).astype(np.int64), np.rint(share * one).astype(np.int64)
