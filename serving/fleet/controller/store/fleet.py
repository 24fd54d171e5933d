"""The cells on record: enrolment, what they last reported, and what is proposed to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update

from model_core.spec.fleet.documents import CellReport
from model_core.spec.fleet.kept import report_kept_as
from serving.fleet.controller.rollout.cohorts import CellView
from serving.fleet.controller.rollout.first_release import ALL_SITES, FirstRelease
from serving.fleet.controller.rollout.state import Assignment
from serving.fleet.controller.store.operator_log import Actor, append
from serving.fleet.controller.store.tables import CELLS, SETTINGS

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

_FROZEN, _FIRST = "frozen", "first release"
Offered = Mapping[str, frozenset[str]]  # site -> releases that its update metadata list; None where the controller reads none


def enrol(db: Connection, cell: str, site: str, public_key: str, actor: Actor, now_s: float) -> str:
    """Let a cell report, with this key (PEM) and no other; key and site of one that is enrolled are replaced. Returns the log's head."""
    told = {"site": site, "public_key": public_key, "enrolled_by": actor.subject, "enrolled_at_s": now_s}
    if db.execute(update(CELLS).where(CELLS.c.name == cell).values(**told)).rowcount == 0:
        db.execute(insert(CELLS).values(name=cell, **told))
    return append(db, actor, "enrol", {"cell": cell, "site": site, "key": public_key}, now_s)


def sites(db: Connection) -> list[str]:
    """Of the cells that are enrolled."""
    return list(db.execute(select(CELLS.c.site).distinct().order_by(CELLS.c.site)).scalars())


def public_keys(db: Connection) -> dict[str, str]:
    """Cell -> its public key, PEM."""
    return {row.name: row.public_key for row in db.execute(select(CELLS.c.name, CELLS.c.public_key))}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownCell:
    """A row of the cells, read. told: what is proposed, in the order of `TOLD`. report: the last one without its episodes, None before the
    first. view: as a rollout sees the cell, but for what it refuses."""

    name: str
    site: str
    seen_at_s: float
    told: tuple[object, ...]
    report: CellReport | None
    view: CellView

    @property
    def runs_nothing(self) -> bool:
        """Whether it has reported, never ran a release, has none on its disk, and is told none."""
        report = self.report
        is_bare = report is not None and not report.running and not report.version and not any(slot.release for slot in report.slots)
        return is_bare and not self.proposal["release"]

    @property
    def proposal(self) -> Mapping[str, Any]:
        """What is proposed, by the names of `TOLD`."""
        return dict(zip(TOLD, self.told, strict=True))

    def view_of(self, release: str, offered: Offered | None) -> CellView:
        """The cell as a rollout of `release` sees it."""
        error, view = self.report.error if self.report else None, self.view
        if offered is not None and release not in offered.get(self.site, frozenset()):
            view = replace(view, is_offered=False)
        if error is None or error.release != release or error.code in _PASSING:
            return view
        return replace(view, refused=f"{error.code}: {error.message}")


TOLD = ("release", "shadow", "rollout", "plan", "stage", "reason", "back_to")
_PASSING = ("UNREACHABLE", "EXPIRED", "NO_SPACE", "INTERNAL")  # what time or a hand at the cell repairs; the release is not at fault
_VERSION = ("name", "sequence", "revision", "site", "enrolled_at_s")  # one of them grows or differs with every change of a row


class KnownCells:
    """The cells as this process read them last; of the rows, only those that another version is of are read again. For one thread."""

    def __init__(self) -> None:
        self._cells: dict[str, KnownCell] = {}
        self._versions: dict[str, tuple[Any, ...]] = {}

    def read(self, db: Connection) -> list[KnownCell]:
        """Every cell as it is on record now, by name."""
        versions = {row[0]: row for row in map(tuple, db.execute(_VERSIONS).all())}
        changed = [name for name, version in versions.items() if self._versions.get(name) != version]
        for first in range(0, len(changed), _AT_ONCE):
            for row in db.execute(_ROWS, {"names": changed[first : first + _AT_ONCE]}).mappings():
                self._cells[row["name"]] = _known(row)
                self._versions[row["name"]] = versions[row["name"]]
        return [self._cells[name] for name in versions]


_AT_ONCE = 500
_VERSIONS = select(*(CELLS.c[name] for name in _VERSION)).order_by(CELLS.c.name)
_ROWS = select(*(CELLS.c[name] for name in ("name", "site", "seen_at_s", "report", *TOLD))).where(
    CELLS.c.name.in_(bindparam("names", expanding=True))
)


def _known(row: RowMapping) -> KnownCell:
    report = report_kept_as(row["report"]) if row["report"] else None
    view = CellView(name=row["name"], site=row["site"])
    if report is not None:
        told = {"tasks": report.tasks, "labels": report.labels, "running": report.running}
        view = CellView(name=row["name"], site=row["site"], seen_at_s=row["seen_at_s"], **told)
    proposed = tuple(row[name] for name in TOLD)
    return KnownCell(name=row["name"], site=row["site"], seen_at_s=row["seen_at_s"], told=proposed, report=report, view=view)


def assign(
    db: Connection, cells: Sequence[KnownCell], wanted: Mapping[str, Assignment], *, rollout: int | None, plan: str, back_to: str
) -> int:
    """Propose these; returns how many cells are told something else than before. back_to: the release that may be taken again."""
    last, told = None, ()
    changed = []
    for cell in cells:
        one = wanted.get(cell.name)
        if one is not last and one is not None:  # of many cells two or three are told different things
            last, told = one, _told(one, rollout, plan, back_to)
        if one is not None and cell.told != told:
            changed.append({"b_name": cell.name, **dict(zip(TOLD, told, strict=True))})
    if changed:
        columns = {name: bindparam(name) for name in TOLD}
        statement = update(CELLS).where(CELLS.c.name == bindparam("b_name")).values(**columns, revision=CELLS.c.revision + 1)
        db.execute(statement, changed)
    return len(changed)


def _told(one: Assignment, rollout: int | None, plan: str, back_to: str) -> tuple[object, ...]:
    allowed = {back_to} | ({one.release} if one.release else set())
    return (one.release, one.shadow, rollout, plan, one.stage, one.reason, json.dumps(sorted(allowed - {""})))


def is_frozen(db: Connection) -> bool:
    """Whether no rollout may start or go on."""
    return db.execute(select(SETTINGS.c.value).where(SETTINGS.c.name == _FROZEN)).scalar() == "yes"


def set_frozen(db: Connection, frozen: bool, reason: str, actor: Actor, now_s: float) -> str:
    """Freeze or unfreeze every rollout; returns the log's head."""
    _keep(db, _FROZEN, "yes" if frozen else "no")
    return append(db, actor, "freeze" if frozen else "unfreeze", {"reason": reason}, now_s)


def named_first(db: Connection) -> dict[str, str]:
    """Site -> the first release of cells that never ran one, as persons named it."""
    return json.loads(db.execute(select(SETTINGS.c.value).where(SETTINGS.c.name == _FIRST)).scalar() or "{}")


def name_first(db: Connection, order: FirstRelease, actor: Actor, now_s: float) -> str:
    """Name it for these sites, or for all; returns the log's head."""
    named = named_first(db) if order.sites else {}
    _keep(db, _FIRST, json.dumps({**named, **dict.fromkeys(order.sites or (ALL_SITES,), order.release)}, sort_keys=True))
    return append(db, actor, "first release", {"release": order.release, "sites": list(order.sites), "reason": order.reason}, now_s)


def _keep(db: Connection, name: str, value: str) -> None:
    if db.execute(update(SETTINGS).where(SETTINGS.c.name == name).values(value=value)).rowcount == 0:
        db.execute(insert(SETTINGS).values(name=name, value=value))
