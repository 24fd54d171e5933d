"""Which frames of which film are an episode's, and which number a film's pictures have. Pure: from times to whole numbers, in double.

A start in a film is a time. It is only used where it stands for a whole frame: times that were added up with an error drift, and past half
a frame they mean a frame of the neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import DatasetError

# Of a frame. Starts are float64 or float32 seconds: 3 hours at 60 frames a second in float32 are off by 0.03. A start that drifts from
# episode to episode by less than 1 - 2 x this tolerance cannot pass from one whole number to the next unseen.
START_TOLERANCE = 0.1
# Pictures may lie this far from k / fps: rounded time bases and clocks that jitter. A film of any other rate than a whole fraction of fps
# leaves these bounds after a few frames.
PICTURE_TOLERANCE = 0.3
_FIX = "Fix: export the data set again from its recordings"

FilmKey = tuple[str, int, int]


class FilmError(DatasetError):
    """The pictures of one film cannot be given to its episodes; the caller names the film."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmSpan:
    """What the episodes take of one film, in frames: from `begin` to before `end`; `taken` of them are theirs.

    may_hold_more: episodes were removed from the set, so pictures after the last frame may be theirs.
    """

    begin: int
    end: int
    taken: int
    may_hold_more: bool = False

    @property
    def is_gapless(self) -> bool:
        """Whether every frame between the first and the last is an episode's."""
        return self.taken == self.end - self.begin


def film_key(entry: Mapping[str, Any], key: str) -> FilmKey | None:
    """The film of one camera of one episode; None where the episode has none."""
    chunk, file, start = (entry.get(f"videos/{key}/{name}") for name in ("chunk_index", "file_index", "from_timestamp"))
    if chunk is None or file is None or start is None or chunk != chunk or file != file:
        return None
    return key, int(chunk), int(file)


def first_frame(entry: Mapping[str, Any], key: str, fps: float) -> int:
    """The frame of its film at which an episode begins. Raises `DatasetError` for a start or an end that is between frames."""
    number, length = entry["episode_index"], entry["length"]
    begin_s, end_s = float(entry[f"videos/{key}/from_timestamp"]), entry.get(f"videos/{key}/to_timestamp")
    begin = begin_s * fps
    if not math.isfinite(begin) or abs(begin - round(begin)) > START_TOLERANCE or begin < -START_TOLERANCE:
        raise DatasetError(
            f"episode {number} begins in the film of {key} at {begin_s:.9g} s, which is frame {begin:.3f} at {fps:g} frames a second; "
            f"expected a whole frame. Starts that were added up from rounded durations drift into the neighbour's frames. {_FIX}"
        )
    if end_s is not None and not abs((float(end_s) - begin_s) * fps - length) <= START_TOLERANCE:
        raise DatasetError(
            f"episode {number} has {length} frames, but takes {(float(end_s) - begin_s) * fps:.3f} frames of the film of {key} "
            f"({begin_s:.9g} s to {float(end_s):.9g} s at {fps:g} frames a second). {_FIX}"
        )
    return round(begin)


def film_spans(entries: Sequence[Mapping[str, Any]], keys: Sequence[str], fps: float) -> dict[FilmKey, FilmSpan]:
    """What the episodes take of every film. Raises `DatasetError` where two of them take the same frames."""
    taken: dict[FilmKey, list[tuple[int, int, int]]] = {}
    for key in keys:
        for entry in entries:
            if (film := film_key(entry, key)) is not None:
                taken.setdefault(film, []).append((first_frame(entry, key, fps), entry["length"], entry["episode_index"]))
    has_removed = [entry["episode_index"] for entry in entries] != list(range(len(entries)))
    spans: dict[FilmKey, FilmSpan] = {}
    for film, parts in taken.items():
        ordered = sorted(parts)
        for (start, length, number), (later, _, other) in pairwise(ordered):
            if later < start + length:
                raise DatasetError(
                    f"episodes {number} and {other} both take frame {later} of the film of {film[0]}; episode {number} has {length} frames "
                    f"from {start}. {_FIX}"
                )
        end = max(start + length for start, length, _ in ordered)
        taken_frames = sum(length for _, length, _ in ordered)
        spans[film] = FilmSpan(begin=ordered[0][0], end=end, taken=taken_frames, may_hold_more=has_removed)
    return spans


def number_pictures(times_s: NDArray[np.float64], stated: int, fps: float, span: FilmSpan | None) -> NDArray[np.int64]:
    """The frame number of each picture of a film, in the order of their times, as the episodes count.

    times_s: of the pictures that are in the file. stated: how many its header states (more than are there in a truncated file).
    span: what the episodes take; None: nothing is known of them, so only the times are used.
    Raises `FilmError` where a picture has no whole number, or where pictures and episodes cannot be matched without doubt.
    """
    positions = times_s * fps
    numbers = np.rint(positions - positions[0]).astype(np.int64)
    steps = np.diff(numbers)
    beside = np.abs(positions - positions[0] - numbers)
    if beside.max() > PICTURE_TOLERANCE or (steps < 1).any() or (len(steps) and np.median(steps) > 1):
        rate = (len(times_s) - 1) / max(float(times_s[-1] - times_s[0]), 1e-9)
        at = int(np.argmax(beside > PICTURE_TOLERANCE)) if beside.max() > PICTURE_TOLERANCE else 1
        raise FilmError(
            f"the film runs at {rate:.6g} frames a second and info.json states {fps:g}: its picture {at} is at {times_s[at]:.6g} s, "
            f"which is frame {positions[at]:.2f}. Fix: correct fps, or export the films again at that rate"
        )
    if span is None:
        return numbers + round(float(positions[0]))
    first, missing = float(positions[0]), int(numbers[-1]) + 1 - len(numbers)
    # a film may begin after 0: either its times count on, or the episodes count from its first picture
    counts_on = abs(first - round(first)) <= PICTURE_TOLERANCE and span.begin >= round(first)
    if not counts_on and not span.is_gapless:
        raise FilmError(
            f"the film begins at frame {first:.2f}, its first episode at frame {span.begin}; which picture is whose cannot be told. {_FIX}"
        )
    shift = round(first) if counts_on else span.begin
    end = shift + stated + missing
    if span.is_gapless and end != span.end and not (end > span.end and counts_on and span.may_hold_more):
        raise FilmError(
            f"the film holds {stated} pictures from frame {shift}, its episodes take frames {span.begin} to {span.end - 1}: a picture was "
            f"lost or written twice, or an episode was removed, and which episodes lie beside their pictures cannot be told. {_FIX}"
        )
    return numbers + shift
