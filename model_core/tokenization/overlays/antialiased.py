"""Anti-aliased thick lines, pixel for pixel as OpenCV 4.11 draws them on 8-bit images (`cv2.line` with `LINE_AA`).

A thick segment is a filled rectangle and a filled polygon for each round end. A polygon's border is blended along its longer axis, three
pixels a step, with a Gaussian of the distance to the border (sigma 12/32 pixel); the inside is filled row by row. Coordinates are integers
in 1/65536 pixel, and every rounding is part of the result: a line drawn otherwise differs by some grey levels along its border.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import require

Color = tuple[int, int, int]
Point = tuple[int, int]

_SHIFT = 16
_ONE = 1 << _SHIFT
# 64 distances of 1/32 pixel, from a pixel's middle on; and 32 slopes: steeper borders cross less of a pixel
_PROFILE = (255.0 * np.exp(-((np.arange(64) - 15.5) ** 2) / 576.0)).astype(np.int64)
_SLOPES = (256.0 * np.sqrt((1.0 + ((np.arange(32) + 0.5) / 32.0) ** 2) / 2.0)).astype(np.int64)


def draw_polyline(image_HW3: NDArray[np.uint8], corners: list[Point], *, thickness: int, color: Color) -> None:
    """Draw connected segments into `image_HW3`, in place; each with both ends rounded. Parts outside the image are left out.

    corners: (x, y) in whole pixels; one corner alone draws nothing. thickness: 2 or more pixels.
    """
    require(image_HW3.ndim == 3 and image_HW3.shape[2] == 3 and image_HW3.dtype == np.uint8, "an image must be (H, W, 3) uint8")
    require(thickness >= 2, "a drawn line must be at least two pixels thick", got=thickness)
    for start, stop in pairwise(corners):
        first, last = (start[0] << _SHIFT, start[1] << _SHIFT), (stop[0] << _SHIFT, stop[1] << _SHIFT)
        length = math.hypot(start[0] - stop[0], start[1] - stop[1])
        if length > 0:
            half = ((thickness << (_SHIFT - 1)) + (thickness & 1) * _ONE * 0.5) / length
            across = round((stop[1] - start[1]) * half), round((start[0] - stop[0]) * half)
            rectangle = [_moved(first, across, 1), _moved(first, across, -1), _moved(last, across, -1), _moved(last, across, 1)]
            _fill_polygon(image_HW3, rectangle, color)
        for end in (first, last):
            _fill_polygon(image_HW3, _round_end(end, thickness << (_SHIFT - 1)), color)


def _moved(point: Point, by: Point, sign: int) -> Point:
    return point[0] + sign * by[0], point[1] + sign * by[1]


def _round_end(centre: Point, radius: int) -> list[Point]:
    """The polygon of a circle; the last corner is the first again, and both are drawn."""
    pixels = (radius + (_ONE >> 1)) >> _SHIFT
    step = 90 if pixels < 3 else 30 if pixels < 10 else 18 if pixels < 15 else 5
    corners: list[Point] = []
    for angle in range(0, 361, step):
        cosine, sine = (float(np.float32(round(turn(math.radians(angle)), 7))) for turn in (math.cos, math.sin))
        corner = round(centre[0] + radius * cosine), round(centre[1] + radius * sine)
        if not corners or corner != corners[-1]:
            corners.append(corner)
    return corners


def _fill_polygon(image_HW3: NDArray[np.uint8], corners: list[Point], color: Color) -> None:
    """A convex polygon: its border blended, its inside in full colour."""
    for start, stop in zip([corners[-1], *corners[:-1]], corners, strict=True):
        _blend_border(image_HW3, start, stop, color)
    height, width = image_HW3.shape[:2]
    half = _ONE >> 1
    (left, right), (top, bottom) = (
        ((min(values) + half) >> _SHIFT, (max(values) + half) >> _SHIFT) for values in zip(*corners, strict=True)
    )
    if len(corners) < 3 or right < 0 or bottom < 0 or left >= width or top >= height:
        return
    _fill_rows(image_HW3, corners, color, top, min(bottom, height - 1))


class _Side:
    """One of the two chains of edges from the highest corner down: where it crosses the current row."""

    def __init__(self, corner: int, direction: int, row: int) -> None:
        self.corner, self.direction, self.until = corner, direction, row
        self.x, self.step = -_ONE, 0


def _fill_rows(image_HW3: NDArray[np.uint8], corners: list[Point], color: Color, top: int, bottom: int) -> None:
    highest = min(range(len(corners)), key=lambda corner: corners[corner][1])
    sides = _Side(highest, 1, top), _Side(highest, len(corners) - 1, top)
    edges = len(corners)
    for row in range(top, bottom + 1):
        if row < bottom or row == top:
            for side in sides:
                if row >= side.until:
                    edges = _next_edge(side, corners, row, edges)
        if edges < 0:
            return
        if row >= 0:
            near, far = sorted((sides[0].x, sides[1].x))
            image_HW3[row, max((near + _ONE - 1) >> _SHIFT, 0) : max((far >> _SHIFT) + 1, 0)] = color
        for side in sides:
            side.x += side.step


def _next_edge(side: _Side, corners: list[Point], row: int, edges: int) -> int:
    """Move a side to its edge that reaches below `row`; returns how many edges are left, below zero when there was none."""
    begin = side.corner
    while (edges := edges - 1) >= 0:
        end = (begin + side.direction) % len(corners)
        until = (corners[end][1] + (_ONE >> 1)) >> _SHIFT
        if until > row:
            across, rows = corners[end][0] - corners[begin][0], until - row
            side.until, side.corner, side.x = until, end, corners[begin][0]
            side.step = _divided(across * 2 + rows, 2 * rows)
            return edges
        begin = end
    return edges


def _divided(number: int, by: int) -> int:
    """Integer division that cuts off, also below zero."""
    return number // by if number >= 0 else -(-number // by)


def _blend_border(image_HW3: NDArray[np.uint8], start: Point, stop: Point, color: Color) -> None:
    clipped = _clipped(start, stop, image_HW3.shape[1] << _SHIFT, image_HW3.shape[0] << _SHIFT)
    if clipped is None:
        return
    (x1, y1), (x2, y2) = clipped
    lying = abs(x2 - x1) > abs(y2 - y1)
    # u: the longer axis, one pixel a step; v: the shorter one
    (u1, v1), (u2, v2) = ((x1, y1), (x2, y2)) if lying else ((y1, x1), (y2, x2))
    if u2 < u1:
        u1, v1, u2, v2 = u2, v2, u1, v1
    step = _divided((v2 - v1) << _SHIFT, (u2 - u1) | 1)
    u2 += _ONE
    count = (u2 >> _SHIFT) - (u1 >> _SHIFT)
    numbers_S = np.arange(count + 1)
    u_S = (u1 >> _SHIFT) + numbers_S
    v_S = v1 + ((step * -(u1 & (_ONE - 1))) >> _SHIFT) + (_ONE >> 1) + numbers_S * step
    strength_S = _ends(step, u1, u2)[np.minimum(numbers_S, 2) * 3 + np.minimum(count - numbers_S, 2)]
    distance_S = (v_S >> (_SHIFT - 5)) & 31
    # each step touches the pixels before, at and behind the border: no pixel twice, so all are blended at once
    profile_3S = _PROFILE[np.stack([distance_S + 32, distance_S, 63 - distance_S])]
    row_3S = (v_S >> _SHIFT) + np.array([[-1], [0], [1]])
    plane = image_HW3 if lying else image_HW3.transpose(1, 0, 2)  # plane[v, u]
    seen_3S = (u_S >= 0) & (u_S < plane.shape[1]) & (row_3S >= 0) & (row_3S < plane.shape[0])
    rows_P, columns_P = row_3S[seen_3S], np.broadcast_to(u_S, row_3S.shape)[seen_3S]
    alpha_P1 = ((strength_S * profile_3S >> 8) & 0xFF)[seen_3S, None]
    pixels_P3 = plane[rows_P, columns_P].astype(np.int64)
    for _ in range(2):
        pixels_P3 += ((np.array(color) - pixels_P3) * alpha_P1 + 127) >> 8
    plane[rows_P, columns_P] = pixels_P3.astype(np.uint8)


def _ends(step: int, u1: int, u2: int) -> NDArray[np.int64]:
    """Strength of a border's steps, by min(steps done, 2) * 3 + min(steps left, 2): the first and last ones cover a part of a pixel."""
    index = (step >> (_SHIFT - 5)) & 0x3F ^ (0x3F if step < 0 else 0)
    full = 0x100 if index & 0x20 else int(_SLOPES[index])
    begin, end = (u1 >> (_SHIFT - 7)) & 0x78, (u2 >> (_SHIFT - 7)) & 0x78
    first, last, whole = ((0x78 - begin) | 4) * full, (end | 4) * full, full << 7
    short, both = (((end - begin) & 0x78) | 4) * full, ((end - begin + 0x80) | 4) * full
    table = [0, short >> 8, first >> 8, short >> 8, both >> 8, (first + whole) >> 8, last >> 8, (last + whole) >> 8, full]
    return np.array(table, np.int64) & 0x1FF


def _clipped(start: Point, stop: Point, width: int, height: int) -> tuple[Point, Point] | None:
    """The part of a segment inside 0..width-1, 0..height-1; None when there is none. First along y, then along x, each rounded."""
    right, bottom = width - 1, height - 1
    ends = [list(start), list(stop)]
    if _outside(ends[0], right, bottom) & _outside(ends[1], right, bottom):
        return None
    for axis, limit in ((1, bottom), (0, right)):
        other = 1 - axis
        for end in ends:
            if 0 <= end[axis] <= limit:
                continue
            edge = 0 if end[axis] < 0 else limit
            end[other] += int(float(edge - end[axis]) * (ends[1][other] - ends[0][other]) / (ends[1][axis] - ends[0][axis]))
            end[axis] = edge
        if _outside(ends[0], right, bottom) & _outside(ends[1], right, bottom):
            return None
    return (ends[0][0], ends[0][1]), (ends[1][0], ends[1][1])


def _outside(end: list[int], right: int, bottom: int) -> int:
    return (end[0] < 0) + (end[0] > right) * 2 + (end[1] < 0) * 4 + (end[1] > bottom) * 8
