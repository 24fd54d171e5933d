"""A person's corrections of gripper points: a small file keyed by episode, camera and frame. They take precedence over every annotator.

    {"episode": "kitchen-000012", "camera": "front", "frame": 41, "point": [103.5, 60.0], "reviewer": "Lee", "at": "2026-11-02T09:30:00Z"}

One line a frame. point: (x, y) in pixels of the recorded image; null: the gripper is not in the image. A later line about the same frame
replaces the earlier one. at: when it was decided, with its time zone; note: optional, for people. A line with `trace` in place of `point`
gives 1 to 5 points, [[x, y], ...]: the trace of that frame as it was drawn, whatever points follow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.artifacts.files import sha256_file
from components.data.annotators.interface import GripperTrack
from model_core.spec.documents import Number, from_document
from model_core.spec.errors import ActwrightError, DatasetError, SpecError, require
from model_core.spec.types import TRACE_MAX_POINTS
from model_core.tokenization.trace import to_range


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decision:
    """What a person decided about one frame."""

    episode: str
    camera: str
    frame: int
    reviewer: str
    at: str
    note: str = ""

    def __post_init__(self) -> None:
        require(bool(self.episode and self.camera), "a correction names its episode and camera")
        require(self.frame >= 0, "frames are counted from 0", got=self.frame)
        require(bool(self.reviewer.strip()), "a correction names its reviewer", got=self.reviewer)
        try:
            is_dated = datetime.fromisoformat(self.at).tzinfo is not None
        except ValueError:
            is_dated = False
        require(is_dated, "at must be a time with its zone, such as 2026-11-02T09:30:00Z", got=self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction(_Decision):
    """Where the gripper is. point: (x, y) in pixels, or None: not in the image."""

    point: tuple[Number, Number] | None

    def __post_init__(self) -> None:
        _Decision.__post_init__(self)
        require(self.point is None or all(math.isfinite(v) for v in self.point), "point must be two finite numbers or null", got=self.point)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnTrace(_Decision):
    """The trace of the frame. trace: 1 to 5 points (x, y) in pixels."""

    trace: tuple[tuple[Number, Number], ...]

    def __post_init__(self) -> None:
        _Decision.__post_init__(self)
        require(1 <= len(self.trace) <= TRACE_MAX_POINTS, f"a trace has 1 to {TRACE_MAX_POINTS} points", got=len(self.trace))
        require(all(math.isfinite(v) for point in self.trace for v in point), "points must be finite numbers", got=self.trace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """All corrections of a file. by_place: (episode, camera) -> frame -> the one that counts. traces: the same of drawn traces.

    digest: of the file ("" for none).
    """

    by_place: Mapping[tuple[str, str], Mapping[int, Correction]] = field(default_factory=dict[tuple[str, str], Mapping[int, Correction]])
    traces: Mapping[tuple[str, str], Mapping[int, DrawnTrace]] = field(default_factory=dict[tuple[str, str], Mapping[int, DrawnTrace]])
    digest: str = ""

    def unused(self, episodes: Sequence[str], cameras: Sequence[str]) -> tuple[str, ...]:
        """Sentences about corrections of episodes or cameras that are not there: they change nothing."""
        named = (*self.by_place, *self.traces)
        strangers = sorted({f"episode {e!r}, camera {c!r}" for e, c in named if e not in episodes or c not in cameras})
        return tuple(f"corrections of {place} change nothing: these data do not have it" for place in strangers)

    def applied(self, track: GripperTrack, episode: str, camera: str, size: tuple[int, int]) -> GripperTrack:
        """The track with each corrected frame as the person decided it, and `by_T` naming who did. size: (height, width) of the images.

        Drawn traces stand beside it; traces of the annotator stay only where no point was changed. Raises `DatasetError` for a frame that
        the episode does not have, or a point outside the image.
        """
        pointed = self._pointed(track, episode, camera, size)
        drawn = self.traces.get((episode, camera))
        return replace(pointed, trace_T52=_drawn(pointed, drawn, size)) if drawn else pointed

    def _pointed(self, track: GripperTrack, episode: str, camera: str, size: tuple[int, int]) -> GripperTrack:
        mine = self.by_place.get((episode, camera))
        if not mine:
            return track
        count = len(track.visible_T)
        points_T2, visible_T, confidence_T = track.points_T2.copy(), track.visible_T.copy(), track.confidence_T.copy()
        by = list(track.by_T) or [""] * count
        for frame, correction in sorted(mine.items()):
            _check_place(correction, () if correction.point is None else (correction.point,), count, size)
            x, y = (np.nan, np.nan) if correction.point is None else map(float, correction.point)
            points_T2[frame] = (x, y)
            visible_T[frame] = correction.point is not None
            confidence_T[frame] = float(correction.point is not None)
            by[frame] = correction.reviewer
        return replace(track, points_T2=points_T2, visible_T=visible_T, confidence_T=confidence_T, by_T=tuple(by), trace_T52=None)


def read_once(path: str) -> Corrections:
    """The corrections that a recipe names; none for "". A file that has not changed is read once in a process."""
    if not path:
        return Corrections()
    place = Path(path).expanduser()
    changed = place.stat().st_mtime_ns if place.is_file() else 0
    return _read_at(place, changed)


@cache
def _read_at(path: Path, changed: int) -> Corrections:
    return read_corrections(path)


def read_corrections(path: Path) -> Corrections:
    """Read a file of corrections (JSON lines). Raises `SpecError` naming the line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"corrections {path} cannot be read: {error}. Fix: name a file of JSON lines") from error
    found: dict[tuple[str, str], dict[int, Correction]] = {}
    drawn: dict[tuple[str, str], dict[int, DrawnTrace]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            document = json.loads(line)
            is_trace = isinstance(document, dict) and "trace" in document
            correction = from_document(DrawnTrace if is_trace else Correction, document, where=where)
        except json.JSONDecodeError as error:
            raise SpecError(f"{where} is no JSON: {error}. Fix: one object a line") from error
        except SpecError:
            raise
        except ActwrightError as error:
            raise SpecError(f"{where}: {error}") from error
        place = correction.episode, correction.camera
        if isinstance(correction, DrawnTrace):
            drawn.setdefault(place, {})[correction.frame] = correction
        else:
            found.setdefault(place, {})[correction.frame] = correction
    return Corrections(by_place=found, traces=drawn, digest=sha256_file(path))


def _drawn(track: GripperTrack, drawn: Mapping[int, DrawnTrace], size: tuple[int, int]) -> NDArray[np.int16]:
    """The annotator's traces with those that a person drew in their place; -1 where neither gave one."""
    count, (height, width) = len(track.visible_T), size
    trace_T52 = np.full((count, TRACE_MAX_POINTS, 2), -1, np.int16) if track.trace_T52 is None else track.trace_T52.copy()
    for frame, one in sorted(drawn.items()):
        _check_place(one, one.trace, count, size)
        trace_T52[frame] = -1
        trace_T52[frame, : len(one.trace)] = to_range(np.asarray(one.trace, np.float64), width=width, height=height)
    return trace_T52


def _check_place(correction: _Decision, points: Sequence[tuple[Number, Number]], count: int, size: tuple[int, int]) -> None:
    height, width = size
    if correction.frame >= count:
        raise DatasetError(f"{_named(correction)}: the episode has {count} frames. Fix: correct the line, or remove it")
    for x, y in points:
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
            raise DatasetError(
                f"{_named(correction)}: ({x:g}, {y:g}) is outside the {width}x{height} image. Fix: null where it is not in the image"
            )


def _named(correction: _Decision) -> str:
    return f"correction of episode {correction.episode}, camera {correction.camera}, frame {correction.frame} by {correction.reviewer}"
