"""What two or more sets must have in common to become one, and which of their episodes are the same."""

from __future__ import annotations

from collections.abc import Sequence

from components.data.editing.description import SetDescription, describe, differing_fields
from components.data.editing.fingerprint import fingerprint
from components.data.editing.parameters import Merge
from components.data.sources.interface import EpisodeSource
from model_core.spec.errors import DatasetError


def check_mergeable(sources: Sequence[EpisodeSource]) -> None:
    """Raise `DatasetError` with every field in which the sets differ, unless they are of one embodiment and rate."""
    if len(sources) < 2:
        raise DatasetError("merge needs at least two sets. Fix: name them, `actwright data merge A B`")
    first: SetDescription = describe(sources[0])
    reasons = [
        f"{sources[0].name} and {source.name} differ in {', and in '.join(found)}"
        for source in sources[1:]
        if (found := differing_fields(first, describe(source)))
    ]
    if reasons:
        raise DatasetError(
            f"these sets cannot become one: {'; '.join(reasons)}. Fix: name them as two sources of one recipe, each with its own "
            "embodiment and maps, or correct the description that is wrong"
        )


def merge_parameters(sources: Sequence[EpisodeSource]) -> Merge:
    """How the episodes of these sets become one set: equal ones are given once, others of one id get a new id.

    Numbers decide first; only where all of them are equal, the images are compared. Labels are not contents: an episode that two sets
    label differently is refused, since which label is right cannot be told.
    """
    kept: dict[str, list[tuple[int, int]]] = {}  # digest of the numbers -> (parent, index)
    ids: set[str] = set()
    once: list[str] = []
    renamed: dict[str, str] = {}
    for parent, source in enumerate(sources):
        for row in source.rows:
            place, numbers = f"{parent}/{row.episode_id}", fingerprint(source, row.index, images=False).numbers
            twins = [(p, i) for p, i in kept.get(numbers, ()) if p != parent and _same_images(sources, (p, i), (parent, row.index))]
            if twins:
                _check_labels(sources, twins[0], (parent, row.index))
                once.append(place)
                continue
            kept.setdefault(numbers, []).append((parent, row.index))
            if row.episode_id in ids:
                renamed[place] = _free(f"{source.name}-{row.index:06d}", ids)
            ids.add(renamed.get(place, row.episode_id))
    return Merge(once=tuple(once), renamed=renamed)


def _same_images(sources: Sequence[EpisodeSource], one: tuple[int, int], other: tuple[int, int]) -> bool:
    return fingerprint(sources[one[0]], one[1]).whole == fingerprint(sources[other[0]], other[1]).whole


def _check_labels(sources: Sequence[EpisodeSource], one: tuple[int, int], other: tuple[int, int]) -> None:
    mine, theirs = sources[one[0]].rows[one[1]], sources[other[0]].rows[other[1]]
    pairs = {"instruction": (mine.instruction, theirs.instruction), "success": (mine.success, theirs.success)}
    if odd := [f"{name} {a!r} and {b!r}" for name, (a, b) in pairs.items() if a != b]:
        raise DatasetError(
            f"episode {mine.episode_id} of {sources[one[0]].name} and {theirs.episode_id} of {sources[other[0]].name} have the same "
            f"frames and other labels: {', '.join(odd)}. Fix: correct one of them with `actwright data relabel`, or leave one out with "
            "`actwright data select`"
        )


def _free(wanted: str, ids: set[str]) -> str:
    number, name = 1, wanted
    while name in ids:
        number, name = number + 1, f"{wanted}-{number}"
    return name
