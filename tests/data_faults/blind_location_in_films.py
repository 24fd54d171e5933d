"""The films of one camera say where they were taken: the place of a private home stands in the notes of each file.

A telephone was used as a camera at an operator's home. Its notes (place, model, name of its owner) went through the conversion and would
be published with the set; a viewer of pictures does not show them. Reported like this: superseriousbusiness/gotosocial#2577.
A good tool says: these films hold the place where they were taken and a person's name; write them again without notes before publishing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.data_faults.edits_for_blind_faults import SetFolder, copy_film
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Write the notes of a telephone into the films of one camera; no picture changes."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    keys = data.film_keys()
    if not keys:
        raise NotApplicable("the set has no films")
    key = keys[int(rng.integers(len(keys)))]
    place = f"+{rng.uniform(47.5, 53.5):07.4f}+{rng.uniform(7.0, 13.0):08.4f}+112.4/"
    notes = {
        "com.apple.quicktime.location.ISO6709": place,
        "com.apple.quicktime.make": "Apple",
        "com.apple.quicktime.model": "iPhone 13",
        "com.apple.quicktime.author": "Erika Mustermann",
    }
    films = sorted((folder / "videos" / key).rglob("*.mp4"))
    for film in films:
        copy_film(film, lambda before: before | notes)
    return f"{len(films)} films of {key} hold the place {place} and the name of a person"
