"""Spans are written as reports arrive: a report that tells what the one before told writes nothing.

A span ends where a report tells another release or another site, or comes after a silence that is longer than a cell may be silent. An
episode that reports do not cover, such as one that was run without the controller, is a span of its own: a cell changes its release
between episodes only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update

from serving.fleet.controller.store.tables import RAN

if TYPE_CHECKING:
    from sqlalchemy import Connection

_GOING_ON = select(RAN).where(RAN.c.cell.in_(bindparam("cells", expanding=True)), RAN.c.until_s.is_(None))  # made once: for each report
STALE_AFTER = 6.0  # times the interval of reports: who is silent for longer may have done anything meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time for which a cell is known to have run a release ("" for none). until_s: None while it goes on. episode: its id where one
    tells it, "" where reports do."""

    cell: str
    site: str
    release: str
    from_s: float
    until_s: float | None = None
    episode: str = ""


def next_spans(known: Span | None, seen_at_s: float, said: Span, silence_s: float) -> list[Span]:
    """The spans of one cell after a further report, of those that change: `known` as it is now, and the one that goes on from here.

    known: that goes on so far, last told at `seen_at_s`. Empty where the report tells the same, soon enough.
    """
    if known is None:
        return [said]
    if (known.release, known.site) == (said.release, said.site) and said.from_s - seen_at_s <= silence_s:
        return []
    return [replace(known, until_s=max(known.from_s, seen_at_s)), said]


def keep_ran(
    db: Connection, said: Mapping[str, Span], seen_at_s: Mapping[str, float], episodes: Sequence[Mapping[str, Any]], *, silence_s: float
) -> None:
    """Put on record what new reports and new episodes tell.

    said: cell -> what its newest report tells, from when that was received. seen_at_s: cell -> when it was heard before. episodes: new
    rows of that table, of the same cells or others.
    """
    cells = {*said, *(str(row["cell"]) for row in episodes)}
    if not cells:
        return
    rows = db.execute(_GOING_ON, {"cells": list(cells)}).mappings()
    going_on = {row["cell"]: Span(**{name: row[name] for name in Span.__dataclass_fields__}) for row in rows}
    ended: list[dict[str, object]] = []
    begun: list[Span] = []
    for cell, one in said.items():
        for span in next_spans(going_on.get(cell), seen_at_s[cell], one, silence_s):
            if span.until_s is None:
                begun.append(span)
                going_on[cell] = span
            else:
                ended.append({"b_cell": cell, "b_until_s": span.until_s})
    begun += [_of_episode(row) for row in episodes if not _is_covered(row, going_on.get(row["cell"]))]
    if ended:
        open_one = (RAN.c.cell == bindparam("b_cell")) & RAN.c.until_s.is_(None)
        db.execute(update(RAN).where(open_one).values(until_s=bindparam("b_until_s")), ended)
    if begun:
        db.execute(insert(RAN), [asdict(span) for span in begun])


def _is_covered(row: Mapping[str, Any], going_on: Span | None) -> bool:
    return going_on is not None and going_on.release == row["release"] and going_on.from_s <= row["started_at_s"]


def _of_episode(row: Mapping[str, Any]) -> Span:
    until_s = max(row["started_at_s"], row["ended_at_s"])
    return Span(cell=row["cell"], site=row["site"], release=row["release"], from_s=row["started_at_s"], until_s=until_s, episode=row["id"])
