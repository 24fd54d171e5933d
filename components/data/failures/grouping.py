"""Moments that are alike, by what a person can check: kind, task and words are equal, and when and in which posture it happened is near.

Inside one kind, task and text a hierarchical clustering (average linkage) of two distances, each 0 to 1: how far apart in the course of the
episode, and how far apart the robot's state was, each dimension relative to its spread among these moments. Groups are cut at `CUT`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.failures.incident import Incident

CUT = 0.25
_MOST = 1500  # moments whose distances are all compared; of more, evenly spaced ones, and the others go to the nearest group


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Moments that are alike. members: their places in what was grouped. title: what they have in common."""

    members: tuple[int, ...]
    title: str


def grouped(incidents: Sequence[Incident], tasks: Sequence[str]) -> list[Group]:
    """The groups, largest first; every moment is in one. tasks: of each moment's episode."""
    alike: dict[tuple[str, str, str], list[int]] = {}
    for place, (incident, task) in enumerate(zip(incidents, tasks, strict=True)):
        alike.setdefault((incident.kind, task, incident.text), []).append(place)
    made: list[Group] = []
    for (kind, task, text), places in alike.items():
        numbers_N = _clusters(_features([incidents[place] for place in places]))
        for number in np.unique(numbers_N):
            members = [place for place, mine in zip(places, numbers_N, strict=True) if mine == number]
            when = float(np.median([incidents[place].share for place in members]))
            made.append(Group(members=tuple(members), title=f"{kind}: {text}, {task or 'no task'}, {_when(when)}"))
    return sorted(made, key=lambda group: (-len(group.members), group.title))


def _when(share: float) -> str:
    return "at the end" if share > 0.95 else "at the begin" if share < 0.05 else f"about {100 * share:.0f} % into the episode"


def _features(incidents: Sequence[Incident]) -> NDArray[np.float64]:
    """(N, 1 + D) each distance along one column at most 1; D is 0 where not all of them have a state of one length."""
    shares_N1 = np.array([[one.share] for one in incidents])
    widths = {len(one.state) for one in incidents}
    if len(widths) != 1 or not (width := widths.pop()):
        return shares_N1
    states_ND = np.array([one.state for one in incidents], float)
    spread_D = np.ptp(states_ND, axis=0)
    scaled_ND = (states_ND - states_ND.min(axis=0)) / np.where(spread_D > 0, spread_D, 1.0)
    return np.concatenate([shares_N1, scaled_ND / np.sqrt(width)], axis=1)


def _clusters(features_NF: NDArray[np.float64]) -> NDArray[np.int64]:
    """The number of each row's group."""
    count = len(features_NF)
    if count < 2:
        return np.zeros(count, np.int64)
    from scipy.cluster.hierarchy import fcluster, linkage

    chosen_M = np.unique(np.linspace(0, count - 1, min(count, _MOST)).astype(int))
    numbers_M = np.asarray(fcluster(linkage(features_NF[chosen_M], "average"), CUT, "distance"), np.int64)
    if len(chosen_M) == count:
        return numbers_M
    centres_GF = np.array([features_NF[chosen_M][numbers_M == number].mean(axis=0) for number in np.unique(numbers_M)])
    return np.unique(numbers_M)[np.array([int(np.argmin(((centres_GF - row_F) ** 2).sum(axis=1))) for row_F in features_NF])]
