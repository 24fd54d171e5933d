"""The rows of the log of orders (`model_core.spec.fleet.order_log`): added in the transaction of what they tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

from model_core.spec.fleet.order_log import BEFORE_FIRST, LogEntry
from serving.fleet.controller.store.tables import LOG

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who did it: a person by the subject of their token, or "controller" for its own rules."""

    subject: str
    role: str


RULES = Actor(subject="controller", role="rules")


def append(db: Connection, actor: Actor, action: str, detail: Mapping[str, Any], at_s: float) -> str:
    """Add an entry in the transaction of what it tells; returns its hash. Of two controllers that add the same number one is let."""
    last = newest(db)
    number, previous = (last.number + 1, last.hash) if last else (1, BEFORE_FIRST)
    text = json.dumps(detail, sort_keys=True, ensure_ascii=True)
    told = {"number": number, "at_s": at_s, "subject": actor.subject, "role": actor.role, "action": action, "detail": text}
    digest = LogEntry(**told, previous=previous, hash="").expected_hash
    db.execute(insert(LOG).values(**told, previous=previous, hash=digest))
    return digest


def newest(db: Connection) -> LogEntry | None:
    """The last entry; None before the first."""
    row = db.execute(select(LOG).order_by(LOG.c.number.desc()).limit(1)).mappings().first()
    return LogEntry(**row) if row else None


def entries(db: Connection, *, after: int = 0, most: int = 1_000) -> list[LogEntry]:
    """Entries with a greater number than `after`, oldest first."""
    rows = db.execute(select(LOG).where(LOG.c.number > after).order_by(LOG.c.number).limit(most)).mappings()
    return [LogEntry(**row) for row in rows]
