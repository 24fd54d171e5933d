"""The evidence of a rollout, read from the rows: blocks are closed first, then added to what is known already."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, insert, select, update

from serving.fleet.controller.rollout.evidence import (
    Block,
    Evidence,
    GuardCount,
    Side,
    Tally,
    before_evidence,
    closed_blocks,
    with_blocks,
)
from serving.fleet.controller.store.rollouts import Rollout
from serving.fleet.controller.store.tables import BLOCKS, EPISODES
from serving.fleet.controller.store.tallies import guards_of, shadows_of, strata_of

if TYPE_CHECKING:
    from sqlalchemy import Connection


def evidence_of(db: Connection, rollout: Rollout, known: Evidence | None) -> Evidence:
    """All that is known of a rollout. known: of an earlier look, to which only later blocks are added."""
    evidence = known or before_evidence(rollout.plan, rollout.history)
    evidence = with_blocks(evidence, _blocks(db, rollout.id, after=evidence.blocks))
    finished, guards = guards_of(db, rollout)
    evidence = replace(evidence, finished=finished, guards=guards)
    if not any(stage.shadow for stage in rollout.plan.stages):
        return evidence
    found = shadows_of(db, rollout.id)
    refusals = GuardCount(events=found.refused, episodes=found.asked)
    return replace(evidence, decisions=found.compared, distances=found.distances, refusals=refusals)


def close_blocks(db: Connection, rollout: Rollout, now_s: float) -> None:
    """Close the blocks of a rollout that can be closed now."""
    number = rollout.id
    waiting = _waiting(db, rollout, now_s - rollout.longest_s)
    last = db.execute(select(func.max(BLOCKS.c.number)).where(BLOCKS.c.rollout == number)).scalar() or 0
    pending = {stratum: _tallies(db, here) for stratum, here in waiting.items()}
    for block_number, block in enumerate(closed_blocks(pending), start=last + 1):
        db.execute(update(EPISODES).where(waiting[block.stratum]).values(block=block_number))
        # counted again after they were marked: a report may have come in between
        both = _tallies(db, (EPISODES.c.rollout == number) & (EPISODES.c.block == block_number))
        told = {f"{side}_{name}": getattr(both[side], name) for side in both for name in ("successes", "trials")}
        db.execute(insert(BLOCKS).values(rollout=number, number=block_number, stratum=block.stratum, closed_at_s=now_s, **told))


def _waiting(db: Connection, rollout: Rollout, began_until_s: float) -> dict[str, Any]:
    """Stratum -> the condition of its episodes that may enter a block, where both sides have one. In a stage of few cells thousands of the
    old release wait for one of the new: they are looked for by the index, and not read."""
    found = {}
    for task, site in strata_of(db, rollout):
        asked = {"rollout": rollout.id, "task": task, "site": site, "until_s": began_until_s}
        if all(db.execute(_ONE_WAITS, {**asked, "side": side}).first() for side in ("new", "old")):
            stratum = (EPISODES.c.rollout == rollout.id) & (EPISODES.c.task == task) & (EPISODES.c.site == site)
            found[f"{task}@{site}"] = stratum & _WAITS & (EPISODES.c.started_at_s <= began_until_s)
    return found


_WAITS = EPISODES.c.block.is_(None) & EPISODES.c.success.is_not(None)
_ONE_WAITS = (  # made once: a look asks it of each stratum
    select(EPISODES.c.id)
    .where(*(EPISODES.c[name] == bindparam(name) for name in ("rollout", "task", "site", "side")))
    .where(_WAITS, EPISODES.c.started_at_s <= bindparam("until_s"))
    .limit(1)
)


def _tallies(db: Connection, which: Any) -> dict[Side, Tally]:
    """Both sides of these episodes."""
    counts = (func.count().label("trials"), func.sum(EPISODES.c.success).label("successes"))
    rows = db.execute(select(EPISODES.c.side, *counts).where(which).group_by(EPISODES.c.side))
    return {row.side: Tally(successes=int(row.successes), trials=int(row.trials)) for row in rows}


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
