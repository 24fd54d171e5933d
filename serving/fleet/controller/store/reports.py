"""A cell's report becomes rows, and the answer is read from them, in one transaction: what was acknowledged is kept, nothing counts twice.

An episode is its cell and its id, whatever report carries it: one that is on record is acknowledged and not added again. A report with a
sequence that is not above the last one of the cell is an old one on a long way: its episodes count, the cell's present state stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update

from model_core.spec.errors import SpecError
from model_core.spec.fleet.documents import CellReport, DesiredState, EpisodeRecord
from model_core.spec.fleet.kept import kept_report
from serving.fleet.controller.store.kills import blocked_digests, blocked_for, change_count
from serving.fleet.controller.store.ran.spans import STALE_AFTER, Span, keep_ran
from serving.fleet.controller.store.rollouts import OpenRollout, open_rollouts
from serving.fleet.controller.store.tables import CELLS, EPISODES
from serving.fleet.controller.store.tallies import tally_episodes, tally_shadows

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

# a hundred times a second: making a statement takes longer than the database does with it, so each is made once
_LOCKED_CELLS = (
    select(
        *(
            CELLS.c[name]
            for name in (
                *("name", "site", "sequence", "seen_at_s", "revision"),
                *("release", "rollout", "plan", "stage", "reason", "shadow", "back_to"),
            )
        )
    )
    .where(CELLS.c.name.in_(bindparam("names", expanding=True)))
    .order_by(CELLS.c.name)
    .with_for_update()
)
_NEW_STATE = (
    update(CELLS)
    .where(CELLS.c.name == bindparam("b_name"))
    .values({name: bindparam(name) for name in ("sequence", "boot", "seen_at_s", "report")})
)
_KNOWN_EPISODES = select(EPISODES.c.cell, EPISODES.c.id).where(
    EPISODES.c.cell.in_(bindparam("cells", expanding=True)), EPISODES.c.id.in_(bindparam("ids", expanding=True))
)
_NEW_EPISODES = insert(EPISODES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A report whose signature was found right. at_s: by the controller's clock."""

    report: CellReport
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What a report brought: the answer, and how many episodes were new."""

    answer: DesiredState
    episodes: int


def ingest(db: Connection, received: Sequence[Received], *, report_every_s: float) -> list[Ingested]:
    """Put reports on record and answer each. Raises `SpecError` for a cell that is not enrolled, or at another site than it was.

    A batch is a handful of statements, however many reports are in it. Cells are locked in the order of their names, so that two
    controllers with reports of the same cells do not wait for each other.
    """
    names = list({one.report.cell for one in received})
    cells = {row["name"]: row for row in db.execute(_LOCKED_CELLS, {"names": names}).mappings()}
    for one in received:
        check_enrolled(one.report, cells.get(one.report.cell))
    new = _add_episodes(db, received)
    newest = _keep_newest(db, received, cells)
    shadowing = [(one.report, cells[name]) for name, one in newest.items() if one.report.shadow and cells[name]["shadow"]]
    tally_shadows(db, [(report, row["rollout"], row["shadow"]) for report, row in shadowing])
    said = {name: Span(cell=name, site=one.report.site, release=one.report.running, from_s=one.at_s) for name, one in newest.items()}
    seen_at_s = {name: cells[name]["seen_at_s"] for name in said}
    keep_ran(db, said, seen_at_s, [row for rows in new for row in rows], silence_s=STALE_AFTER * report_every_s)
    around = _Around(blocked=blocked_digests(db), changes=change_count(db), report_every_s=report_every_s)
    return [
        Ingested(answer=_answer(one, cells[one.report.cell], around), episodes=len(rows)) for one, rows in zip(received, new, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """What every answer carries. changes: how often kills changed, so that a revision grows with each."""

    blocked: tuple[str, ...]
    changes: int
    report_every_s: float


def _answer(received: Received, row: RowMapping, around: _Around) -> DesiredState:
    report = received.report
    back_to = json.loads(row["back_to"] or "[]")
    named = {report.running, report.target, row["release"], row["shadow"], *back_to, *(slot.release for slot in report.slots)}
    return DesiredState(
        cell=report.cell,
        revision=row["revision"] + around.changes,
        acknowledged_sequence=report.sequence,
        sent_at_s=received.at_s,
        release=row["release"],
        plan=row["plan"],
        stage=row["stage"],
        reason=row["reason"],
        shadow=row["shadow"],
        rollback_to=tuple(back_to),
        blocked=blocked_for(around.blocked, named),
        acknowledged=tuple(episode.id for episode in report.episodes),
        report_every_s=around.report_every_s,
    )


def _keep_newest(db: Connection, received: Sequence[Received], cells: Mapping[str, RowMapping]) -> dict[str, Received]:
    """The present state of each cell, by its report with the highest sequence, unless it is older than what is on record.

    Returns the reports that are kept, by cell.
    """
    newest: dict[str, Received] = {}
    for one in received:
        name = one.report.cell
        above = newest[name].report.sequence if name in newest else cells[name]["sequence"]
        if one.report.sequence > above:
            newest[name] = one
    told = [
        {"b_name": name, "sequence": one.report.sequence, "boot": one.report.boot, "seen_at_s": one.at_s, "report": kept_report(one.report)}
        for name, one in newest.items()
    ]
    if told:
        db.execute(_NEW_STATE, told)
    return newest


def check_enrolled(report: CellReport, row: RowMapping | None) -> None:
    """Raises `SpecError` for a report of a cell that is not enrolled here, or is enrolled at another site."""
    if row is None:
        raise SpecError(f"cell {report.cell} is not enrolled. Fix: `actwright fleet enrol` with its public key")
    if row["site"] != report.site:
        raise SpecError(f"cell {report.cell} is enrolled at {row['site']}, its report says {report.site}. Fix: enrol it again, or its file")


def _add_episodes(db: Connection, received: Sequence[Received]) -> list[list[dict[str, Any]]]:
    """Put the episodes on record that are not there yet; returns the rows that each report brought."""
    sent = {(one.report.cell, episode.id) for one in received for episode in one.report.episodes}
    if not sent:
        return [[] for _ in received]
    asked = {"cells": list({cell for cell, _ in sent}), "ids": list({number for _, number in sent})}
    known = {(row.cell, row.id) for row in db.execute(_KNOWN_EPISODES, asked)}
    rollouts = open_rollouts(db)
    new: list[list[dict[str, Any]]] = []
    for one in received:
        brought: list[dict[str, Any]] = []
        offset_s = one.at_s - one.report.sent_at_s  # of the clocks, and the way: what the cell's times are on ours
        for episode in one.report.episodes:
            if (one.report.cell, episode.id) not in known:
                known.add((one.report.cell, episode.id))
                brought.append(_row(episode, one, offset_s, rollouts))
        new.append(brought)
    if rows := [row for brought in new for row in brought]:
        db.execute(_NEW_EPISODES, rows)
        tally_episodes(db, rows, rollouts)
    return new


def _row(episode: EpisodeRecord, received: Received, offset_s: float, rollouts: Sequence[OpenRollout]) -> dict[str, Any]:
    report = received.report
    offset_s -= max(episode.ended_at_s + offset_s - received.at_s, 0.0)  # it is over: the cell's clock was set back since it ended
    started = episode.started_at_s + offset_s
    counted = episode.outcome != "uncounted"
    side = next(((one.id, found) for one in rollouts if (found := one.side_of(report, episode.release, started))), (None, None))
    return {
        "cell": report.cell,
        "id": episode.id,
        "boot": report.boot,
        "sequence": report.sequence,
        "release": episode.release,
        "task": episode.task,
        "site": report.site,
        "started_at_s": started,
        "ended_at_s": episode.ended_at_s + offset_s,
        "received_at_s": received.at_s,
        "success": int(episode.outcome == "success") if counted else None,
        "interventions": episode.interventions,
        "clips": episode.clips,
        "holds": episode.holds,
        "deadline_misses": episode.deadline_misses,
        "refusals": episode.refusals,
        "novelty": episode.novelty,
        "cut_by": episode.cut_by,
        "rollout": side[0],
        "side": side[1],
        "block": None,
    }
