"""The table of kills as the signed list that policy services poll (`model_core.spec.fleet.kill_list`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from model_core.spec.fleet.kill_list import Kill as ListedKill
from model_core.spec.fleet.kill_list import KillList, ReleasedKill
from serving.fleet.controller.store.kills import kills
from serving.fleet.controller.store.tables import SETTINGS

if TYPE_CHECKING:
    from sqlalchemy import Connection

_NUMBER = "kill list"


def next_kill_list(db: Connection, now_s: float) -> KillList:
    """The list with the next number: also where nothing changed, for an old list proves nothing about now."""
    found = kills(db)
    listed = [
        ListedKill(
            id=f"kill-{one.id}", scope=one.scope, value=one.target, reason=one.reason[:200], by=one.ordered_by[:200], at_s=one.ordered_at_s
        )
        for one in found
        if one.released_at_s is None
    ]
    released = [
        ReleasedKill(id=f"kill-{one.id}", by=(one.release_asked_by, one.released_by)) for one in found if one.released_at_s is not None
    ]
    return KillList(number=_next_number(db), sent_at_s=now_s, kills=tuple(listed), released=tuple(released[-1_024:]))


def _next_number(db: Connection) -> int:
    """Of two controllers that ask at once each gets its own: the row is locked until the transaction ends."""
    row = db.execute(select(SETTINGS.c.value).where(SETTINGS.c.name == _NUMBER).with_for_update()).first()
    if row is None:
        db.execute(insert(SETTINGS).values(name=_NUMBER, value="1"))
        return 1
    number = int(row.value) + 1
    db.execute(update(SETTINGS).where(SETTINGS.c.name == _NUMBER).values(value=str(number)))
    return number
