"""Charts as inline SVG text: curves, interval bars, time bars, the lineage graph. No library, no script, no outside font.

Colours are CSS variables with fallbacks, so that a page may theme them; text takes the page's own colour. Equal inputs give equal
text: numbers are rounded to a tenth of a unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from model_core.spec.errors import require

Point = tuple[float, float]
PALETTE = ("--c1", "--c2", "--c3", "--c4", "--c5")
_FALLBACK = ("#d97706", "#0d9488", "#7c3aed", "#db2777", "#64748b")


def curve_chart(
    curves: Mapping[str, Sequence[Point]], *, title: str = "", width: int = 640, height: int = 260, log_y: bool = False, smooth: int = 0
) -> str:
    """Curves of (step, value) with axes, grid and legend. smooth: draw also a running mean over so many points, the raw curve faint.

    Points that are not finite are left out; `log_y` needs positive values. Raises `SpecError` when nothing is left.
    """
    usable = {name: _usable(points, log_y) for name, points in curves.items()}
    usable = {name: points for name, points in usable.items() if points}
    require(len(usable) > 0, f"chart {title!r} has no finite point to draw")
    frame = _Frame.around([p for points in usable.values() for p in points], width, height, log_y)
    body = [frame.grid()]
    for place, (name, points) in enumerate(usable.items()):
        color = _color(place)
        if smooth > 1 and len(points) > 2 * smooth:
            body.append(frame.path(_thinned(points), color, 1.0, 0.28))
            points = running_mean(points, smooth)
        body.append(frame.path(_thinned(points), color, 2.0, 1.0, name))
    body.append(_curve_legend(list(usable), frame))
    return _svg(width, height, title or "curves", "".join(body))


def interval_bar(successes: int, trials: int, low: float, high: float, *, floor: float | None = None, width: int = 340) -> str:
    """A success rate as a dot on 0..1 with its interval as a bar around it and the floor as a mark."""
    height, inner = 26, width - 12
    rate = successes / trials if trials else 0.0

    def x(share: float) -> str:
        return f"{6 + share * inner:.1f}"

    parts = [f'<line x1="6" x2="{width - 6}" y1="13" y2="13" stroke="currentColor" stroke-opacity=".18" stroke-width="2"/>']
    parts += [
        f'<line x1="{x(q)}" x2="{x(q)}" y1="10" y2="16" stroke="currentColor" stroke-opacity=".25"/>' for q in (0, 0.25, 0.5, 0.75, 1)
    ]
    bar = f'x="{x(low)}" width="{max(1.0, (high - low) * inner):.1f}" y="8" height="10" rx="5"'
    parts.append(f'<rect {bar} fill="{_color(1)}" fill-opacity=".35"/>')
    if floor is not None:
        parts.append(
            f'<line x1="{x(floor)}" x2="{x(floor)}" y1="3" y2="23" stroke="{_color(3)}" stroke-width="1.5" stroke-dasharray="3 2"/>'
        )
    if trials:
        parts.append(f'<circle cx="{x(rate)}" cy="13" r="5" fill="{_color(1)}"/>')
    return _svg(width, height, f"{successes} of {trials}, 95 % interval {low:.2f} to {high:.2f}", "".join(parts))


def lineage_graph(nodes: Sequence[Node], edges: Sequence[tuple[str, str]], *, columns: int = 4, width: int = 1000) -> str:
    """Boxes in reading order, `columns` a row, joined by arrows. A node shows a kind, a name and a detail."""
    box_width, box_height, gap_x, gap_y = 196, 66, (width - columns * 196) / max(1, columns - 1), 44
    place = {node.key: (i % columns * (box_width + gap_x), i // columns * (box_height + gap_y)) for i, node in enumerate(nodes)}
    rows = -(-len(nodes) // columns)
    height = rows * box_height + (rows - 1) * gap_y
    arrows = "".join(_arrow(place[a], place[b], box_width, box_height) for a, b in edges if a in place and b in place)
    boxes = "".join(_box(node, *place[node.key], box_width, box_height) for node in nodes)
    head = '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
    head += '<path d="M0 0.6 8 4 0 7.4z" fill="currentColor" fill-opacity=".5"/></marker></defs>'
    return _svg(width, math.ceil(height), "lineage", head + arrows + boxes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A thing in the lineage: what it is, its name, and a digest or number. accent: drawn in the accent colour."""

    key: str
    kind: str
    name: str
    detail: str = ""
    accent: bool = False


def running_mean(points: Sequence[Point], window: int) -> list[Point]:
    """Mean of the last `window` values (fewer at the start), at the same steps."""
    means, total = [], 0.0
    for i, (step, value) in enumerate(points):
        total += value - (points[i - window][1] if i >= window else 0.0)
        means.append((step, total / min(i + 1, window)))
    return means


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers inside [low, high], about `count` of them."""
    if high <= low:
        return [low]
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """Maps data to pixels inside the margins."""

    x0: float
    x1: float
    y0: float
    y1: float
    width: int
    height: int
    log_y: bool

    @staticmethod
    def around(points: Sequence[Point], width: int, height: int, log_y: bool) -> _Frame:
        xs = [p[0] for p in points]
        ys = [math.log10(p[1]) if log_y else p[1] for p in points]
        low, high = min(ys), max(ys)
        pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        bottom = low - pad if log_y or low < 0 else max(0.0, low - pad)
        return _Frame(x0=min(xs), x1=max(max(xs), min(xs) + 1e-9), y0=bottom, y1=high + pad, width=width, height=height, log_y=log_y)

    def at(self, x: float, y: float) -> tuple[float, float]:
        value = math.log10(y) if self.log_y else y
        left, right, top, bottom = 48, 12, 30, 26
        px = left + (x - self.x0) / (self.x1 - self.x0) * (self.width - left - right)
        py = self.height - bottom - (value - self.y0) / (self.y1 - self.y0) * (self.height - top - bottom)
        return px, py

    def grid(self) -> str:
        parts = []
        ticks = nice_ticks(self.y0, self.y1, 5)
        for tick in ticks:
            value = 10.0**tick if self.log_y else tick
            _, y = self.at(self.x0, value)
            parts.append(f'<line x1="48" x2="{self.width - 12}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" stroke-opacity=".12"/>')
            parts.append(f'<text x="42" y="{y + 4:.1f}" text-anchor="end" class="t">{_short(value)}</text>')
        for tick in nice_ticks(self.x0, self.x1, 6):
            x, _ = self.at(tick, 10.0**self.y0 if self.log_y else self.y0)
            anchor = "end" if x > self.width - 24 else "middle"  # half of a number does not fit beside the last place
            parts.append(f'<text x="{x:.1f}" y="{self.height - 8}" text-anchor="{anchor}" class="t">{_short(tick)}</text>')
        return "".join(parts)

    def path(self, points: Sequence[Point], color: str, stroke: float, opacity: float, name: str = "") -> str:
        places = [self.at(x, y) for x, y in points]
        if len(places) == 1:
            return f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3" fill="{color}"/>'
        d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        style = f'stroke="{color}" stroke-width="{stroke}" stroke-opacity="{opacity}" fill="none" stroke-linejoin="round"'
        label = f"<title>{escape(name)}</title>" if name else ""
        return f'<path d="{d}" {style}>{label}</path>'


def _usable(points: Sequence[Point], log_y: bool) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log_y)]


def _thinned(points: Sequence[Point], most: int = 600) -> list[Point]:
    """At most about `most` points, keeping the lowest and highest of every stretch, so that spikes stay visible."""
    if len(points) <= most:
        return list(points)
    kept: list[Point] = []
    size = math.ceil(2 * len(points) / most)
    for start in range(0, len(points), size):
        part = points[start : start + size]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return kept


def _curve_legend(names: Sequence[str], frame: _Frame) -> str:
    parts, left = [], 48.0
    for place, name in enumerate(names):
        parts.append(f'<rect x="{left:.0f}" y="9" width="14" height="4" rx="2" fill="{_color(place)}"/>')
        parts.append(f'<text x="{left + 20:.0f}" y="15" class="t">{escape(name)}</text>')
        left += 38 + 6.6 * len(name)
    return "".join(parts)


def _arrow(a: Point, b: Point, w: float, h: float) -> str:
    style = 'fill="none" stroke="currentColor" stroke-opacity=".4" stroke-width="1.5" marker-end="url(#tip)"'
    if abs(a[1] - b[1]) < 1:
        start, stop = (a[0] + w, b[0] - 2) if b[0] > a[0] else (a[0], b[0] + w + 2)
        return f'<path d="M{start:.1f} {a[1] + h / 2:.1f}H{stop:.1f}" {style}/>'
    x0, x1 = a[0] + w / 2, b[0] + w / 2
    if abs(x0 - x1) > 1:  # keep clear of what leaves or enters the middle of the other box
        x1 += w / 4 if x0 > x1 else -w / 4
    y0, y1 = (a[1] + h, b[1] - 2) if b[1] > a[1] else (a[1], b[1] + h + 2)
    middle = (y0 + y1) / 2
    return f'<path d="M{x0:.1f} {y0:.1f}C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}" {style}/>'


def _box(node: Node, x: float, y: float, w: float, h: float) -> str:
    edge = _color(0) if node.accent else "currentColor"
    faint = "1" if node.accent else ".22"
    box = f'<rect x="{x + 0.75:.1f}" y="{y + 0.75:.1f}" width="{w - 1.5:.1f}" height="{h - 1.5:.1f}" rx="10"'
    box += f' fill="var(--card, none)" stroke="{edge}" stroke-opacity="{faint}" stroke-width="1.5"/>'
    lines = f'<text x="{x + 14:.1f}" y="{y + 20:.1f}" class="k">{escape(node.kind)}</text>'
    lines += f'<text x="{x + 14:.1f}" y="{y + 38:.1f}" class="n">{escape(_cut(node.name, 22))}</text>'
    return box + lines + f'<text x="{x + 14:.1f}" y="{y + 54:.1f}" class="d">{escape(_cut(node.detail, 25))}</text>'


def _svg(width: int, height: int, label: str, body: str) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(label)}">{body}</svg>'


def _color(place: int) -> str:
    return f"var({PALETTE[place % len(PALETTE)]}, {_FALLBACK[place % len(_FALLBACK)]})"


def _short(value: float) -> str:
    if value and abs(value) < 0.01:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:.4g}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
