"""A cell's report becomes rows, and the answer is read from them, in one transaction: what was acknowledged is kept, nothing counts twice.

An episode is its cell and its id, whatever report carries it: one that is on record is acknowledged and not added again. A report with a
sequence that is not above the last one of the cell is an old one on a long way: its episodes count, the cell's present state stays.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from model_core.spec.errors import SpecError
from model_core.spec.fleet.documents import CellReport, DesiredState, EpisodeRecord
from model_core.spec.fleet.kept import kept_report
from serving.fleet.controller.store.kills import blocked_digests, change_count
from serving.fleet.controller.store.rollouts import OpenRollout, open_rollouts
from serving.fleet.controller.store.tables import CELLS, EPISODES

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

_SAME_START_S = 60.0  # an episode that a cell whose clock jumps puts into the future ended when it was received


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
    is_newest: bool


def ingest(db: Connection, received: Sequence[Received], *, report_every_s: float) -> list[Ingested]:
    """Put reports on record and answer each. Raises `SpecError` for a cell that is not enrolled, or at another site than it was."""
    rollouts = open_rollouts(db)
    blocked, changes = blocked_digests(db), change_count(db)
    done = []
    for one in received:
        report = one.report
        row = db.execute(select(CELLS).where(CELLS.c.name == report.cell).with_for_update()).mappings().first()
        check_enrolled(report, row)
        assert row is not None
        new = _add_episodes(db, one, rollouts)
        is_newest = report.sequence > row["sequence"]
        if is_newest:
            told = {"sequence": report.sequence, "boot": report.boot, "seen_at_s": one.at_s, "report": kept_report(report)}
            db.execute(update(CELLS).where(CELLS.c.name == report.cell).values(**told))
        answer = DesiredState(
            cell=report.cell,
            revision=row["revision"] + changes,
            acknowledged_sequence=report.sequence,
            sent_at_s=one.at_s,
            release=row["release"],
            plan=row["plan"],
            stage=row["stage"],
            reason=row["reason"],
            shadow=row["shadow"],
            rollback_to=tuple(json.loads(row["back_to"] or "[]")),
            blocked=blocked,
            acknowledged=tuple(episode.id for episode in report.episodes),
            report_every_s=report_every_s,
        )
        done.append(Ingested(answer=answer, episodes=new, is_newest=is_newest))
    return done


def check_enrolled(report: CellReport, row: RowMapping | None) -> None:
    """Raises `SpecError` for a report of a cell that is not enrolled here, or is enrolled at another site."""
    if row is None:
        raise SpecError(f"cell {report.cell} is not enrolled. Fix: `actwright fleet enrol` with its public key")
    if row["site"] != report.site:
        raise SpecError(f"cell {report.cell} is enrolled at {row['site']}, its report says {report.site}. Fix: enrol it again, or its file")


def _add_episodes(db: Connection, received: Received, rollouts: Sequence[OpenRollout]) -> int:
    report = received.report
    ids = [episode.id for episode in report.episodes]
    if not ids:
        return 0
    known = set(db.execute(select(EPISODES.c.id).where(EPISODES.c.cell == report.cell, EPISODES.c.id.in_(ids))).scalars())
    offset_s = received.at_s - report.sent_at_s  # of the clocks, and the way: what the cell's times are on ours
    rows = []
    for episode in report.episodes:
        if episode.id not in known:
            known.add(episode.id)
            rows.append(_row(episode, received, offset_s, rollouts))
    if rows:
        db.execute(insert(EPISODES), rows)
    return len(rows)


def _row(episode: EpisodeRecord, received: Received, offset_s: float, rollouts: Sequence[OpenRollout]) -> dict[str, object]:
    report = received.report
    started = min(episode.started_at_s + offset_s, received.at_s + _SAME_START_S)
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
