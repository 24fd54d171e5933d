"""Measurements kept by what was measured: one JSON document for each episode, named by its content and the code that measured it.

Another threshold, name or place of the same episode finds it again; a changed number, picture or measuring function does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from components.data.inspection.measurements.episode import measure_episode
from components.data.inspection.measurements.raw_episode import RawEpisode
from components.data.inspection.measurements.record import EpisodeMeasurements
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import SpecError
from model_core.spec.files import atomic_write

_PACKAGES = ("numpy", "av")


@cache
def measuring_code() -> str:
    """The version of everything that decides a measurement."""
    from components.artifacts.code_version import code_version

    return code_version(("components.data.inspection.measurements.episode",), packages=_PACKAGES)


def content_key(episode: RawEpisode, pictures: Mapping[str, str]) -> str:
    """The name of an episode's measurements. pictures: camera -> digest of what its frames are decoded from."""
    total = hashlib.sha256(measuring_code().encode())
    said = [episode.fps, episode.instruction, episode.listed_tasks, episode.tasks, episode.session]
    body = "" if episode.embodiment is None else json.dumps(to_document(episode.embodiment), sort_keys=True)
    total.update(json.dumps([said, sorted(pictures.items()), body]).encode())
    arrays = {"times": episode.times_T, "stamps": episode.stamps_T} | dict(episode.vectors) | dict(episode.flags)
    for name in sorted(arrays):
        total.update(f"{name} {arrays[name].shape}".encode())
        total.update(np.ascontiguousarray(arrays[name], np.float64).tobytes())
    return total.hexdigest()


class MeasurementStore:
    """Documents in one folder; None keeps nothing. What cannot be read is measured again."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def measured(
        self, episode: RawEpisode, digests: Callable[[], Mapping[str, str]], pictures: Callable[[], Mapping[str, Iterable[Any]]]
    ) -> EpisodeMeasurements:
        """The kept measurements of an episode, else new ones, which are kept. digests, pictures: as `content_key` and `measure_episode`
        take them, asked for only where they are needed: without a folder no content is named, and what is kept is not decoded.
        """
        if self._folder is None:
            return measure_episode(episode, pictures())
        key = content_key(episode, digests())
        found = self.find(key, episode.episode_id, episode.number)
        if found is None:
            found = measure_episode(episode, pictures(), key)
            self.keep(found)
        return found

    def find(self, key: str, episode_id: str, number: int) -> EpisodeMeasurements | None:
        """The measurements of this content, under the name that it has here; None where there are none."""
        if self._folder is None or not (path := self._path(key)).is_file():
            return None
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return replace(from_document(EpisodeMeasurements, document), episode_id=episode_id, number=number)
        except (ValueError, SpecError):
            return None

    def keep(self, measured: EpisodeMeasurements) -> None:
        """Write one episode's measurements."""
        if self._folder is not None:
            path = self._path(measured.key)
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json.dumps(to_document(measured), sort_keys=True) + "\n", durable=False)

    def _path(self, key: str) -> Path:
        return (self._folder or Path()) / key[:2] / f"{key}.json"
