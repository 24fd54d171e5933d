"""The cells on record: enrolment, what they last reported, and what is proposed to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, insert, select, update

from model_core.spec.fleet.documents import CellReport
from model_core.spec.fleet.kept import report_kept_as
from serving.fleet.controller.rollout.cohorts import CellView
from serving.fleet.controller.rollout.state import Assignment
from serving.fleet.controller.store.operator_log import Actor, append
from serving.fleet.controller.store.tables import CELLS, SETTINGS

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

_FROZEN = "frozen"


def enrol(db: Connection, cell: str, site: str, public_key: str, actor: Actor, now_s: float) -> str:
    """Let a cell report, with this key (PEM) and no other; key and site of one that is enrolled are replaced. Returns the log's head."""
    told = {"site": site, "public_key": public_key, "enrolled_by": actor.subject, "enrolled_at_s": now_s}
    if db.execute(update(CELLS).where(CELLS.c.name == cell).values(**told)).rowcount == 0:
        db.execute(insert(CELLS).values(name=cell, **told))
    return append(db, actor, "enrol", {"cell": cell, "site": site, "key": public_key}, now_s)


def public_keys(db: Connection) -> dict[str, str]:
    """Cell -> its public key, PEM."""
    return {row.name: row.public_key for row in db.execute(select(CELLS.c.name, CELLS.c.public_key))}


def cell_rows(db: Connection) -> Sequence[RowMapping]:
    """Every cell, by name."""
    return db.execute(select(CELLS).order_by(CELLS.c.name)).mappings().all()


def reported(text: str) -> CellReport | None:
    """The last report of a row; None before the first."""
    return report_kept_as(text) if text else None


def view_of(row: RowMapping, release: str) -> CellView:
    """A cell as a rollout of `release` sees it."""
    report = reported(row["report"])
    if report is None:
        return CellView(name=row["name"], site=row["site"])
    error = report.error
    return CellView(
        name=row["name"],
        site=row["site"],
        tasks=report.tasks,
        labels=report.labels,
        running=report.running,
        refused=f"{error.code}: {error.message}" if error and error.release == release and error.code not in _PASSING else "",
        seen_at_s=row["seen_at_s"],
    )


_PASSING = ("UNREACHABLE", "EXPIRED", "NO_SPACE", "INTERNAL")  # what time or a hand at the cell repairs; the release is not at fault


def assign(db: Connection, rows: Sequence[RowMapping], wanted: Mapping[str, Assignment], *, rollout: int, plan: str, back_to: str) -> int:
    """Propose these; returns how many cells are told something else than before. back_to: the release that may be taken again."""
    told = {one: _told(one, rollout, plan, back_to) for one in set(wanted.values())}  # two or three, of many cells
    changed = []
    for row in rows:
        facts = told[wanted[row["name"]]] if row["name"] in wanted else {}
        if any(row[name] != value for name, value in facts.items()):
            changed.append({"b_name": row["name"], **facts})
    if changed:
        columns = {name: bindparam(name) for name in changed[0] if name != "b_name"}
        statement = update(CELLS).where(CELLS.c.name == bindparam("b_name")).values(**columns, revision=CELLS.c.revision + 1)
        db.execute(statement, changed)
    return len(changed)


def _told(one: Assignment, rollout: int, plan: str, back_to: str) -> dict[str, object]:
    allowed = {back_to} | ({one.release} if one.release else set())
    return {
        "release": one.release,
        "shadow": one.shadow,
        "rollout": rollout,
        "plan": plan,
        "stage": one.stage,
        "reason": one.reason,
        "back_to": json.dumps(sorted(allowed - {""})),
    }


def is_frozen(db: Connection) -> bool:
    """Whether no rollout may start or go on."""
    return db.execute(select(SETTINGS.c.value).where(SETTINGS.c.name == _FROZEN)).scalar() == "yes"


def set_frozen(db: Connection, frozen: bool, reason: str, actor: Actor, now_s: float) -> str:
    """Freeze or unfreeze every rollout; returns the log's head."""
    value = "yes" if frozen else "no"
    if db.execute(update(SETTINGS).where(SETTINGS.c.name == _FROZEN).values(value=value)).rowcount == 0:
        db.execute(insert(SETTINGS).values(name=_FROZEN, value=value))
    return append(db, actor, "freeze" if frozen else "unfreeze", {"reason": reason}, now_s)
