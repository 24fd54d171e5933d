"""Images of many episodes, answered in full batches, and put together per episode again.

Each answered batch is kept as it comes, each whole episode takes the place of its batches: a killed run does nothing twice that was
answered, and loses what was in the hands of an annotator. What could not be answered is told per frame, and asked again by the next run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.annotators.cache import AnswerCache
from components.data.labelling.engine import LabellingEngine, Shard, ShardAnswer, accounted
from components.data.labelling.labeller import IMAGES

_ROWS = "row_ids"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeImages:
    """What is asked of one episode. digest: of its frames; episodes of one digest are asked once."""

    digest: str
    images_THW3: NDArray[np.uint8]


@dataclass(slots=True)
class _Open:
    """An episode on its way: how many frames have neither answer nor reason, and what came."""

    waiting: int
    columns: dict[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    errors: dict[int, str] = field(default_factory=dict[int, str])


@dataclass(slots=True, kw_only=True)
class Batching:
    """One annotator's answers about episodes, kept in `cache` under its `version`.

    errors: digest of an episode -> frame -> why it has no answer; such an episode is not kept.
    """

    engine: LabellingEngine
    cache: AnswerCache
    version: str
    batch: int
    errors: dict[str, dict[int, str]] = field(default_factory=dict[str, dict[int, str]])
    _open: dict[str, _Open] = field(default_factory=dict[str, _Open], init=False)
    _kept: dict[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict[str, Mapping[str, NDArray[Any]]], init=False)
    _parts: dict[Path, set[str]] = field(default_factory=dict[Path, set[str]], init=False)

    def run(self, episodes: Iterable[EpisodeImages]) -> None:
        """Answer every image of `episodes`. Raises what the engine raises; answers until then are kept."""
        self._read_parts()
        for answer in accounted(self.engine, self._shards(episodes)):
            self._keep_part(answer)
            self._take(answer)
        for path in self._parts:  # of episodes that failed, or that are not asked for any more
            path.unlink(missing_ok=True)
        self._parts.clear()

    def _shards(self, episodes: Iterable[EpisodeImages]) -> Iterator[Shard]:
        ids: list[str] = []
        images: list[NDArray[np.uint8]] = []
        for row_id, image_HW3 in self._rows(episodes):
            if images and (len(images) == self.batch or image_HW3.shape != images[0].shape):
                yield Shard(row_ids=tuple(ids), columns={IMAGES: np.stack(images)})
                ids, images = [], []
            ids.append(row_id)
            images.append(image_HW3)
        if images:
            yield Shard(row_ids=tuple(ids), columns={IMAGES: np.stack(images)})

    def _rows(self, episodes: Iterable[EpisodeImages]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """The frames without an answer, of every episode once."""
        seen: set[str] = set()
        for episode in episodes:
            if episode.digest in seen or self.cache.holds(self.version, episode.digest):
                continue
            seen.add(episode.digest)
            self._open[episode.digest] = _Open(waiting=len(episode.images_THW3))
            for frame, image_HW3 in enumerate(episode.images_THW3):
                row_id = f"{episode.digest}:{frame}"
                if (kept := self._kept.pop(row_id, None)) is None:
                    yield row_id, image_HW3
                else:
                    self._put(row_id, kept, None)

    def _take(self, answer: ShardAnswer) -> None:
        for place, row_id in enumerate(answer.row_ids):
            self._put(row_id, {name: column[place] for name, column in answer.columns.items()}, None)
        for row_id, reason in answer.errors.items():
            self._put(row_id, {}, reason)

    def _put(self, row_id: str, values: Mapping[str, NDArray[Any]], reason: str | None) -> None:
        digest, _, frame = row_id.rpartition(":")
        episode = self._open[digest]
        for name, value in values.items():
            if name not in episode.columns:
                total = episode.waiting + len(episode.errors)  # nothing of it came before but errors
                episode.columns[name] = np.zeros((total, *np.shape(value)), np.asarray(value).dtype)
            episode.columns[name][int(frame)] = value
        if reason is not None:
            episode.errors[int(frame)] = reason
        episode.waiting -= 1
        if not episode.waiting:
            self._finish(digest, self._open.pop(digest))

    def _finish(self, digest: str, episode: _Open) -> None:
        if episode.errors:
            self.errors[digest] = dict(sorted(episode.errors.items()))
            return
        self.cache.keep(self.version, digest, episode.columns)
        for path in [path for path, digests in self._parts.items() if digest in digests]:
            self._parts[path].discard(digest)
            if not self._parts[path]:
                del self._parts[path]
                path.unlink(missing_ok=True)

    def _keep_part(self, answer: ShardAnswer) -> None:
        if not answer.row_ids:
            return
        rows = np.frombuffer(json.dumps(answer.row_ids).encode(), np.uint8)
        path = self.cache.keep_part(self.version, f"{answer.row_ids[0]} {len(answer.row_ids)}", {**answer.columns, _ROWS: rows})
        self._parts[path] = {row_id.rpartition(":")[0] for row_id in answer.row_ids}

    def _read_parts(self) -> None:
        for path, columns in self.cache.parts(self.version):
            row_ids = json.loads(columns[_ROWS].tobytes())
            self._parts[path] = {row_id.rpartition(":")[0] for row_id in row_ids}
            for place, row_id in enumerate(row_ids):
                self._kept[row_id] = {name: column[place] for name, column in columns.items() if name != _ROWS}
