"""Values of several things with their intervals, one row each, as inline SVG text; a shade marks rows that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from components.drawing.charts import nice_ticks
from model_core.spec.errors import require

_LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 190, 70, 34, 30, 30
_LONGEST = 26


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingRow:
    """One row: a value with its interval. group: rows of one number, which follow each other, share a shade."""

    label: str
    value: float
    low: float
    high: float
    group: int = 1


def rating_chart(rows: Sequence[RatingRow], *, title: str, unit: str = "", mark: float | None = None, width: int = 760) -> str:
    """The rows from top to bottom over one axis. unit: what the axis counts. mark: a dashed line, such as the mean.

    Equal inputs give equal text. Raises `SpecError` without rows.
    """
    require(len(rows) > 0, f"chart {title!r} has no rows")
    low = min(min(row.low, row.value) for row in rows)
    high = max(max(row.high, row.value) for row in rows)
    pad = (high - low) * 0.05 or 1.0
    low, high = low - pad, high + pad
    height = _TOP + _ROW * len(rows) + _BOTTOM
    inner = width - _LEFT - _RIGHT

    def x(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * inner

    parts = [f'<text x="{_LEFT}" y="18" font-size="12" fill="currentColor">{escape(title)}</text>']
    parts += [_shade(rows, place, width) for place in range(len(rows))]
    for tick in nice_ticks(low, high, 6):
        parts.append(_line(x(tick), height - _BOTTOM, ".12"))
        parts.append(_text(f"{tick:g}", x(tick), height - 10, "middle"))
    if mark is not None and low < mark < high:
        parts.append(_line(x(mark), height - _BOTTOM, ".45", ' stroke-dasharray="3 3"'))
    if unit:
        parts.append(_text(unit, width - 4, height - 10, "end"))
    for place, row in enumerate(rows):
        parts += _row(row, _TOP + _ROW * place + _ROW / 2, (x(row.low), x(row.value), x(row.high)), width)
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    font = 'font-family="ui-sans-serif, system-ui, Arial, sans-serif"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _shade(rows: Sequence[RatingRow], place: int, width: int) -> str:
    """Every second group has a shade, so that neighbours differ."""
    order = list(dict.fromkeys(row.group for row in rows))
    if order.index(rows[place].group) % 2:
        return ""
    return f'<rect x="4" y="{_TOP + _ROW * place}" width="{width - 8}" height="{_ROW}" fill="currentColor" fill-opacity=".05"/>'


def _row(row: RatingRow, y: float, at: tuple[float, float, float], width: int) -> list[str]:
    left, middle, right = at
    label = row.label if len(row.label) <= _LONGEST else row.label[: _LONGEST - 1] + "…"
    told = f"{row.label}: {row.value:.0f}, {row.low:.0f} to {row.high:.0f}"
    return [
        f'<text x="{_LEFT - 14}" y="{y + 4:.1f}" text-anchor="end" font-size="12" fill="currentColor">{escape(label)}</text>',
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--c2, #0d9488)" stroke-width="3" opacity=".55">'
        f"<title>{escape(told)}</title></line>",
        f'<circle cx="{middle:.1f}" cy="{y:.1f}" r="5" fill="var(--c2, #0d9488)"/>',
        _text(f"{row.value:.0f}", width - 12, y + 4, "end"),
    ]


def _line(x: float, bottom: float, opacity: str, more: str = "") -> str:
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}" stroke="currentColor" stroke-opacity="{opacity}"{more}/>'


def _text(words: str, x: float, y: float, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="11" fill="currentColor" fill-opacity=".7">{escape(words)}</text>'
    )
