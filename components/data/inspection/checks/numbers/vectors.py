"""What rules of numbers share: every vector of every episode, and one measure over all episodes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.checks.verdict import Verdict, of_episodes
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.measurements.rows.numbers import VectorMeasurements
from components.data.lerobot import layout

VECTORS = (layout.STATE, layout.ACTION)
FEW_EPISODES = "there are less than three episodes to compare with"


def each_vector(
    m: SetMeasurements, judge: Callable[[str, VectorMeasurements], list[tuple[int, str]]], missing: str = "", least: int = 2
) -> Verdict:
    """Ask about state and action of every episode of `least` frames: (dimension, what is wrong with it)."""

    def of_one(e: EpisodeMeasurements) -> str | None:
        if e.frames < least:
            return None
        found = [
            f"{m.dimension(name, place)} {reason}"
            for name in VECTORS
            if name in e.vectors
            for place, reason in judge(name, e.vectors[name])
        ]
        known = any(name in e.vectors for name in VECTORS)
        more = f" (and {len(found) - 1} dimensions more)" if len(found) > 1 else ""
        return (f"{found[0]}{more}" if found else "") if known else None

    return of_episodes(m, of_one, missing or "there is neither state nor action, or too few frames")


def over_episodes(
    m: SetMeasurements,
    name: str,
    take: Callable[[VectorMeasurements], NDArray[np.float64]],
    join: Callable[..., NDArray[np.float64]] = np.median,
) -> NDArray[np.float64] | None:
    """One measure of a vector over all episodes; None where there is none, or where they differ in width."""
    found = [take(e.vectors[name]) for e in m.episodes if name in e.vectors]
    return join(np.stack(found), axis=0) if found and len({len(one) for one in found}) == 1 else None
