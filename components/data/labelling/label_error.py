"""How far labels are from what the recording's simulator knows, and from what a person corrected; written beside them.

    out/label_error.json   {"estimate": share of wrong points, ...}, or {"estimate": "not measured", "why": ...}

Labels that are the simulator's truth have no such file: there is nothing that they could be compared with.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.annotators.interface import Frames, GripperTrack
from components.data.annotators.open import Annotators
from components.data.annotators.simulator_truth import TruthDepth, TruthPoint, are_truth
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write

FILE = "label_error.json"
NOT_MEASURED = "not measured"
WRONG = 0.05  # of the image's diagonal: a fingertip beside the object
_LOOKED_AT, _GRID = 8, 32  # frames of an episode, and rows and columns of a frame, whose depth is compared


@dataclass(slots=True, kw_only=True)
class LabelError:
    """Adds up the labels of one camera. Nothing is compared with itself: what an annotator of truth labelled is left out."""

    annotators: Annotators
    _pixels: list[NDArray[np.float64]] = field(default_factory=list[NDArray[np.float64]])  # distance; inf where only one saw it
    _limits: list[float] = field(default_factory=list[float])
    _ranks: list[float] = field(default_factory=list[float])
    _corrected: list[NDArray[np.float64]] = field(default_factory=list[NDArray[np.float64]])
    _frames: int = 0

    @property
    def is_truth(self) -> bool:
        """Whether every label is the simulator's truth."""
        return are_truth(self.annotators.versions())

    def add(self, frames: Frames, found: GripperTrack, kept: GripperTrack, depth_THW: NDArray[np.number] | None) -> None:
        """Compare one episode. found: points of the annotator. kept: what the traces are made of, with a person's corrections.

        depth_THW: of the annotator, None for traces alone.
        """
        self._frames += frames.count
        if kept.by_T:
            by_T = np.array([bool(name) for name in kept.by_T])
            self._corrected.append(_distance(found, kept)[by_T])
        if not isinstance(self.annotators.points, TruthPoint):
            try:
                truth = TruthPoint().annotate(frames)
            except DatasetError:  # it was not recorded
                pass
            else:
                self._pixels.append(_distance(kept, truth))
                self._limits.append(WRONG * float(np.hypot(*frames.size)))
        depth = self.annotators.depth
        if depth is not None and not isinstance(depth, TruthDepth) and depth_THW is not None and frames.depth_m_THW is not None:
            self._ranks += _rank_correlations(depth_THW, frames.depth_m_THW, rises=depth.scaling.kind == "inverse")

    def write(self, folder: Path) -> None:
        """Write the document, unless the labels are truth."""
        if not self.is_truth:
            atomic_write(folder / FILE, json.dumps(self.document(), indent=1, sort_keys=True) + "\n")

    def document(self) -> dict[str, Any]:
        """What is known, as plain JSON."""
        told: dict[str, Any] = {"format": 1, **self.annotators.versions(), "frames": self._frames}
        if self._corrected:
            moved_N = np.concatenate(self._corrected)
            told |= {"corrected_frames": len(moved_N), "corrected_median_px": _rounded(np.median(moved_N))}
        if self._ranks:
            told["depth_rank_correlation"] = _rounded(np.median(self._ranks))
        if not self._pixels:
            return told | {"estimate": NOT_MEASURED, "why": self._why()}
        pixels_N = np.concatenate(self._pixels)
        wrong = sum(int((part > limit).sum()) for part, limit in zip(self._pixels, self._limits, strict=True))
        seen_N = pixels_N[np.isfinite(pixels_N)]
        return told | {
            "estimate": _rounded(wrong / len(pixels_N)),
            "of": "points, compared with the simulator's",
            "wrong": f"more than {WRONG:.0%} of the image's diagonal away, or seen where it is not, or not seen where it is",
            "compared_frames": len(pixels_N),
            "median_px": _rounded(np.median(seen_N)) if seen_N.size else None,
            "q95_px": _rounded(np.quantile(seen_N, 0.95)) if seen_N.size else None,
        }

    def _why(self) -> str:
        if isinstance(self.annotators.points, TruthPoint):
            return "the points are the simulator's own"
        if self._corrected:
            return "the recordings hold no truth, and the frames that a person corrected are no fair sample"
        return "the recordings hold no truth, and no person looked at the points"


def _distance(one: GripperTrack, other: GripperTrack) -> NDArray[np.float64]:
    """Pixels between the points of each frame: 0 where neither has one, inf where only one has."""
    both_T, neither_T = one.visible_T & other.visible_T, ~one.visible_T & ~other.visible_T
    far_T = np.where(neither_T, 0.0, np.inf)
    far_T[both_T] = np.hypot(*(one.points_T2[both_T] - other.points_T2[both_T]).T)
    return far_T


def _rank_correlations(found_THW: NDArray[np.number], truth_THW: NDArray[np.float32], *, rises: bool) -> list[float]:
    """Spearman's correlation over pixels with recorded depth, of some frames. rises: whether larger numbers mean farther away."""
    told: list[float] = []
    for t in np.unique(np.linspace(0, len(truth_THW) - 1, _LOOKED_AT).astype(int)):
        rows, columns = (np.unique(np.linspace(0, side - 1, _GRID).astype(int)) for side in truth_THW.shape[1:])
        truth_N, found_N = (np.asarray(part[t], np.float64)[np.ix_(rows, columns)].ravel() for part in (truth_THW, found_THW))
        known_N = truth_N > 0
        one_N, other_N = _ranks(truth_N[known_N]), _ranks(found_N[known_N])
        if len(one_N) > 1 and one_N.std() > 0 and other_N.std() > 0:
            told.append(float(np.corrcoef(one_N, other_N)[0, 1]) * (1 if rises else -1))
    return told


def _ranks(values_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value; equal ones share the mean of theirs."""
    _, inverse_N, counts_N = np.unique(values_N, return_inverse=True, return_counts=True)
    return (np.cumsum(counts_N) - (counts_N + 1) / 2)[inverse_N]


def _rounded(value: Any) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
