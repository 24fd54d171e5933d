"""The three published ways to draw a trace into an image: for training, for steering, and for a viewer.

    training    points 0..255 over the image at its own size, rounded to pixels and moved inside, two pixels thick
    steering    the frame as 256x256, points in pixels of the frame cut to whole ones and scaled, three pixels thick, not moved inside
    viewer      the predicted trace drawn like training on the 256x256 frame, which is then brought back to its size

All in cyan: the published code means yellow, but writes it into an RGB image in the order of BGR. A trace of one point draws nothing, as
published, although the prompt then says that a trajectory is annotated: do not steer with one point.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import SpecError, require
from model_core.spec.types import Trace
from model_core.tokenization.overlays.antialiased import draw_polyline
from model_core.tokenization.overlays.resizing import area_resized, linear_resized
from model_core.tokenization.trace import STEERING_RGB, TRAINING_THICKNESS, to_pixels

Points = NDArray[np.integer] | NDArray[np.floating]

STEERING_THICKNESS = 3
STEERING_SIDE = 256


def training_overlay(image_HW3: NDArray[np.uint8], *traces: Trace | Points) -> NDArray[np.uint8]:
    """The image with its traces drawn as for trajectory-conditioned training, in the given order. The image itself stays.

    traces: of 0..255, whatever the size of the image; arrays (N, 2) may hold decimals and points outside, which are moved inside.
    Draw on the first image of a sample, before any resizing or augmentation. Raises `SpecError` for other shapes.
    """
    height, width = image_HW3.shape[:2]
    drawn = image_HW3.copy()
    for trace in traces:
        points_N2 = _points(trace)
        pixels_N2 = np.rint(to_pixels(points_N2, width=width, height=height))
        draw_polyline(drawn, _corners(np.clip(pixels_N2, 0, [width - 1, height - 1])), thickness=TRAINING_THICKNESS, color=STEERING_RGB)
    return drawn


def steering_overlay(square_HW3: NDArray[np.uint8], points_N2: Points, *, width: int, height: int) -> NDArray[np.uint8]:
    """The 256x256 frame with a user's points drawn as the published steering does. The frame itself stays.

    square_HW3: the frame resized to 256x256 (`resizing.area_resized`). points_N2: (x, y) in pixels of the frame as it was,
    `width` x `height`. Raises `SpecError` for other shapes.
    """
    require(square_HW3.shape[:2] == (STEERING_SIDE, STEERING_SIDE), "the published steering draws on 256x256", got=square_HW3.shape)
    drawn = square_HW3.copy()
    whole_N2 = _points(points_N2).astype(np.int64)
    scaled_N2 = np.rint(whole_N2 * ((STEERING_SIDE - 1) / np.array([width, height])))
    draw_polyline(drawn, _corners(scaled_N2), thickness=STEERING_THICKNESS, color=STEERING_RGB)
    return drawn


def viewer_overlay(image_HW3: NDArray[np.uint8], trace: Trace | Points) -> NDArray[np.uint8]:
    """The image with a predicted trace as the published viewer shows it: drawn on its 256x256 form, brought back to its size.

    trace: of 0..255, as in `training_overlay`. The image itself stays.
    """
    height, width = image_HW3.shape[:2]
    square_HW3 = area_resized(image_HW3, width=STEERING_SIDE, height=STEERING_SIDE)
    return linear_resized(training_overlay(square_HW3, trace), width=width, height=height)


def _points(trace: Trace | Points) -> NDArray[np.float64]:
    points_N2 = np.asarray(trace.points_N2 if isinstance(trace, Trace) else trace, np.float64)
    if points_N2.ndim != 2 or points_N2.shape[1] != 2 or not np.isfinite(points_N2).all():
        raise SpecError(f"a trace to draw must be (N, 2) finite numbers, got {points_N2.shape}")
    return points_N2


def _corners(pixels_N2: NDArray[np.floating]) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in pixels_N2]
