"""What a gripper track goes through before traces are made of it: unsure points abstain, outliers are taken out, the rest is smoothed.

Every step is off until a recipe asks for it, and then counted. A frame whose point abstains keeps a trace, made of the points around it
that are sure; an episode with too few of them is rejected with that reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import AnnotateConfig
from components.data.annotators.corrections import Corrections, read_once
from components.data.annotators.interface import Frames, GripperTrack
from model_core.spec.errors import DatasetError
from model_core.spec.types import TRACE_MAX_POINTS
from model_core.tokenization.trace import future_indices, future_traces

_BESIDE = 3  # frames before and after, whose median tells where a point should be


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RefinedTrack:
    """The track that traces are made of. unsure_T: points taken out for low confidence. outlier_T: for their distance to the others."""

    track: GripperTrack
    unsure_T: NDArray[np.bool_]
    outlier_T: NDArray[np.bool_]


def refined(track: GripperTrack, cfg: AnnotateConfig, size: tuple[int, int], frames: Frames | None = None) -> RefinedTrack:
    """The track as the recipe wants it. size: (height, width) of the images. frames: whose they are, for a person's corrections.

    Corrected points count as sure from the start, and neither an outlier rule nor smoothing changes them. Raises `DatasetError` where more
    of the frames have no sure point than `annotate.max_abstained` allows.
    """
    corrections = read_once(cfg.corrections) if frames is not None else Corrections()
    episode, camera = ("", "") if frames is None else (frames.episode_id, frames.camera)
    track = corrections.applied(track, episode, camera, size)
    unsure_T = track.visible_T & (track.confidence_T < cfg.min_confidence)
    outlier_T = np.zeros(len(unsure_T), bool)
    if cfg.max_jump:
        outlier_T = _outliers(track.points_T2, track.visible_T & ~unsure_T, cfg.max_jump * float(np.hypot(*size)))
    sure_T = track.visible_T & ~unsure_T & ~outlier_T
    if len(sure_T) and (~sure_T).mean() > cfg.max_abstained:
        raise DatasetError(
            f"{int((~sure_T).sum())} of {len(sure_T)} frames have no sure gripper point (not seen {int((~track.visible_T).sum())}, low "
            f"confidence {int(unsure_T.sum())}, outliers {int(outlier_T.sum())}); annotate.max_abstained allows {cfg.max_abstained:.0%}"
        )
    if not (unsure_T.any() or outlier_T.any() or cfg.smooth_frames > 1):
        return RefinedTrack(track=track, unsure_T=unsure_T, outlier_T=outlier_T)
    points_T2 = _smoothed(track.points_T2, sure_T, cfg.smooth_frames // 2)
    confidence_T = np.where(sure_T, track.confidence_T, np.float32(0)).astype(np.float32)
    made = replace(track, points_T2=points_T2, visible_T=sure_T, confidence_T=confidence_T, trace_T52=None)
    return RefinedTrack(track=corrections.applied(made, episode, camera, size), unsure_T=unsure_T, outlier_T=outlier_T)


def _outliers(points_T2: NDArray[np.float64], seen_T: NDArray[np.bool_], limit_px: float) -> NDArray[np.bool_]:
    """Seen points farther than `limit_px` from the median of the seen ones beside them; one that has fewer than two beside it stays."""
    found_T = np.zeros(len(seen_T), bool)
    for t in np.flatnonzero(seen_T):
        first = max(0, t - _BESIDE)
        beside_N = [n for n in range(first, min(len(seen_T), t + _BESIDE + 1)) if n != t and seen_T[n]]
        if len(beside_N) >= 2:
            found_T[t] = float(np.hypot(*(points_T2[t] - np.median(points_T2[beside_N], axis=0)))) > limit_px
    return found_T


def _smoothed(points_T2: NDArray[np.float64], sure_T: NDArray[np.bool_], beside: int) -> NDArray[np.float64]:
    """The mean of the sure points up to `beside` frames away, as many before as after, so that the first and last point stay."""
    made_T2 = np.full_like(points_T2, np.nan)
    for t in np.flatnonzero(sure_T):
        reach = min(beside, t, len(sure_T) - 1 - t)
        span = slice(t - reach, t + reach + 1)
        made_T2[t] = points_T2[span][sure_T[span]].mean(axis=0)
    return made_T2


def trace_labels(track: GripperTrack, size: tuple[int, int], points: int, version: str) -> NDArray[np.int16]:
    """(T, 5, 2), -1 after the last point of each; traces that the annotator gave stand, evenly thinned to `points`.

    Raises `DatasetError` where the gripper was seen in no frame.
    """
    height, width = size
    traces = future_traces(track.points_T2, track.visible_T, width=width, height=height, points=points)
    trace_T52 = np.full((len(traces), TRACE_MAX_POINTS, 2), -1, np.int16)
    for t, trace in enumerate(traces):
        if trace is None:
            raise DatasetError(f"the gripper was not found in any frame of this episode ({version})")
        given_N2 = _given(track, t, points)
        points_N2 = trace.points_N2 if given_N2 is None else given_N2
        trace_T52[t, : len(points_N2)] = points_N2
    return trace_T52


def _given(track: GripperTrack, t: int, points: int) -> NDArray[np.int16] | None:
    """The trace that the annotator gave of a frame; None where it gave none."""
    if track.trace_T52 is None or track.trace_T52[t, 0, 0] < 0:
        return None
    given_N2 = track.trace_T52[t][track.trace_T52[t, :, 0] >= 0]
    return given_N2[future_indices(len(given_N2), points)]
