"""What ran where at a time, and where a release ever ran: read from the spans, with what is not known said so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import case, func, select, true

from serving.fleet.controller.store.tables import CELLS, RAN, RELEASES

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

_MOST_NAMED = 500  # cells in one question; for more all are read

Proof = Literal["reports", "episode", "both sides", "changed", "before", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellAt:
    """What one cell ran at a time. release: "" for none, and where nothing is known. from_s, until_s: of the evidence.

    proof: "reports" told it before and after without a long silence; "episode": one of this release was running; "both sides": told before
    and after a silence, nothing in between; "changed": another one after the silence (then_release, from then_from_s); "before": silent
    since until_s; "none": nothing is known of that time. told: the same in a sentence.
    """

    cell: str
    site: str
    release: str = ""
    model_version: str = ""
    proof: Proof = "none"
    from_s: float = 0.0
    until_s: float = 0.0
    episode: str = ""
    then_release: str = ""
    then_model_version: str = ""
    then_from_s: float = 0.0
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOfRelease:
    """A cell that ran a release: when first and last, by the evidence; is_now: its newest report tells it."""

    cell: str
    site: str
    from_s: float
    until_s: float
    is_now: bool


def ran_at(db: Connection, at_s: float, silence_s: float) -> list[CellAt]:
    """Every cell that is enrolled, by name. silence_s: how long a cell may be silent before nothing is taken to be known of it."""
    versions = {row.digest: row.model_version for row in db.execute(select(RELEASES.c.digest, RELEASES.c.model_version))}
    until = func.coalesce(RAN.c.until_s, CELLS.c.seen_at_s)
    covers_until = func.coalesce(RAN.c.until_s, CELLS.c.seen_at_s + silence_s)
    spans = select(RAN, until.label("told_until_s")).join(CELLS, CELLS.c.name == RAN.c.cell)
    covering: dict[str, list[RowMapping]] = {}
    for row in db.execute(spans.where(RAN.c.from_s <= at_s, covers_until >= at_s).order_by(RAN.c.id)).mappings():
        covering.setdefault(row["cell"], []).append(row)
    rows = db.execute(select(CELLS.c.name, CELLS.c.site).order_by(CELLS.c.name)).all()
    rest = [row.name for row in rows if row.name not in covering]
    before: dict[str, RowMapping] = {}
    after: dict[str, RowMapping] = {}
    if rest:
        those = RAN.c.cell.in_(rest) if len(rest) <= _MOST_NAMED else true()
        before = _nearest(db, spans, (those & (covers_until < at_s), func.max(until), until))
        after = _nearest(db, spans, (those & (RAN.c.from_s > at_s), func.min(RAN.c.from_s), RAN.c.from_s))
    return [_told(row.name, row.site, (covering.get(row.name, []), before.get(row.name), after.get(row.name)), versions) for row in rows]


def _nearest(db: Connection, spans: Any, found: tuple[Any, Any, Any]) -> dict[str, RowMapping]:
    """Cell -> its span on one side of the time. found: which spans are there, the time of the nearest, and that time of a span."""
    where, nearest, time = found
    asked = select(RAN.c.cell, nearest.label("nearest")).join(CELLS, CELLS.c.name == RAN.c.cell).where(where).group_by(RAN.c.cell)
    best = asked.subquery()
    rows = db.execute(spans.join(best, (best.c.cell == RAN.c.cell) & (time == best.c.nearest)).where(where).order_by(RAN.c.id))
    return {row["cell"]: row for row in rows.mappings()}


def _told(
    cell: str, site: str, around: tuple[Sequence[RowMapping], RowMapping | None, RowMapping | None], versions: Mapping[str, str]
) -> CellAt:
    covering, before, after = around
    row = next((one for one in covering if one["episode"]), covering[-1] if covering else before)
    if row is None:
        first = f"; first heard of at {_time(after['from_s'])}" if after else ""
        return CellAt(cell=cell, site=site, told=f"nothing is known of that time{first}")
    then = None if covering else after
    facts: dict[str, Any] = {"cell": cell, "site": row["site"], "release": row["release"], "from_s": row["from_s"]}
    facts |= {"model_version": versions.get(row["release"], ""), "until_s": row["told_until_s"], "episode": row["episode"]}
    proof: Proof = "before"
    if covering:
        proof = "episode" if row["episode"] else "reports"
    elif then is not None:
        proof = "both sides" if then["release"] == row["release"] else "changed"
        facts |= {"then_release": then["release"], "then_from_s": then["from_s"]}
        facts["then_model_version"] = versions.get(then["release"], "")
    return CellAt(**facts, proof=proof, told=_sentence(proof, row, then, others={one["release"] for one in covering} - {row["release"]}))


def _sentence(proof: Proof, row: RowMapping, then: RowMapping | None, *, others: set[str]) -> str:
    what, until = _name(row["release"]), _time(row["told_until_s"])
    if proof == "episode":
        other = f"; its reports told {_name(min(others))}: a clock was wrong" if others else ""
        return f"episode {row['episode']} ran {what} from {_time(row['from_s'])} to {until}{other}"
    if proof == "reports":
        return f"its reports told {what} from {_time(row['from_s'])} to {until}"
    if then is None:
        return f"its reports told {what} until {until}; silent since"
    told_then = "and again" if proof == "both sides" else f"and {_name(then['release'])}"
    return f"its reports told {what} until {until}, {told_then} from {_time(then['from_s'])}; silent in between"


def _name(release: str) -> str:
    return f"release {release[:12]}" if release else "no release"


def _time(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def ran_release(db: Connection, release: str) -> list[CellOfRelease]:
    """Every cell that is known to have run a release, by name."""
    until = func.coalesce(RAN.c.until_s, CELLS.c.seen_at_s)
    is_now = func.max(case((RAN.c.until_s.is_(None), 1), else_=0))
    asked = select(RAN.c.cell, func.max(RAN.c.site), func.min(RAN.c.from_s), func.max(until), is_now)
    rows = db.execute(
        asked.join(CELLS, CELLS.c.name == RAN.c.cell).where(RAN.c.release == release).group_by(RAN.c.cell).order_by(RAN.c.cell)
    )
    return [CellOfRelease(cell=cell, site=site, from_s=first, until_s=last, is_now=bool(now)) for cell, site, first, last, now in rows]
