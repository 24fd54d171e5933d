"""Images for people: rollout strips, traces drawn on the camera's view, depth in colour, training examples. Pillow only.

Equal inputs give equal bytes: no time, no random, no font of the machine (Pillow's own is used). Shape letters: H W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model_core.spec.errors import require
from model_core.spec.files import atomic_write
from model_core.spec.types import Trace
from model_core.tokenization.trace import draw_overlay, to_pixels

PREDICTED_RGB = (255, 196, 61)  # what the model predicted
TRUE_RGB = (74, 222, 190)  # what was right
_FILM_RGB, _INK_RGB, _FAINT_RGB, _HOLE_RGB = (18, 20, 26), (236, 238, 243), (139, 146, 160), (48, 52, 64)
# near to far, from a bright warm to a deep cold; evenly rising lightness, so that it also reads without colour
_DEPTH_RAMP = np.array([(253, 231, 150), (251, 173, 96), (229, 103, 92), (166, 58, 110), (94, 36, 112), (38, 22, 72), (10, 8, 28)], float)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panel:
    """One moment: the camera image, with what was predicted and what is true.

    image_HW3: uint8 RGB. depth_HW, true_depth_HW: metres, or anything that grows with distance.
    """

    image_HW3: NDArray[np.uint8]
    caption: str = ""
    predicted: Trace | None = None
    true: Trace | None = None
    depth_HW: NDArray[np.floating] | None = None
    true_depth_HW: NDArray[np.floating] | None = None


def overlay(
    image_HW3: NDArray[np.uint8], *, predicted: Trace | None = None, true: Trace | None = None, side: int = 240
) -> NDArray[np.uint8]:
    """The camera's view, enlarged to `side` pixels in height, with traces on it: true below, predicted above, a dot where it ends."""
    view = _enlarged(image_HW3, side)
    thickness = max(2, side // 60)
    for trace, color in ((true, TRUE_RGB), (predicted, PREDICTED_RGB)):
        if trace is None:
            continue
        view = draw_overlay(view, trace, thickness=thickness + 2, color=(0, 0, 0))
        view = draw_overlay(view, trace, thickness=thickness, color=color)
        view = _with_end(view, trace, thickness, color)
    return view


def depth_image(depth_HW: NDArray[np.floating], *, near: float | None = None, far: float | None = None) -> NDArray[np.uint8]:
    """Distances as colours, near bright and far dark: uint8 (H, W, 3). near, far: the ends of the scale (default: the map's own)."""
    require(depth_HW.ndim == 2, "a depth map must be (H, W)", got=depth_HW.shape)
    values_HW = np.asarray(depth_HW, np.float64)
    low = float(np.nanmin(values_HW)) if near is None else near
    high = float(np.nanmax(values_HW)) if far is None else far
    share_HW = np.clip((values_HW - low) / (high - low), 0.0, 1.0) if high > low else np.zeros_like(values_HW)
    places_HW = np.nan_to_num(share_HW, nan=1.0) * (len(_DEPTH_RAMP) - 1)
    stops = np.arange(len(_DEPTH_RAMP))
    return np.stack([np.rint(np.interp(places_HW, stops, _DEPTH_RAMP[:, c])) for c in range(3)], axis=-1).astype(np.uint8)


def rollout_strip(panels: Sequence[Panel], *, title: str = "", tile: int = 176, most: int = 6) -> Image.Image:
    """One episode as a strip of frames: the camera with the trace on it, below it the predicted depth, captions under both.

    At most `most` panels are shown, evenly chosen, always the first and the last.
    """
    require(len(panels) > 0, "a rollout strip needs at least one panel")
    chosen = [panels[i] for i in sorted({round(i) for i in np.linspace(0, len(panels) - 1, min(most, len(panels)))})]
    compared = any(p.true_depth_HW is not None for p in chosen)
    depth_side = 0 if all(p.depth_HW is None for p in chosen) else tile // 2 if compared else tile
    gap, edge, head = 8, 22, 30 if title else 8
    title_width = 2 * gap + 4 + round(_font(15).getbbox(title)[2]) if title else 0
    width = max(gap + len(chosen) * (tile + gap), title_width)
    height = head + edge + tile + (depth_side + gap if depth_side else 0) + 24 + edge
    strip = Image.new("RGB", (width, height), _FILM_RGB)
    draw = ImageDraw.Draw(strip)
    if title:
        draw.text((gap + 2, 9), title, fill=_INK_RGB, font=_font(15))
    _perforate(draw, width, head + 5)
    _perforate(draw, width, height - 15)
    for place, panel in enumerate(chosen):
        left, top = gap + place * (tile + gap), head + edge
        _paste(strip, overlay(_square(panel.image_HW3), predicted=panel.predicted, true=panel.true, side=tile), left, top)
        top += tile + 4
        if depth_side and panel.depth_HW is not None:
            _paste(strip, _enlarged(depth_image(panel.depth_HW), depth_side), left, top)
            if panel.true_depth_HW is not None:
                _paste(strip, _enlarged(depth_image(panel.true_depth_HW), depth_side), left + tile - depth_side, top)
        top += depth_side + 4
        draw.text((left + 1, top), panel.caption, fill=_FAINT_RGB, font=_font(12))
    return strip


def example_sheet(panels: Sequence[Panel], *, tile: int = 200, columns: int = 3) -> Image.Image:
    """Training examples: camera with predicted (yellow) and true (green) trace; beside it predicted depth, and true depth."""
    require(len(panels) > 0, "an example sheet needs at least one panel")
    half, gap = (tile - 6) // 2, 10
    cell_width, cell_height = tile + 6 + half, tile + 26
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (gap + columns * (cell_width + gap), gap + rows * (cell_height + gap) + 20), _FILM_RGB)
    draw = ImageDraw.Draw(sheet)
    for place, panel in enumerate(panels):
        left, top = gap + place % columns * (cell_width + gap), gap + place // columns * (cell_height + gap)
        _paste(sheet, overlay(_square(panel.image_HW3), predicted=panel.predicted, true=panel.true, side=tile), left, top)
        for below, depth in enumerate((panel.depth_HW, panel.true_depth_HW)):
            if depth is not None:
                _paste(sheet, _enlarged(depth_image(depth), half), left + tile + 6, top + below * (half + 6))
        draw.text((left + 1, top + tile + 5), panel.caption, fill=_FAINT_RGB, font=_font(12))
    _legend(draw, gap, sheet.height - 22)
    return sheet


def png_bytes(image: Image.Image | NDArray[np.uint8]) -> bytes:
    """The image as PNG, without any metadata."""
    drawn = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", optimize=False, compress_level=6)
    return buffer.getvalue()


def save_png(image: Image.Image | NDArray[np.uint8], path: Path) -> Path:
    """Write a PNG atomically and return its path."""
    atomic_write(path, png_bytes(image))
    return path


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _square(image_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Any image as a square, so that tiles line up; a square one stays as it is. Traces are of the whole image."""
    height, width = image_HW3.shape[:2]
    if height == width:
        return image_HW3
    return np.asarray(Image.fromarray(image_HW3).resize((max(height, width),) * 2, Image.Resampling.BICUBIC))


def _enlarged(image_HW3: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width = image_HW3.shape[:2]
    size = (round(width * side / height), side)
    return np.asarray(Image.fromarray(np.ascontiguousarray(image_HW3)).resize(size, Image.Resampling.BICUBIC))


def _with_end(view_HW3: NDArray[np.uint8], trace: Trace, thickness: int, color: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A ring where the trace begins, a filled dot where it ends; drawn at twice the size for smooth edges."""
    height, width = view_HW3.shape[:2]
    large = Image.fromarray(view_HW3).resize((width * 2, height * 2), Image.Resampling.BICUBIC)
    draw, points = ImageDraw.Draw(large), 2 * to_pixels(trace.points_N2, width=width, height=height)
    radius = 3.6 * thickness
    for (x, y), filled in ((points[0], False), (points[-1], True)):
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=color if filled else None, outline=(0, 0, 0) if filled else color, width=thickness if not filled else 2)
    return np.asarray(large.resize((width, height), Image.Resampling.BOX))


def _paste(onto: Image.Image, view_HW3: NDArray[np.uint8], left: int, top: int) -> None:
    onto.paste(Image.fromarray(view_HW3), (left, top))


def _perforate(draw: ImageDraw.ImageDraw, width: int, top: int) -> None:
    for left in range(10, width - 12, 22):
        draw.rounded_rectangle((left, top, left + 12, top + 8), radius=2, fill=_HOLE_RGB)


def _legend(draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
    for color, text in ((PREDICTED_RGB, "predicted by the model"), (TRUE_RGB, "true")):
        draw.rounded_rectangle((left, top + 5, left + 22, top + 9), radius=2, fill=color)
        draw.text((left + 28, top - 1), text, fill=_INK_RGB, font=_font(12))
        left += 170
    draw.text((left, top - 1), "right: predicted depth, below it the true depth", fill=_FAINT_RGB, font=_font(12))
