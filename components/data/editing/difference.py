"""In what two versions of a data set differ: episodes, frames, labels and tasks, found by contents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from components.config.records import Progress, Silent
from components.data.editing.description import describe, differing_fields
from components.data.editing.fingerprint import Fingerprint, fingerprint
from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from components.data.sources.interface import EpisodeSource

TIME_TOLERANCE_S = 1e-5  # float32 seconds of ten minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeDifference:
    """One episode that is in both versions and differs. labels: field -> (of A, of B).

    kept: (first, end) of the frames of A that B has, where B has only these. changed: column or camera -> number of frames that differ.
    """

    a: str
    b: str
    labels: Mapping[str, tuple[object, object]] = field(default_factory=dict[str, tuple[object, object]])
    kept: tuple[int, int] | None = None
    changed: Mapping[str, int] = field(default_factory=dict[str, int])
    frames: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """equal: number of episodes with equal frames and labels. only_a, only_b: ids. differing: those in both that differ.

    tasks_only_a, tasks_only_b: instructions. description: sentences on embodiment, rate, cameras. images: whether images were compared.
    """

    equal: int
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    differing: tuple[EpisodeDifference, ...]
    tasks_only_a: tuple[str, ...]
    tasks_only_b: tuple[str, ...]
    description: tuple[str, ...]
    images: bool

    @property
    def is_empty(self) -> bool:
        """Whether the two versions are the same in everything that was compared."""
        return not (self.only_a or self.only_b or self.differing or self.description)


def difference(a: EpisodeSource, b: EpisodeSource, *, images: bool = True, progress: Progress | None = None) -> Difference:
    """Compare two versions. images: whether every image is decoded and compared; without it only numbers and labels are."""
    progress, total = progress or Silent(), len(a.rows) + len(b.rows)
    prints_a = _prints(a, images, lambda done: progress.update(done, total, f"reading {a.name}"))
    prints_b = _prints(b, images, lambda done: progress.update(len(a.rows) + done, total, f"reading {b.name}"))
    pairs = _pairs(_Side(a.rows, prints_a), _Side(b.rows, prints_b))
    found = [_compare(a.rows[i], prints_a[i], b.rows[j], prints_b[j]) for i, j in sorted(pairs.items())]
    differing = tuple(one for one in found if one.labels or one.kept or one.changed)
    tasks_a, tasks_b = ({row.instruction for row in source.rows} for source in (a, b))
    return Difference(
        equal=len(found) - len(differing),
        only_a=tuple(row.episode_id for row in a.rows if row.index not in pairs),
        only_b=tuple(row.episode_id for row in b.rows if row.index not in set(pairs.values())),
        differing=differing,
        tasks_only_a=tuple(sorted(tasks_a - tasks_b)),
        tasks_only_b=tuple(sorted(tasks_b - tasks_a)),
        description=tuple(differing_fields(describe(a), describe(b))),
        images=images,
    )


@dataclass(frozen=True, slots=True)
class _Side:
    rows: Sequence[EpisodeIndexRow]
    prints: Sequence[Fingerprint]


def _prints(source: EpisodeSource, images: bool, told: Callable[[int], None]) -> list[Fingerprint]:
    made: list[Fingerprint] = []
    for row in source.rows:
        made.append(fingerprint(source, row.index, images=images))
        told(len(made))
    return made


def _pairs(a: _Side, b: _Side) -> dict[int, int]:
    """Episode of A -> the same one of B. Equal frames decide, then equal numbers, then the id, then frames that one has of the other."""
    pairs: dict[int, int] = {}
    _match(pairs, a, b, lambda side, k: (side.prints[k].whole, side.rows[k].episode_id))
    _match(pairs, a, b, lambda side, k: side.prints[k].whole)
    _match(pairs, a, b, lambda side, k: side.prints[k].numbers)
    _match(pairs, a, b, lambda side, k: side.rows[k].episode_id)
    taken = set(pairs.values())
    for i in (row.index for row in a.rows if row.index not in pairs):
        for j in (row.index for row in b.rows if row.index not in taken):
            if _is_part(a.prints[i], b.prints[j]) or _is_part(b.prints[j], a.prints[i]):
                pairs[i] = j
                taken.add(j)
                break
    return pairs


def _match(pairs: dict[int, int], a: _Side, b: _Side, key: Callable[[_Side, int], object]) -> None:
    taken, waiting = set(pairs.values()), dict[object, list[int]]()
    for row in b.rows:
        if row.index not in taken:
            waiting.setdefault(key(b, row.index), []).append(row.index)
    for row in a.rows:
        if row.index not in pairs and waiting.get(key(a, row.index)):
            pairs[row.index] = waiting[key(a, row.index)].pop(0)


def _compare(row_a: EpisodeIndexRow, a: Fingerprint, row_b: EpisodeIndexRow, b: Fingerprint) -> EpisodeDifference:
    fields = ("instruction", "task", "success")
    labels = {name: (getattr(row_a, name), getattr(row_b, name)) for name in fields if getattr(row_a, name) != getattr(row_b, name)}
    kept = (first, first + len(b)) if len(b) < len(a) and (first := _inside(b.numbers_T, a.numbers_T)) is not None else None
    part = slice(*kept) if kept else slice(0, min(len(a), len(b)))
    changed, frames = _changed(a, b, part)
    if kept is None and len(a) != len(b):
        changed["length"] = abs(len(a) - len(b))
    return EpisodeDifference(a=row_a.episode_id, b=row_b.episode_id, labels=labels, kept=kept, changed=changed, frames=frames)


def _changed(a: Fingerprint, b: Fingerprint, part: slice) -> tuple[dict[str, int], tuple[tuple[int, int], ...]]:
    """Column or camera -> number of frames that differ, and the ranges of these frames as B counts them."""
    count = part.stop - part.start
    times_T = a.times_T[part] - a.times_T[part.start]
    differs = {
        "numbers": a.numbers_T[part] != b.numbers_T[:count],
        "times": np.abs(times_T - b.times_T[:count]) > TIME_TOLERANCE_S,
    }
    for name in sorted(a.images.keys() | b.images.keys()):
        both = name in a.images and name in b.images
        differs[name] = a.images[name][part] != b.images[name][:count] if both else np.ones(count, bool)
    anywhere_T = np.logical_or.reduce([flags_T for name, flags_T in differs.items() if name != "times"])
    return {name: int(flags_T.sum()) for name, flags_T in differs.items() if flags_T.any()}, tuple(ranges(np.flatnonzero(anywhere_T)))


def ranges(numbers: NDArray[np.int64] | Sequence[int]) -> Iterable[tuple[int, int]]:
    """Increasing whole numbers as ranges, each from its first to before its end."""
    values = np.asarray(numbers, np.int64)
    if not len(values):
        return
    breaks = np.flatnonzero(np.diff(values) != 1)
    for first, last in zip(np.r_[0, breaks + 1], np.r_[breaks, len(values) - 1], strict=True):
        yield int(values[first]), int(values[last]) + 1


def _inside(part_T: NDArray[np.uint64], whole_T: NDArray[np.uint64]) -> int | None:
    """Where a run of frames lies inside another one; None where it does not, or is not shorter."""
    if not 0 < len(part_T) < len(whole_T):
        return None
    for first in np.flatnonzero(whole_T[: len(whole_T) - len(part_T) + 1] == part_T[0]):
        if np.array_equal(whole_T[first : first + len(part_T)], part_T):
            return int(first)
    return None


def _is_part(one: Fingerprint, whole: Fingerprint) -> bool:
    return _inside(one.numbers_T, whole.numbers_T) is not None
