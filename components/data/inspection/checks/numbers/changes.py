"""Readings mean the same before and after a change of the robot: no joint is counted from another zero, no gripper the other way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.numbers.vectors import NO_STATE, tables
from components.data.inspection.checks.sessions import LEAST, steady_change
from components.data.inspection.checks.verdict import RISK, SET, Fault, Verdict, check
from components.data.inspection.measurements.median import median
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.sentences import plain
from components.data.lerobot import layout

_FEW = f"there are less than {2 * LEAST} episodes with a state of one width"


@check(
    "zero_changes",
    severity=RISK,
    reason="a joint that was calibrated again counts from another zero, so equal numbers mean other places",
    fix="look at the pictures on both sides; correct the joint in one part, or train on one part",
    source="huggingface/lerobot#1342",
)
def zero_changes(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """No single dimension of the state lies elsewhere, as a whole, from some episode on.

    A scene that changes moves several joints, and changes how far they move. Here one joint alone lies elsewhere: the lower end, the mean
    and the upper end of every later episode lie beyond those of every earlier one, all by about the same.
    """
    found = tables(m, layout.STATE)
    if len(found) != 1 or len(found[0][0]) < 2 * LEAST:
        return Verdict(of=len(m.episodes), missing=_FEW)
    episodes, v = found[0]
    places_3ED = np.stack([v.low_D, v.mean_D, v.high_D])
    range_D = median(v.high_D - v.low_D)
    for first in _apart(places_3ED):
        moved_D = _moved_as_a_whole(places_3ED, first, np.maximum(range_D, 1e-9), cfg.inspection.zero)
        if np.count_nonzero(moved_D) == 1:
            d = int(np.flatnonzero(moved_D)[0])
            reason = f"{m.dimension(layout.STATE, d)} lies {moved_D[d]:.4g} higher in all {len(episodes) - first} episodes from "
            fault = Fault(where=SET, reason=f"{reason}{episodes[first].episode_id} on than in all before")
            return Verdict(faults=(fault,), looked_at=len(episodes), of=len(m.episodes))
    return Verdict(looked_at=len(episodes), of=len(m.episodes), missing=_FEW if len(episodes) < len(m.episodes) else "")


def _apart(places_3ED: NDArray[np.float64]) -> list[int]:
    """Where a second part may begin: some dimension lies beyond all of the part before, with `LEAST` episodes on both sides."""
    most, least = np.maximum.accumulate(places_3ED, axis=1), np.minimum.accumulate(places_3ED, axis=1)
    backward = places_3ED[:, ::-1]
    most_after, least_after = np.maximum.accumulate(backward, axis=1)[:, ::-1], np.minimum.accumulate(backward, axis=1)[:, ::-1]
    is_up_FD, is_down_FD = (least_after[:, 1:] > most[:, :-1]).all(axis=0), (least[:, :-1] > most_after[:, 1:]).all(axis=0)
    is_apart_F: NDArray[np.bool_] = np.any(is_up_FD | is_down_FD, axis=1)
    firsts = 1 + np.flatnonzero(is_apart_F)
    return [first for first in firsts.tolist() if LEAST <= first <= places_3ED.shape[1] - LEAST]


def _moved_as_a_whole(places_3ED: NDArray[np.float64], first: int, range_D: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """By how much each dimension lies higher from episode `first` on; 0 where its episodes overlap or its places move unequally."""
    before, after = places_3ED[:, :first], places_3ED[:, first:]
    up_3D, down_3D = after.min(axis=1) - before.max(axis=1), before.min(axis=1) - after.max(axis=1)
    is_apart_D = (up_3D > 0).all(axis=0) | (down_3D > 0).all(axis=0)
    by_3D = median(after, axis=1) - median(before, axis=1)
    is_equal_D = np.abs(by_3D).min(axis=0) > 0.5 * np.abs(by_3D).max(axis=0)
    return np.where(is_apart_D & is_equal_D & (np.abs(by_3D[1]) > share * range_D), by_3D[1], 0.0)


@check(
    "gripper_changes",
    severity=RISK,
    reason="open and closed were exchanged between two sessions, and a policy would learn both meanings at once",
    fix="turn the gripper's values round in one part, in state and action",
    source="Positronic-Robotics/positronic#456",
)
def gripper_changes(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Episodes of one instruction begin with the gripper at the same end of its range, before and after any place in the set."""
    known = [e for e in m.episodes if len(e.meaning.path_16D) and layout.STATE in e.vectors]
    dims = [d for d in _widths(known) if "grip" in m.dimension(layout.STATE, d).lower()]
    missing = NO_STATE if not known else "no dimension is named a gripper" if not dims else ""
    faults: list[Fault] = []
    for d in dims:
        ends = _ends(known, d)
        first = steady_change([end for end, _ in ends])
        asked = [plain(e.meaning.instruction) for _, e in ends]
        if first is not None and set(asked[:first]) & set(asked[first:]):
            name, since = m.dimension(layout.STATE, d), ends[first][1].episode_id
            faults.append(Fault(where=SET, reason=f"{name} begins at its {ends[first][0]} end from {since} on, before at the other one"))
    return Verdict(faults=tuple(faults), looked_at=len(known) if dims else 0, of=len(m.episodes), missing=missing)


def _widths(episodes: list[EpisodeMeasurements]) -> range:
    widths = {e.meaning.path_16D.shape[1] for e in episodes}
    return range(widths.pop()) if len(widths) == 1 else range(0)


def _ends(episodes: list[EpisodeMeasurements], d: int) -> list[tuple[str, EpisodeMeasurements]]:
    """At which end of its range over the set dimension `d` begins, of episodes that begin at one: "lower" or "upper"."""
    vectors = [e.vectors[layout.STATE] for e in episodes]
    low, high = min(float(v.min_D[d]) for v in vectors), max(float(v.max_D[d]) for v in vectors)
    begins = [((float(e.meaning.path_16D[0, d]) - low) / max(high - low, 1e-9), e) for e in episodes]
    return [("lower" if share < 0.5 else "upper", e) for share, e in begins if min(share, 1 - share) < 0.25]
