"""How often a second person contradicts the first labels: an estimate of their error, with an exact interval, for the passport of the set.

The second person errs too, and each such error counts against the label. So the estimate leans to the high side; how far is seen where two
people answered the same frames.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.labelling.label_error import NOT_MEASURED, WRONG
from components.data.second_labels.opinion import AskedFrame, Opinion
from components.data.second_labels.ways import between_ways
from model_core.spec.errors import DatasetError
from model_core.statistics.intervals import clopper_pearson
from model_core.tokenization.trace import to_pixels

_NONE = -1  # follows the last point of a trace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FirstPoints:
    """The labels of one episode. points_T2: (x, y) in pixels. visible_T: whether the gripper was seen."""

    points_T2: NDArray[np.float64]
    visible_T: NDArray[np.bool_]


def read_points(labels: Path, episodes: Collection[str] | None = None) -> dict[str, FirstPoints]:
    """Episode id -> its points, of a finished annotation. episodes: only of these. Raises `DatasetError` where it has none."""
    made: dict[str, FirstPoints] = {}
    for name, part in _episodes(labels, "points", ["x", "y", "is_visible"], episodes):
        points_T2 = np.stack([part["x"].to_numpy(), part["y"].to_numpy()], axis=1)
        made[name] = FirstPoints(points_T2=points_T2, visible_T=part["is_visible"].to_numpy(zero_copy_only=False).astype(bool))
    return made


def read_traces(labels: Path, episodes: Collection[str] | None = None) -> dict[str, NDArray[np.int64]]:
    """Episode id -> its traces (T, 5, 2) of 0..255, -1 after the last point of each. Otherwise as `read_points`."""
    from components.data.labels import LABEL_FIELDS

    field = next(one for one in LABEL_FIELDS if one.name == "trace")
    return {name: field.values(part["trace"].combine_chunks()) for name, part in _episodes(labels, "labels", ["trace"], episodes)}


def _episodes(labels: Path, kind: str, columns: Sequence[str], episodes: Collection[str] | None) -> list[tuple[str, Any]]:
    """The rows of each episode, in the order of its frames. kind: the folder of the annotation."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    paths = sorted((labels / kind).glob("*.parquet"))
    if not paths:
        raise DatasetError(f"{labels} holds no {kind} of a finished annotation. Fix: name data/annotate, or the step of annotate")
    only = None if episodes is None else [("episode_id", "in", sorted(episodes))]
    made: list[tuple[str, Any]] = []
    for path in paths if only is None or episodes else ():
        table = pq.read_table(path, columns=["episode_id", *columns], filters=only)
        made += [(name, table.filter(pc.equal(table["episode_id"], name))) for name in table["episode_id"].unique().to_pylist()]
    return made


def judged_labels(labels: Path, opinions: Sequence[Opinion]) -> dict[str, Any]:
    """`agreement` with a finished annotation, and beside it "traces": `trace_agreement`, where a person drew some. Raises `DatasetError`
    where it has no points."""
    drawn = {one.asked.episode for one in opinions if one.what == "trace"}
    told = agreement(read_points(labels, {one.asked.episode for one in opinions}), opinions)
    return told | ({"traces": trace_agreement(read_traces(labels, drawn), opinions)} if drawn else {})


def agreement(first: Mapping[str, FirstPoints], opinions: Sequence[Opinion]) -> dict[str, Any]:
    """What the opinions of points say of the labels, as plain JSON in the form of `label_error.json`. Of each person's opinions of a frame
    the last one counts. Frames that the labels do not have, and those of which a person could not tell, are counted and left out.
    """
    return _judged(
        [one for one in opinions if one.what == "point"],
        frames={name: len(one.visible_T) for name, one in first.items()},
        distance=lambda one: _of_points(first[one.asked.episode], one),
        between=_between_points,
        said={
            "of": "points, compared with a second person's, who did not see them; that person's own errors count too",
            "wrong": f"more than {WRONG:.0%} of the image's diagonal away, or seen where it is not, or not seen where it is",
        },
    )


def trace_agreement(first: Mapping[str, NDArray[np.int64]], opinions: Sequence[Opinion]) -> dict[str, Any]:
    """The same of traces: how far apart two ways are is their Frechet distance (`ways`). first: of `read_traces`."""
    return _judged(
        [one for one in opinions if one.what == "trace"],
        frames={name: len(traces_T52) for name, traces_T52 in first.items()},
        distance=lambda one: between_ways(_way(first[one.asked.episode][one.asked.frame], one.size), np.array(one.trace, float)),
        between=lambda one, other: between_ways(np.array(one.trace, float), np.array(other.trace, float)),
        said={
            "of": "traces, compared with those that a second person drew without seeing them; that person's own errors count too",
            "wrong": f"somewhere more than {WRONG:.0%} of the image's diagonal beside the other way (Frechet distance)",
        },
    )


def _judged(
    opinions: Sequence[Opinion],
    *,
    frames: Mapping[str, int],
    distance: Callable[[Opinion], float],
    between: Callable[[Opinion, Opinion], float],
    said: Mapping[str, str],
) -> dict[str, Any]:
    """frames: episode id -> labelled frames. distance: pixels between an opinion and the label. between: of two opinions of a frame."""
    last = {(one.author, one.asked): one for one in opinions}
    told = [one for one in last.values() if not one.abstained]
    usable = [one for one in told if one.asked.frame < frames.get(one.asked.episode, 0)]
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
        return document | {"estimate": NOT_MEASURED, "why": f"no second person looked at the {said['of'].partition(',')[0]}"}
    # one opinion a frame, the first that was given: frames are the sample, people are not
    pixels_N = np.array([distance(mine[0]) for mine in by_frame.values()])
    wrong_N = pixels_N > np.array([_limit_px(mine[0]) for mine in by_frame.values()])
    low, high = clopper_pearson(int(wrong_N.sum()), len(wrong_N))
    seen_N = pixels_N[np.isfinite(pixels_N)]
    pairs = [pair for mine in by_frame.values() for pair in combinations(mine, 2)]
    contradict = sum(between(*pair) > _limit_px(pair[0]) for pair in pairs)
    low_between, high_between = clopper_pearson(contradict, len(pairs))
    return document | {
        "estimate": round(float(wrong_N.mean()), 4),
        "interval_95": [round(low, 4), round(high, 4)],
        **said,
        "compared_frames": len(wrong_N),
        "median_px": round(float(np.median(seen_N)), 4) if seen_N.size else None,
        "between_people": {
            "pairs": len(pairs),
            "contradict": contradict,
            "interval_95": [round(low_between, 4), round(high_between, 4)],
        },
    }


def _limit_px(one: Opinion) -> float:
    return WRONG * float(np.hypot(*one.size))


def _of_points(first: FirstPoints, one: Opinion) -> float:
    seen = first.points_T2[one.asked.frame] if first.visible_T[one.asked.frame] else None
    return _apart(seen, one.point)


def _between_points(one: Opinion, other: Opinion) -> float:
    return _apart(one.point, other.point)


def _apart(one: Any, other: Any) -> float:
    """Pixels; 0 where both say that it is not in the image, infinite where only one does."""
    if one is None or other is None:
        return 0.0 if one is other else float("inf")
    return float(np.hypot(*(np.asarray(one, float) - np.asarray(other, float))))


def _way(trace_52: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.float64]:
    """A label's points in pixels (N, 2)."""
    return to_pixels(trace_52[trace_52[:, 0] != _NONE], width=size[0], height=size[1])
