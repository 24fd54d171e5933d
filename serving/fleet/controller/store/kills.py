"""The table of kills: what may not run, from the moment that one person says so until two persons release it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import func, insert, select, update

from model_core.spec.errors import SpecError, require
from model_core.spec.fleet.documents import LONGEST_REASON, MOST_DIGESTS
from model_core.spec.fleet.kill_list import LONGEST_VALUE, MOST_KILLS, names_model
from model_core.spec.settings import digest, text
from serving.fleet.controller.store.operator_log import Actor, append
from serving.fleet.controller.store.tables import CELLS, KILLS, RELEASES

if TYPE_CHECKING:
    from sqlalchemy import Connection

Scope = Literal["digest", "model", "cell", "site", "fleet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KillOrder:
    """scope "digest": a release; "model": every version of a model, or "NAME/3" alone; "cell", "site": where; "fleet": everything, without
    a target."""

    scope: Scope
    target: str = ""
    reason: str

    def __post_init__(self) -> None:
        text("reason", self.reason, longest=LONGEST_REASON)
        require((self.scope == "fleet") == (not self.target), f"scope {self.scope}: expected " + _targets(self.scope), got=self.target)
        if self.scope == "digest":
            digest("target", self.target)
        elif self.scope != "fleet":
            text("target", self.target, longest=LONGEST_VALUE)


def _targets(scope: str) -> str:
    return "no target" if scope == "fleet" else f"the {scope} as target"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """A row. release_asked_by: the first person who wants it released. released_at_s: None while it is in force."""

    id: int
    scope: Scope
    target: str
    reason: str
    ordered_by: str
    ordered_at_s: float
    release_asked_by: str = ""
    released_by: str = ""
    released_at_s: float | None = None

    def stops(self, release: str, model_version: str) -> bool:
        """Whether it names this release, or the model or version that the release holds. Kills of a cell, a site or the fleet do not: they
        stop cells, whatever these run."""
        if self.scope == "model":
            return names_model(self.target, model_version)
        return self.scope == "digest" and self.target == release


_KILLS = select(KILLS).order_by(KILLS.c.id)
_IN_FORCE = _KILLS.where(KILLS.c.released_at_s.is_(None))
_CHANGES = select(func.count(), func.count(KILLS.c.released_at_s))


def kills(db: Connection, *, in_force: bool = False) -> list[Kill]:
    """Every kill, or those that are not released, oldest first."""
    return [Kill(**row) for row in db.execute(_IN_FORCE if in_force else _KILLS).mappings()]


def change_count(db: Connection) -> int:
    """Grows with each kill and each release of one, so that every answer after it has a greater revision."""
    row = db.execute(_CHANGES).one()
    return int(row[0]) + int(row[1])


def blocked_digests(db: Connection) -> tuple[str, ...]:
    """Releases that no cell may run: those that were killed by their digest, then those of a killed model, offered last first."""
    found = [kill for kill in kills(db, in_force=True) if kill.scope in ("digest", "model")]
    digests = [kill.target for kill in found if kill.scope == "digest"]
    if any(kill.scope == "model" for kill in found):
        rows = db.execute(select(RELEASES.c.digest, RELEASES.c.model_version).order_by(RELEASES.c.offered_at_s.desc()))
        digests += [row.digest for row in rows if any(kill.stops(row.digest, row.model_version) for kill in found)]
    return tuple(dict.fromkeys(digests))


def blocked_for(blocked: tuple[str, ...], named: Collection[str]) -> tuple[str, ...]:
    """As many of them as an answer carries, sorted; of more those first that the cell has or is told of. named: these releases."""
    if len(blocked) > MOST_DIGESTS:
        blocked = (*(one for one in blocked if one in named), *(one for one in blocked if one not in named))[:MOST_DIGESTS]
    return tuple(sorted(blocked))


def add_kill(db: Connection, order: KillOrder, actor: Actor, now_s: float) -> tuple[Kill, str]:
    """Put a kill in force; returns it and the head of the log. Raises `SpecError` for a cell or site that is not known here, and for more
    kills than a signed list carries."""
    count = len(kills(db, in_force=True))
    room = MOST_KILLS - (order.scope != "fleet")  # the last place is for the whole fleet
    require(count < room, f"{count} kills are in force, the most that a list carries. Fix: kill the fleet, or release some")
    if order.scope in ("cell", "site"):
        column = CELLS.c.name if order.scope == "cell" else CELLS.c.site
        known = db.execute(select(column).where(column == order.target).limit(1)).first()
        require(known is not None, f"no {order.scope} {order.target!r} is enrolled here. Fix: `actwright fleet cells` lists them")
    number = int(db.execute(select(func.coalesce(func.max(KILLS.c.id), 0))).scalar_one()) + 1
    kill = Kill(id=number, scope=order.scope, target=order.target, reason=order.reason, ordered_by=actor.subject, ordered_at_s=now_s)
    db.execute(insert(KILLS).values({name: getattr(kill, name) for name in Kill.__dataclass_fields__}))
    return kill, append(db, actor, "kill", _told(kill), now_s)


def release_kill(db: Connection, number: int, actor: Actor, now_s: float) -> tuple[Kill, str]:
    """One person asks, another one releases; the same person under two tokens is one person. Raises `SpecError` where it does not fit."""
    row = db.execute(select(KILLS).where(KILLS.c.id == number).with_for_update()).mappings().first()
    if row is None:
        raise SpecError(f"there is no kill {number}. Fix: `actwright fleet kill list` lists them")
    kill = Kill(**row)
    if kill.released_at_s is not None:
        raise SpecError(f"kill {number} is released already, by {kill.release_asked_by} and {kill.released_by}")
    if not kill.release_asked_by:
        changed: Mapping[str, Any] = {"release_asked_by": actor.subject}
    elif kill.release_asked_by == actor.subject:
        raise SpecError(f"{actor.subject!r} asked for the release of kill {number}; a second person has to agree. Fix: ask another admin")
    else:
        changed = {"released_by": actor.subject, "released_at_s": now_s}
    db.execute(update(KILLS).where(KILLS.c.id == number).values(**changed))
    kill = Kill(**{**row, **changed})
    action = "kill released" if kill.released_at_s is not None else "release of kill asked"
    return kill, append(db, actor, action, _told(kill), now_s)


def _told(kill: Kill) -> dict[str, Any]:
    return {"id": kill.id, "scope": kill.scope, "target": kill.target, "reason": kill.reason}
