"""How often a second person contradicts the first labels: an estimate of their error, with an exact interval, for the passport of the set.

The second person errs too, and each such error counts against the label. So the estimate leans to the high side; how far is seen where two
people answered the same frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.labelling.label_error import NOT_MEASURED, WRONG
from components.data.second_labels.opinion import AskedFrame, Opinion
from model_core.spec.errors import DatasetError
from model_core.statistics.intervals import clopper_pearson


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FirstPoints:
    """The labels of one episode. points_T2: (x, y) in pixels. visible_T: whether the gripper was seen."""

    points_T2: NDArray[np.float64]
    visible_T: NDArray[np.bool_]


def read_points(labels: Path) -> dict[str, FirstPoints]:
    """Episode id -> its points, of a finished annotation. Raises `DatasetError` where it has none."""
    import pyarrow.parquet as pq

    paths = sorted((labels / "points").glob("*.parquet"))
    if not paths:
        raise DatasetError(f"{labels} holds no points of a finished annotation. Fix: name data/annotate, or the step of annotate")
    made: dict[str, FirstPoints] = {}
    for path in paths:
        table = pq.read_table(path, columns=["episode_id", "x", "y", "is_visible"])
        ids_N = np.array(table["episode_id"].to_pylist(), object)
        points_N2 = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
        visible_N = table["is_visible"].to_numpy(zero_copy_only=False)
        for name in dict.fromkeys(ids_N.tolist()):
            mine_N = ids_N == name
            made[name] = FirstPoints(points_T2=points_N2[mine_N], visible_T=visible_N[mine_N].astype(bool))
    return made


def agreement(first: Mapping[str, FirstPoints], opinions: Sequence[Opinion]) -> dict[str, Any]:
    """What the opinions say of the labels, as plain JSON in the form of `label_error.json`. Of each person's opinions of a frame the last
    one counts. Frames that the labels do not have, and those of which a person could not tell, are counted and left out.
    """
    last = {(one.author, one.asked): one for one in opinions}
    told = [one for one in last.values() if not one.abstained]
    usable = [one for one in told if one.asked.episode in first and one.asked.frame < len(first[one.asked.episode].visible_T)]
    document: dict[str, Any] = {
        "format": 1,
        "people": len({one.author for one in usable}),
        "abstained": len(last) - len(told),
        "without_label": len(told) - len(usable),
    }
    by_frame: dict[AskedFrame, list[Opinion]] = {}
    for one in usable:
        by_frame.setdefault(one.asked, []).append(one)
    if not by_frame:
        return document | {"estimate": NOT_MEASURED, "why": "no second person looked at the points"}
    # one opinion a frame, the first that was given: frames are the sample, people are not
    pixels_N = np.array([_distance(first[asked.episode], mine[0]) for asked, mine in by_frame.items()])
    wrong_N = pixels_N > np.array([WRONG * np.hypot(*mine[0].size) for mine in by_frame.values()])
    low, high = clopper_pearson(int(wrong_N.sum()), len(wrong_N))
    seen_N = pixels_N[np.isfinite(pixels_N)]
    return document | {
        "estimate": round(float(wrong_N.mean()), 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "of": "points, compared with a second person's, who did not see them; that person's own errors count too",
        "wrong": f"more than {WRONG:.0%} of the image's diagonal away, or seen where it is not, or not seen where it is",
        "compared_frames": len(wrong_N),
        "median_px": round(float(np.median(seen_N)), 4) if seen_N.size else None,
        "between_people": _between(list(by_frame.values())),
    }


def _distance(first: FirstPoints, one: Opinion) -> float:
    """Pixels; 0 where both say that it is not in the image, infinite where only one does."""
    is_seen = bool(first.visible_T[one.asked.frame])
    if one.point is None or not is_seen:
        return 0.0 if one.point is None and not is_seen else float("inf")
    return float(np.hypot(*(first.points_T2[one.asked.frame] - np.asarray(one.point, float))))


def _between(frames: Sequence[Sequence[Opinion]]) -> dict[str, Any]:
    """How often two people contradict each other on a frame that both answered."""
    pairs = [pair for mine in frames for pair in combinations(mine, 2)]
    wrong = sum(_differ(*pair) for pair in pairs)
    low, high = clopper_pearson(wrong, len(pairs))
    return {"pairs": len(pairs), "contradict": wrong, "interval_95": [round(low, 4), round(high, 4)]}


def _differ(one: Opinion, other: Opinion) -> bool:
    if one.point is None or other.point is None:
        return (one.point is None) != (other.point is None)
    return float(np.hypot(one.point[0] - other.point[0], one.point[1] - other.point[1])) > WRONG * float(np.hypot(*one.size))
