"""The evidence of a rollout, read from the rows: blocks are closed first, then added to what is known already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, insert, select, update

from model_core.spec.fleet.rollout_plan import GUARDED
from serving.fleet.controller.rollout.evidence import (
    Block,
    Evidence,
    GuardCount,
    Side,
    Tally,
    before_evidence,
    closed_blocks,
    weighted_mean,
    with_blocks,
)
from serving.fleet.controller.store.fleet import reported
from serving.fleet.controller.store.rollouts import Rollout
from serving.fleet.controller.store.tables import BLOCKS, EPISODES

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

_LONGEST_EPISODE_S = 86_400.0


def evidence_of(db: Connection, rollout: Rollout, rows: Sequence[RowMapping], known: Evidence | None) -> Evidence:
    """All that is known of a rollout. rows: its cells. known: of an earlier look, to which only later blocks are added."""
    evidence = known or before_evidence(rollout.plan, rollout.history)
    evidence = with_blocks(evidence, _blocks(db, rollout.id, after=evidence.blocks))
    finished, guards = _guards(db, rollout)
    shadows = [one for row in rows if (report := reported(row["report"])) for one in report.shadow]
    compared = [(one.count, one.distances) for one in shadows if one.release == rollout.plan.release]
    decisions, distances = weighted_mean(compared)
    return replace(evidence, finished=finished, guards=guards, decisions=decisions, distances=distances)


def close_blocks(db: Connection, rollout: Rollout, now_s: float) -> None:
    """Close the blocks of a rollout that can be closed now."""
    number = rollout.id
    began_early = EPISODES.c.started_at_s <= now_s - rollout.longest_s
    open_ones = (EPISODES.c.rollout == number) & EPISODES.c.block.is_(None) & EPISODES.c.success.is_not(None) & began_early
    pending = _tallies(db, open_ones)
    last = int(db.execute(select(func.coalesce(func.max(BLOCKS.c.number), 0)).where(BLOCKS.c.rollout == number)).scalar_one())
    for block_number, block in enumerate(closed_blocks(pending), start=last + 1):
        task, _, site = block.stratum.rpartition("@")
        here = open_ones & (EPISODES.c.task == task) & (EPISODES.c.site == site)
        db.execute(update(EPISODES).where(here).values(block=block_number))
        # counted again after they were marked: a report may have come in between
        both = _tallies(db, (EPISODES.c.rollout == number) & (EPISODES.c.block == block_number))[block.stratum]
        db.execute(
            insert(BLOCKS).values(
                rollout=number,
                number=block_number,
                stratum=block.stratum,
                new_successes=both["new"].successes,
                new_trials=both["new"].trials,
                old_successes=both["old"].successes,
                old_trials=both["old"].trials,
                closed_at_s=now_s,
            )
        )


def history_of(db: Connection, release: str) -> dict[str, Tally]:
    """The counted episodes of a release so far, by stratum."""
    columns = (EPISODES.c.task, EPISODES.c.site)
    counts = (func.count().label("trials"), func.sum(EPISODES.c.success).label("successes"))
    wanted = select(*columns, *counts).where((EPISODES.c.release == release) & EPISODES.c.success.is_not(None)).group_by(*columns)
    return {f"{row.task}@{row.site}": Tally(successes=int(row.successes), trials=int(row.trials)) for row in db.execute(wanted)}


def _tallies(db: Connection, which: Any) -> dict[str, dict[Side, Tally]]:
    columns = (EPISODES.c.task, EPISODES.c.site, EPISODES.c.side)
    wanted = select(*columns, func.count().label("trials"), func.sum(EPISODES.c.success).label("successes")).where(which).group_by(*columns)
    found: dict[str, dict[Side, Tally]] = {}
    for row in db.execute(wanted):
        found.setdefault(f"{row.task}@{row.site}", {})[row.side] = Tally(successes=int(row.successes), trials=int(row.trials))
    return found


def longest_of(db: Connection, release: str) -> float:
    """Seconds of the longest counted episode of a release so far; 0 before the first. One that seems to have lasted for more than a day had
    its cell's clock set meanwhile, and would keep every block open."""
    lasted = EPISODES.c.ended_at_s - EPISODES.c.started_at_s
    counted = (EPISODES.c.release == release) & EPISODES.c.success.is_not(None) & (lasted <= _LONGEST_EPISODE_S)
    return float(db.execute(select(func.max(lasted)).where(counted)).scalar() or 0.0)


def _blocks(db: Connection, number: int, *, after: int) -> list[Block]:
    rows = db.execute(select(BLOCKS).where(BLOCKS.c.rollout == number, BLOCKS.c.number > after).order_by(BLOCKS.c.number))
    return [
        Block(
            stratum=row.stratum,
            new=Tally(successes=row.new_successes, trials=row.new_trials),
            old=Tally(successes=row.old_successes, trials=row.old_trials),
        )
        for row in rows
    ]


def _guards(db: Connection, rollout: Rollout) -> tuple[int, dict[str, GuardCount]]:
    """Counted episodes of the new release, and for each guard the episodes with its event among all of them."""
    counted = {name: EPISODES.c[name] for name in GUARDED}
    events = {name: column > (rollout.plan.novelty_above if name == "novelty" else 0) for name, column in counted.items()}
    sums = [func.sum(case((happened, 1), else_=0)).label(name) for name, happened in events.items()]
    of_new = (EPISODES.c.rollout == rollout.id) & (EPISODES.c.side == "new")
    row = (
        db.execute(select(func.count().label("episodes"), func.count(EPISODES.c.success).label("counted"), *sums).where(of_new))
        .mappings()
        .one()
    )
    return int(row["counted"]), {name: GuardCount(events=int(row[name] or 0), episodes=int(row["episodes"])) for name in events}
