"""What rules of numbers share: a vector of all episodes as one table, judged at once, and one measure over all episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.checks.verdict import Verdict, of_episodes
from components.data.inspection.measurements.median import median
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.measurements.rows.numbers import VectorMeasurements
from components.data.lerobot import layout

VECTORS = (layout.STATE, layout.ACTION)
FEW_EPISODES = "there are less than three episodes to compare with"
NO_STATE = "there is no state"
_FIELDS = tuple(one.name for one in fields(VectorMeasurements))

Bad = Callable[[str, VectorMeasurements], NDArray[np.bool_]]  # name and table of a vector -> (E, D), which of its numbers are wrong
Say = Callable[[str, VectorMeasurements, tuple[int, int]], str]  # name, table and place in it -> what is wrong there


@lru_cache(maxsize=2)  # state and action of one set: a dozen rules ask for them, one after the other
def tables(m: SetMeasurements, name: str) -> tuple[tuple[Sequence[EpisodeMeasurements], VectorMeasurements], ...]:
    """The measurements of one vector as arrays (E, D), with the episodes they are of; one table for each width that the vector has."""
    by_width: dict[int, list[EpisodeMeasurements]] = {}
    for e in m.episodes:
        if name in e.vectors:
            by_width.setdefault(len(e.vectors[name]), []).append(e)
    return tuple((some, _table([e.vectors[name] for e in some])) for some in by_width.values())


def _table(vectors: Sequence[VectorMeasurements]) -> VectorMeasurements:
    return VectorMeasurements(**{name: np.stack([getattr(v, name) for v in vectors]) for name in _FIELDS})


def _wrong(m: SetMeasurements, names: Sequence[str], bad: Bad, say: Say) -> dict[EpisodeMeasurements, list[str]]:
    """What is said of every wrong dimension of these vectors, by episode."""
    wrong: dict[EpisodeMeasurements, list[str]] = {}
    for name in names:
        for episodes, table in tables(m, name):
            for e, d in np.argwhere(bad(name, table)).tolist():
                wrong.setdefault(episodes[e], []).append(f"{m.dimension(name, d)} {say(name, table, (e, d))}")
    return wrong


def each_vector(m: SetMeasurements, bad: Bad, say: Say, missing: str = "", least: int = 2) -> Verdict:
    """Judge state and action of every episode of `least` frames, all at once; the first wrong dimension of an episode is told."""
    wrong = _wrong(m, VECTORS, bad, say)

    def judge(e: EpisodeMeasurements) -> str | None:
        if e.frames < least or not any(name in e.vectors for name in VECTORS):
            return None
        found = wrong.get(e, ())
        return f"{found[0]}{f' (and {len(found) - 1} dimensions more)' if len(found) > 1 else ''}" if found else ""

    return of_episodes(m, judge, missing or "there is neither state nor action, or too few frames")


def each_state(m: SetMeasurements, bad: Bad, say: Say) -> Verdict:
    """Judge the states of all episodes at once; the first wrong dimension of an episode is told."""
    wrong = _wrong(m, (layout.STATE,), bad, say)
    return of_episodes(m, lambda e: next(iter(wrong.get(e, ())), "") if layout.STATE in e.vectors else None, NO_STATE)


def no_state(m: SetMeasurements) -> Verdict:
    """What is said where no state can be compared: there is none, or its width differs between episodes."""
    return Verdict(of=len(m.episodes), missing=NO_STATE)


def over_episodes(
    m: SetMeasurements,
    name: str,
    take: Callable[[VectorMeasurements], NDArray[np.float64]],
    join: Callable[..., NDArray[np.float64]] = median,
) -> NDArray[np.float64] | None:
    """One measure of a vector over all episodes; None where there is none, or where they differ in width."""
    found = tables(m, name)
    return join(take(found[0][1]), axis=0) if len(found) == 1 else None
