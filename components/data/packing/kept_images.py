"""Decoded images of a run's raw data, kept for its stages: each episode is decoded once, by the stage that asks first.

    FOLDER/<episode>/000.npy ...    the images (T, H, W, 3) of one camera each, as they were decoded
    FOLDER/<episode>/cameras.json      their names, in order; written last

Files appear whole or not at all, and are read by mapping them. What does not fit into `most_bytes` is decoded each time, and counted.
Nothing depends on these files: they may be deleted at any time.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_core.spec.files import atomic_write

log = logging.getLogger(__name__)
MOST_BYTES = 20 * 2**30
Images = Mapping[str, NDArray[np.uint8]]


class KeptImages:
    """The images of the episodes of one data set, or of several sources, which `folder` stands for. Arrays that were kept are read-only.

    decoded: how many episodes were decoded through this object; left_out: how many of them did not fit, or the disk did not take.
    """

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder
        self.decoded = self.left_out = 0
        self._room = most_bytes - sum(path.stat().st_size for path in folder.glob("*/*.npy"))

    def fetch(self, episode: str, decode: Callable[[], Images]) -> Images:
        """Camera -> images of an episode, by `decode` where they are not here. Errors of `decode` pass through.

        episode: its name here, of which a folder is called: equal names are equal images.
        """
        place = self.folder / episode
        if (kept := _read(place)) is not None:
            return kept
        images = decode()
        self.decoded += 1
        if images:
            self._keep(place, images)
        return images

    def _keep(self, place: Path, images: Images) -> None:
        size = sum(array.nbytes for array in images.values())
        if size > self._room:
            self._leave_out(place, f"{size} bytes do not fit into the {self._room} that are left")
            return
        try:
            for number, array in enumerate(images.values()):
                content = io.BytesIO()
                np.save(content, np.ascontiguousarray(array), allow_pickle=False)
                atomic_write(place / f"{number:03d}.npy", content.getvalue(), durable=False)
            atomic_write(place / "cameras.json", json.dumps(list(images)), durable=False)
        except OSError as error:  # a full disk: the images are at hand, they are only not kept
            self._room = 0
            self._leave_out(place, str(error))
        else:
            self._room -= size

    def _leave_out(self, place: Path, reason: str) -> None:
        if not self.left_out:
            log.warning("decoded images are not kept from episode %s on, each stage decodes them again: %s", place.name, reason)
        self.left_out += 1


def fetch_images(kept: KeptImages | None, episode: str, decode: Callable[[], Images]) -> Images:
    """`KeptImages.fetch`, where images are kept at all."""
    return decode() if kept is None else kept.fetch(episode, decode)


def _read(place: Path) -> Images | None:
    try:
        names = json.loads((place / "cameras.json").read_text(encoding="utf-8"))
        arrays = [np.load(place / f"{number:03d}.npy", mmap_mode="r", allow_pickle=False) for number in range(len(names))]
    except (OSError, ValueError):
        return None  # never kept, deleted meanwhile, or torn by a crash of the machine: decoded again
    return {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}
