"""Two episodes take each other's place in a film: a merge put the episodes of one camera in another order than the rows.

The merge sorted the films by name and the rows by number, where 10 comes before 9. Every episode still has as many pictures as rows, and
no picture is taken twice. Reported like this: huggingface/lerobot#2264, huggingface/lerobot#2627.
A good tool says: the pictures of these two episodes do not belong to their rows; the statistics of their pictures fit the other way
round.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tests.data_faults.edits_for_blind_faults import SetFolder
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Exchange the places of two episodes that follow each other in the film of one camera, in meta/episodes alone."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    entries = data.entries()
    found: list[tuple[str, int, int]] = []
    for key in data.film_keys():
        films: dict[tuple[int, int], list[tuple[float, int]]] = {}
        for number, entry in entries.items():
            place = (entry[f"videos/{key}/chunk_index"], entry[f"videos/{key}/file_index"])
            films.setdefault(place, []).append((entry[f"videos/{key}/from_timestamp"], number))
        for film in films.values():
            found += [(key, one, two) for (_, one), (_, two) in pairwise(sorted(film)) if _touch(entries[one], entries[two], key, data.fps)]
    if not found:
        raise NotApplicable("no two episodes follow each other in a film")
    key, one, two = found[int(rng.integers(len(found)))]
    begin, begin_name, end_name = entries[one][f"videos/{key}/from_timestamp"], f"videos/{key}/from_timestamp", f"videos/{key}/to_timestamp"
    middle = begin + entries[two]["length"] / data.fps
    end = begin + (entries[one]["length"] + entries[two]["length"]) / data.fps
    data.put_meta({begin_name: {two: begin, one: middle}, end_name: {two: middle, one: end}})
    return f"episodes {one} and {two} have each other's place in the film of {key}"


def _touch(one: dict[str, Any], two: dict[str, Any], key: str, fps: float) -> bool:
    gap = two[f"videos/{key}/from_timestamp"] - one[f"videos/{key}/from_timestamp"] - one["length"] / fps
    return bool(np.abs(gap * fps) < 0.1)
