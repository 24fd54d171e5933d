"""One decision as one image: the camera with the predicted trace, the predicted depth, actions as answered and executed.

+-----------+-----------+----------------------+
| camera    | depth     | dx   ---o---o---     |
| + trace   | predicted | dy   ...             |
+-----------+-----------+----------------------+
| who, what, how long every stage took         |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from components.drawing.images import PREDICTED_RGB, TRUE_RGB, depth_image, overlay
from model_core.spec.contract import VectorSpec
from model_core.spec.types import Trace

_BACK, _PANEL, _INK, _FAINT, _GRID = (18, 20, 26), (26, 29, 37), (236, 238, 243), (139, 146, 160), (58, 63, 76)
_SIDE, _GAP, _PLOT_WIDTH, _LINE = 300, 12, 392, 18
# one for each of the eight stages that a probe can tell, none of them a colour of the plots
_STAGE_RGB = (
    *((240, 238, 160), (108, 118, 140), (143, 132, 255), (244, 114, 182)),
    *((96, 165, 250), (190, 190, 190), (251, 133, 72), (124, 192, 96)),
)
_LABEL = 124  # pixels left of a plot, for its dimension's name and unit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecisionView:
    """What is to be drawn.

    images: camera -> uint8 (H, W, 3); the trace belongs to `trace_camera`. depth_HW: decoded distances; where there is no codec for
    them, codes_G are drawn as they are. raw_KA: as answered; executed: (row, action (A,)) as the driver got them.
    """

    title: str
    images: Mapping[str, NDArray[np.uint8]]
    action: VectorSpec
    raw_KA: NDArray[np.floating] | None = None
    executed: Sequence[tuple[float, NDArray[np.floating]]] = ()
    trace: Trace | None = None
    trace_camera: str = ""
    depth_HW: NDArray[np.floating] | None = None
    codes_G: NDArray[np.integer] | None = None
    notes: Sequence[str] = ()
    timing_ms: Mapping[str, float] = field(default_factory=dict)


def draw_decision(view: DecisionView) -> Image.Image:
    """The image. Equal views give equal bytes."""
    tiles = _tiles(view)
    plots = _plots(view)
    lines = [line for note in view.notes for line in _wrapped(note, 150)]
    stages = {name: ms for name, ms in view.timing_ms.items() if ms > 0}
    body = max([_SIDE + 24, plots.height])
    height = 44 + body + _GAP + _LINE * len(lines) + (46 if stages else 0) + _GAP
    width = _GAP + sum(tile.width + _GAP for _, tile in tiles) + plots.width + _GAP
    sheet = Image.new("RGB", (width, height), _BACK)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 12), view.title, fill=_INK, font=_font(17))
    left = _GAP
    for caption, tile in tiles:
        sheet.paste(tile, (left, 44))
        draw.text((left, 44 + tile.height + 4), caption, fill=_FAINT, font=_font(12))
        left += tile.width + _GAP
    sheet.paste(plots, (left, 44))
    top = 44 + body + _GAP
    if stages:
        _draw_stages(draw, stages, _GAP, top, width - 2 * _GAP)
        top += 46
    for line in lines:
        draw.text((_GAP, top), line, fill=_FAINT, font=_font(13))
        top += _LINE
    return sheet


def _tiles(view: DecisionView) -> list[tuple[str, Image.Image]]:
    tiles = []
    for name, image_HW3 in view.images.items():
        trace = view.trace if name == (view.trace_camera or next(iter(view.images))) else None
        caption = f"camera {name}" + ("" if trace is None else ", predicted trace")
        tiles.append((caption, _fit(overlay(image_HW3, predicted=trace, side=_SIDE))))
    if not view.images:
        tiles.append(("the frames are not in the file any more", _fit(np.full((_SIDE, _SIDE, 3), _PANEL, np.uint8))))
    if view.depth_HW is not None:
        tiles.append(("predicted depth, near is bright", _fit(_large(depth_image(view.depth_HW)))))
    elif view.codes_G is not None:
        grid_HW = (255 - 2 * np.asarray(view.codes_G).reshape(10, 10)).astype(np.uint8)
        image_HW3 = _large(np.repeat(grid_HW[..., None], 3, axis=2), Image.Resampling.NEAREST)
        tiles.append(("depth codes (no codec for them here)", _fit(image_HW3)))
    return tiles


def _plots(view: DecisionView) -> Image.Image:
    dims = view.action.dims
    columns = 1 if len(dims) <= 7 else 2
    rows = -(-len(dims) // columns)
    each = max(44, min(96, (_SIDE + 20) // max(rows, 1)))
    sheet = Image.new("RGB", (columns * _PLOT_WIDTH + (columns - 1) * _GAP, rows * each + 24), _BACK)
    draw = ImageDraw.Draw(sheet)
    for place, dim in enumerate(dims):
        left, top = place // rows * (_PLOT_WIDTH + _GAP), place % rows * each
        box = (left + _LABEL, top + 3, left + _PLOT_WIDTH - 6, top + each - 6)
        draw.text((left, top + each // 2 - 14), dim.name, fill=_INK, font=_font(13))
        draw.text((left, top + each // 2 + 2), dim.unit[:24], fill=_FAINT, font=_font(10))
        raw_K = None if view.raw_KA is None else np.asarray(view.raw_KA, np.float64)[:, place]
        sent = [(row, float(np.asarray(action_A)[place])) for row, action_A in view.executed]
        _draw_plot(draw, box, dim.low, dim.high, raw_K, sent)
    for at, color, text in ((_LABEL, PREDICTED_RGB, "as answered"), (_LABEL + 110, TRUE_RGB, "as executed")):
        draw.ellipse((at, rows * each + 7, at + 8, rows * each + 15), fill=color)
        draw.text((at + 14, rows * each + 3), text, fill=_FAINT, font=_font(12))
    return sheet


def _draw_plot(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    low: float,
    high: float,
    raw_K: NDArray[np.float64] | None,
    sent: list[tuple[float, float]],
) -> None:
    left, top, right, bottom = box
    draw.rectangle(box, fill=_PANEL)
    middle = (top + bottom) / 2
    draw.line((left, middle, right, middle), fill=_GRID)
    steps = max(len(raw_K) if raw_K is not None else 0, 1 + int(max((row for row, _ in sent), default=0)), 2)

    def at(row: float, value: float) -> tuple[float, float]:
        share = min(max((value - low) / (high - low), -0.03), 1.03) if np.isfinite(value) else 0.5
        return left + 6 + row * (right - left - 12) / (steps - 1), bottom - 3 - share * (bottom - top - 6)

    if raw_K is not None:
        points = [at(row, value) for row, value in enumerate(raw_K)]
        draw.line(points, fill=PREDICTED_RGB, width=2)
        for x, y in points:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=PREDICTED_RGB)
    for row, value in sent:
        x, y = at(row, value)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), outline=TRUE_RGB, width=2)


def _draw_stages(draw: ImageDraw.ImageDraw, stages: Mapping[str, float], left: int, top: int, width: int) -> None:
    """Every stage as a bar, its length its time."""
    total = sum(stages.values())
    x, label = float(left), float(left)
    for place, (name, ms) in enumerate(stages.items()):
        part = width * ms / total
        color = _STAGE_RGB[place % len(_STAGE_RGB)]
        draw.rectangle((x, top, x + max(part - 1, 1), top + 12), fill=color)
        text = f"{name} {ms:.1f} ms"
        length = _font(12).getlength(text)
        if label + length + 18 <= left + width:
            draw.rectangle((label, top + 22, label + 8, top + 30), fill=color)
            draw.text((label + 12, top + 18), text, fill=_FAINT, font=_font(12))
            label += length + 30
        x += part


def _large(image_HW3: NDArray[np.uint8], how: Image.Resampling = Image.Resampling.BICUBIC) -> NDArray[np.uint8]:
    height, width = image_HW3.shape[:2]
    return np.asarray(Image.fromarray(image_HW3).resize((round(width * _SIDE / height), _SIDE), how))


def _fit(image_HW3: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image_HW3))


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
