"""The releases that a rollout may name, the rollouts that MLflow's alias asks for, and what persons decided of these; none moves a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import insert, select, update

from model_core.spec.errors import SpecError
from model_core.spec.fleet.documents import checked_reason
from model_core.spec.fleet.offers import OfferedRelease
from model_core.spec.settings import digest, text
from serving.fleet.controller.store.operator_log import Actor, append
from serving.fleet.controller.store.tables import DECISIONS, RELEASES, REQUESTS

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, RowMapping


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


def check_signed(given: Offer, offered: Mapping[str, Mapping[str, OfferedRelease]]) -> None:
    """Raises `SpecError` for a release that no site's update metadata offer, or of which they say something else. offered: site -> digest
    -> what was signed."""
    rows = [rows[given.digest] for rows in offered.values() if given.digest in rows]
    if not rows:
        raise SpecError(
            f"the update metadata offer release {given.digest[:16]} to no site of this fleet. Fix: `actwright fleet release publish` it"
        )
    said = (given.model_version, given.override_name, given.override_reason)
    for row in rows:
        signed = (row.model_version, row.override.name if row.override else "", row.override.reason if row.override else "")
        if signed != said:
            raise SpecError(f"release {given.digest[:16]} is offered as {said}, the site signed {signed}. Fix: offer the release as it is")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person decides of a request. release: digest that may be rolled out for it, "" to decline."""

    model: str
    version: str
    release: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.release:
            digest("release", self.release)
        checked_reason(self.reason)

    @property
    def told(self) -> str:
        """For messages."""
        return f"{self.model[:100]}/{self.version[:40]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStatus:
    """A request and what became of it. releases: digests of that version that were offered, oldest first. decision: of decided_by,
    about `release`. rollout: that was started for it."""

    model: str
    version: str
    alias: str
    asked_at_s: float
    source: str
    releases: tuple[str, ...] = ()
    decision: Literal["open", "approved", "declined"] = "open"
    release: str = ""
    decided_by: str = ""
    reason: str = ""
    rollout: int | None = None


def requests(db: Connection) -> list[RequestStatus]:
    """Every request, oldest first."""
    offered: dict[str, list[str]] = {}
    for one in offers(db):
        offered.setdefault(one.model_version, []).append(one.digest)
    decided = {(row["model"], row["version"]): row for row in db.execute(select(DECISIONS)).mappings()}
    rows = db.execute(select(REQUESTS).order_by(REQUESTS.c.asked_at_s)).mappings()
    return [
        RequestStatus(
            **row,
            releases=tuple(offered.get(f"{row['model']}/{row['version']}", ())),
            **_told(decided.get((row["model"], row["version"]))),
        )
        for row in rows
    ]


def _told(row: RowMapping | None) -> dict[str, Any]:
    if row is None:
        return {}
    told = {name: row[name] for name in ("release", "decided_by", "reason", "rollout")}
    return {"decision": "approved" if row["is_approved"] else "declined", **told}


def _request_of(db: Connection, model: str, version: str) -> RequestStatus | None:
    return next((one for one in requests(db) if (one.model, one.version) == (model, version)), None)


def _about(model: str, version: str) -> ColumnElement[bool]:
    return (DECISIONS.c.model == model) & (DECISIONS.c.version == version)


def decide(db: Connection, given: Decision, actor: Actor, now_s: float) -> str:
    """Put a decision on record; returns the log's head, "" where the same was decided before.

    Raises `SpecError` for a version that was not asked for, a release that is not one of it, and what was decided otherwise.
    """
    asked = _request_of(db, given.model, given.version)
    if asked is None:
        raise SpecError(f"no request of {given.told} is on record. Fix: `actwright fleet requests list` shows what was asked for")
    if given.release and given.release not in asked.releases:
        raise SpecError(
            f"release {given.release[:16]} is not one of {given.told} that was offered to this controller. Fix: `actwright fleet offer` it"
        )
    if asked.decision == ("approved" if given.release else "declined") and asked.release == given.release:
        return ""
    if asked.decision == "declined" or asked.rollout is not None or (asked.decision == "approved" and given.release):
        about = f" with rollout {asked.rollout}" if asked.rollout is not None else ""
        raise SpecError(
            f"{given.told} was {asked.decision} by {asked.decided_by} already{about}. Fix: order it by hand: `actwright fleet rollout`"
        )
    values = {"is_approved": bool(given.release), "release": given.release, "decided_by": actor.subject, "decided_at_s": now_s}
    values |= {"reason": given.reason}
    if (
        db.execute(update(DECISIONS).where(_about(given.model, given.version), DECISIONS.c.rollout.is_(None)).values(**values)).rowcount
        == 0
    ):
        db.execute(insert(DECISIONS).values(model=given.model, version=given.version, **values))
    told = {"model": given.model, "version": given.version, "release": given.release, "reason": given.reason}
    return append(db, actor, "request approved" if given.release else "request declined", told, now_s)


def approved(db: Connection, model: str, version: str) -> RequestStatus:
    """A request that a person approved, which no other transaction starts until this one ends. Raises `SpecError` for another one."""
    db.execute(select(DECISIONS.c.model).where(_about(model, version)).with_for_update()).first()
    found = _request_of(db, model, version)
    if found is None or found.decision != "approved":
        raise SpecError(
            f"{model[:100]}/{version[:40]} was not approved. Fix: `actwright fleet requests approve {model[:100]}/{version[:40]}`"
        )
    return found


def keep_rollout(db: Connection, asked: RequestStatus, rollout: int) -> None:
    """Put on record which rollout was started for a request."""
    db.execute(update(DECISIONS).where(_about(asked.model, asked.version)).values(rollout=rollout))
