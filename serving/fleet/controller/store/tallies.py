"""Sums over the episodes of each rollout, release, task and site, and over comparisons in shadow: added to with the reports, in their
transaction, and read by looks.

What those of episodes say can be counted again from the episodes (`tests/scale/fleet_controller.py` does).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, case, func, insert, select, update

from model_core.spec.documents import from_document, to_document
from model_core.spec.fleet.documents import CellReport
from serving.fleet.controller.rollout.evidence import GuardCount, Tally
from serving.fleet.controller.rollout.shadow_sums import Shadowed, ShadowSum, total
from serving.fleet.controller.store.rollouts import OpenRollout, Rollout
from serving.fleet.controller.store.tables import SHADOWS, TALLIES

if TYPE_CHECKING:
    from sqlalchemy import Connection, Update

_COUNTERS = ("interventions", "clips", "holds", "deadline_misses", "refusals")
_KEY = ("rollout", "release", "task", "site")
_LONGEST_EPISODE_S = 86_400.0  # one that seems longer had its cell's clock set meanwhile, and would keep every block open
_SUMS = ("episodes", "trials", "successes", *_COUNTERS, "novelty")


def tally_episodes(db: Connection, rows: Iterable[Mapping[str, Any]], rollouts: Sequence[OpenRollout]) -> None:
    """Add new rows of the table of episodes to the sums. In the order of keys, so that two controllers never wait for each other."""
    above = {one.id: one.plan.novelty_above for one in rollouts}
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        number = row["rollout"] or 0
        here = sums.setdefault((number, row["release"], row["task"], row["site"]), dict.fromkeys(_SUMS, 0) | {"longest_s": 0.0})
        counted = row["success"] is not None
        found = {"episodes": 1, "trials": int(counted), "successes": row["success"] or 0}
        found |= {name: int(row[name] > 0) for name in _COUNTERS}
        found["novelty"] = int(number in above and row["novelty"] is not None and row["novelty"] > above[number])
        for name, count in found.items():
            here[name] += count
        lasted_s = row["ended_at_s"] - row["started_at_s"]
        if counted and lasted_s <= _LONGEST_EPISODE_S:
            here["longest_s"] = max(here["longest_s"], lasted_s)
    for key, found in sorted(sums.items()):
        _add(db, dict(zip(_KEY, key, strict=True)), found)


def _add(db: Connection, key: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Of two controllers that add the first episodes of a key at once one is refused, and its transaction runs again."""
    if db.execute(_ADDED, {f"b_{name}": value for name, value in {**key, **found}.items()}).rowcount == 0:
        db.execute(_FIRST, {**key, **found})


def _added() -> Update:
    columns = TALLIES.c
    longest_s = bindparam("b_longest_s")
    longest = case((columns.longest_s < longest_s, longest_s), else_=columns.longest_s)
    sums = {name: columns[name] + bindparam(f"b_{name}") for name in _SUMS}
    return update(TALLIES).where(*(columns[name] == bindparam(f"b_{name}") for name in _KEY)).values({**sums, "longest_s": longest})


_ADDED, _FIRST = _added(), insert(TALLIES)  # made once: they are needed with each report


def guards_of(db: Connection, rollout: Rollout) -> tuple[int, dict[str, GuardCount]]:
    """Counted episodes of the new release, and for each guard the episodes with its event among all of them."""
    row = db.execute(_OF_RELEASE, {"rollout": rollout.id, "release": rollout.plan.release}).mappings().one()
    episodes = int(row["episodes"] or 0)
    return int(row["trials"] or 0), {name: GuardCount(events=int(row[name] or 0), episodes=episodes) for name in (*_COUNTERS, "novelty")}


def strata_of(db: Connection, rollout: Rollout) -> list[tuple[str, str]]:
    """(task, site) of each stratum in which both sides have finished episodes, in the order of their names."""
    return sorted(((row.task, row.site) for row in db.execute(_OF_BOTH, {"rollout": rollout.id})), key="@".join)


_OF_RELEASE = select(*(func.sum(TALLIES.c[name]).label(name) for name in _SUMS)).where(
    TALLIES.c.rollout == bindparam("rollout"), TALLIES.c.release == bindparam("release")
)
_OF_BOTH = (
    select(TALLIES.c.task, TALLIES.c.site)
    .where(TALLIES.c.rollout == bindparam("rollout"), TALLIES.c.trials > 0)
    .group_by(TALLIES.c.task, TALLIES.c.site)
    .having(func.count() == 2)
)


def history_of(db: Connection, release: str) -> dict[str, Tally]:
    """The counted episodes of a release so far, by stratum."""
    columns = (TALLIES.c.task, TALLIES.c.site)
    counts = (func.sum(TALLIES.c.trials).label("trials"), func.sum(TALLIES.c.successes).label("successes"))
    rows = db.execute(select(*columns, *counts).where(TALLIES.c.release == release).group_by(*columns))
    return {f"{row.task}@{row.site}": Tally(successes=int(row.successes), trials=int(row.trials)) for row in rows if row.trials}


def longest_of(db: Connection, release: str) -> float:
    """Seconds of the longest counted episode of a release so far; 0 before the first."""
    return float(db.execute(select(func.max(TALLIES.c.longest_s)).where(TALLIES.c.release == release)).scalar() or 0.0)


def tally_shadows(db: Connection, reports: Iterable[tuple[CellReport, int, str]]) -> None:
    """Keep what the newest reports say of candidates in shadow. reports: with rollout and candidate that are proposed to the cell."""
    told = {
        (rollout, report.cell, one.task): one for report, rollout, candidate in reports for one in report.shadow if one.release == candidate
    }
    for (rollout, cell, task), one in sorted(told.items()):
        here = (SHADOWS.c.rollout == rollout) & (SHADOWS.c.cell == cell) & (SHADOWS.c.task == task)
        text = db.execute(select(SHADOWS.c.sums).where(here)).scalar()
        before = _shadowed(text) if text else Shadowed()
        after = before.told(one)
        if text and after == before:
            continue
        sums = json.dumps(to_document(after), sort_keys=True)
        if db.execute(update(SHADOWS).where(here).values(sums=sums)).rowcount == 0:
            db.execute(insert(SHADOWS).values(rollout=rollout, cell=cell, task=task, sums=sums))


def shadows_of(db: Connection, rollout: int) -> ShadowSum:
    """What all cells found of the candidate of a rollout."""
    rows = [_shadowed(text) for text in db.execute(select(SHADOWS.c.sums).where(SHADOWS.c.rollout == rollout)).scalars()]
    return total(part for one in rows for part in (one.before, one.last))


def _shadowed(text: str) -> Shadowed:
    return from_document(Shadowed, json.loads(text), where="the sums of a shadow")
