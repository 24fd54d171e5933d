"""The releases that a rollout may name, and the rollouts that MLflow's alias asks for; neither moves a cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from model_core.spec.settings import digest, text
from serving.fleet.controller.store.operator_log import Actor, append
from serving.fleet.controller.store.tables import RELEASES, REQUESTS

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a person says of a release when they offer it; robots check the release itself. allowed_by: the verdict or the override, in
    words. override_name, override_reason: "" where the verdict promotes."""

    digest: str
    model_version: str
    allowed_by: str
    override_name: str = ""
    override_reason: str = ""

    def __post_init__(self) -> None:
        digest("digest", self.digest)
        text("model_version", self.model_version, longest=200)
        text("allowed_by", self.allowed_by, longest=600)


def offer(db: Connection, given: Offer, actor: Actor, now_s: float) -> str:
    """Put a release on record, once; returns the log's head, "" where it was there already."""
    if db.execute(select(RELEASES.c.digest).where(RELEASES.c.digest == given.digest)).first() is not None:
        return ""
    facts = {name: getattr(given, name) for name in Offer.__dataclass_fields__}
    db.execute(insert(RELEASES).values(**facts, offered_by=actor.subject, offered_at_s=now_s))
    return append(db, actor, "offer", facts, now_s)


def offers(db: Connection) -> list[Offer]:
    """Every release on record, oldest first."""
    rows = db.execute(select(RELEASES).order_by(RELEASES.c.offered_at_s, RELEASES.c.digest)).mappings()
    return [Offer(**{name: row[name] for name in Offer.__dataclass_fields__}) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """A version that an alias names, so that somebody wants it on robots. source: who said so."""

    model: str
    version: str
    alias: str
    asked_at_s: float
    source: str


def request(db: Connection, asked: RolloutRequest) -> bool:
    """Put a request on record; False where the version was asked for before, for hints come twice and out of order."""
    here = (REQUESTS.c.model == asked.model) & (REQUESTS.c.version == asked.version)
    if db.execute(select(REQUESTS.c.model).where(here)).first() is not None:
        return False
    facts = {name: getattr(asked, name) for name in RolloutRequest.__dataclass_fields__}
    db.execute(insert(REQUESTS).values(**facts))
    told = {"model": asked.model, "version": asked.version, "alias": asked.alias}
    append(db, Actor(subject=asked.source, role="hint"), "rollout request", told, asked.asked_at_s)
    return True


def requests(db: Connection) -> list[RolloutRequest]:
    """Every request, oldest first."""
    rows = db.execute(select(REQUESTS).order_by(REQUESTS.c.asked_at_s)).mappings()
    return [RolloutRequest(**row) for row in rows]
