"""A person's corrections of gripper points: a small file keyed by episode, camera and frame. They take precedence over every annotator.

    {"episode": "kitchen-000012", "camera": "front", "frame": 41, "point": [103.5, 60.0], "reviewer": "Lee", "at": "2026-11-02T09:30:00Z"}

One line a frame. point: (x, y) in pixels of the recorded image; null: the gripper is not in the image. A later line about the same frame
replaces the earlier one. at: when it was decided, with its time zone; note: optional, for people.
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

from components.artifacts.files import sha256_file
from components.data.annotators.interface import GripperTrack
from model_core.spec.documents import Number, from_document
from model_core.spec.errors import ActwrightError, DatasetError, SpecError, require


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What a person decided about one frame. point: (x, y) in pixels, or None: not in the image."""

    episode: str
    camera: str
    frame: int
    point: tuple[Number, Number] | None
    reviewer: str
    at: str
    note: str = ""

    def __post_init__(self) -> None:
        require(bool(self.episode and self.camera), "a correction names its episode and camera")
        require(self.frame >= 0, "frames are counted from 0", got=self.frame)
        require(bool(self.reviewer.strip()), "a correction names its reviewer", got=self.reviewer)
        require(self.point is None or all(math.isfinite(v) for v in self.point), "point must be two finite numbers or null", got=self.point)
        try:
            is_dated = datetime.fromisoformat(self.at).tzinfo is not None
        except ValueError:
            is_dated = False
        require(is_dated, "at must be a time with its zone, such as 2026-11-02T09:30:00Z", got=self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """All corrections of a file. by_place: (episode, camera) -> frame -> the one that counts. digest: of the file ("" for none)."""

    by_place: Mapping[tuple[str, str], Mapping[int, Correction]] = field(default_factory=dict[tuple[str, str], Mapping[int, Correction]])
    digest: str = ""

    def unused(self, episodes: Sequence[str], cameras: Sequence[str]) -> tuple[str, ...]:
        """Sentences about corrections of episodes or cameras that are not there: they change nothing."""
        strangers = sorted({f"episode {e!r}, camera {c!r}" for e, c in self.by_place if e not in episodes or c not in cameras})
        return tuple(f"corrections of {place} change nothing: these data do not have it" for place in strangers)

    def applied(self, track: GripperTrack, episode: str, camera: str, size: tuple[int, int]) -> GripperTrack:
        """The track with each corrected frame as the person decided it, and `by_T` naming who did. size: (height, width) of the images.

        Raises `DatasetError` for a frame that the episode does not have, or a point outside the image.
        """
        mine = self.by_place.get((episode, camera))
        if not mine:
            return track
        count, (height, width) = len(track.visible_T), size
        points_T2, visible_T, confidence_T = track.points_T2.copy(), track.visible_T.copy(), track.confidence_T.copy()
        by = list(track.by_T) or [""] * count
        for frame, correction in sorted(mine.items()):
            if frame >= count:
                raise DatasetError(f"{_named(correction)}: the episode has {count} frames. Fix: correct the line, or remove it")
            x, y = (np.nan, np.nan) if correction.point is None else map(float, correction.point)
            if correction.point is not None and not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
                raise DatasetError(
                    f"{_named(correction)}: ({x:g}, {y:g}) is outside the {width}x{height} image. Fix: null where it is not in the image"
                )
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
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            correction = from_document(Correction, json.loads(line), where=where)
        except json.JSONDecodeError as error:
            raise SpecError(f"{where} is no JSON: {error}. Fix: one object a line") from error
        except SpecError:
            raise
        except ActwrightError as error:
            raise SpecError(f"{where}: {error}") from error
        found.setdefault((correction.episode, correction.camera), {})[correction.frame] = correction
    return Corrections(by_place=found, digest=sha256_file(path))


def _named(correction: Correction) -> str:
    return f"correction of episode {correction.episode}, camera {correction.camera}, frame {correction.frame} by {correction.reviewer}"
