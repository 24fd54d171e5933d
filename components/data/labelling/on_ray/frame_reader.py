"""Frames by reference: the numbers of an episode and of a frame become an image where the work is done, and not before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.annotators.interface import frames_of
from components.data.labelling.engine import LabelJob, Shard, ShardAnswer
from components.data.labelling.labeller import IMAGES
from components.data.labelling.views import Views, views_of
from components.data.sources.open import open_raw
from model_core.spec.errors import ActwrightError, DatasetError

MAKER = f"{__name__}:open_reader"
EPISODE, FRAME, DIGEST = "episode", "frame", "frames_digest"


def reader_job(dataset: Path, camera: str) -> LabelJob:
    """The decoder of one camera of a raw data set; camera "": the first of each episode's embodiment."""
    return LabelJob(maker=MAKER, settings={"dataset": str(dataset.resolve()), "camera": camera})


def references(episodes: Iterable[tuple[int, str, int]]) -> Iterator[Shard]:
    """A shard for each episode (index, id, frames), whose rows are numbers."""
    for index, _, count in episodes:
        columns = {EPISODE: np.full(count, index, np.int64), FRAME: np.arange(count, dtype=np.int64)}
        yield Shard(row_ids=tuple(f"{index}:{frame}" for frame in range(count)), columns=columns)


def open_reader(settings: Mapping[str, Any]) -> FrameReader:
    """The decoder of `reader_job`. Raises `DatasetError` where there is no such data set on this machine."""
    return FrameReader(views=views_of(open_raw(Path(settings["dataset"]))), camera=str(settings["camera"]))


@dataclass(slots=True, kw_only=True)
class FrameReader:
    """Answers numbers of frames with their images, and the digest of all frames of their episode; it keeps the last episode."""

    views: Views
    camera: str
    _last: tuple[int, NDArray[np.uint8], NDArray[np.uint8]] | None = field(default=None, init=False)

    def description(self) -> Mapping[str, Any]:
        """Whose frames."""
        return {"source": self.views.source.digest, "camera": self.camera}

    def label(self, shard: Shard) -> ShardAnswer:
        """An image or a reason per row."""
        numbers = [(int(episode), int(frame)) for episode, frame in zip(shard.columns[EPISODE], shard.columns[FRAME], strict=True)]
        good: list[int] = []
        images: list[NDArray[np.uint8]] = []
        digests: list[NDArray[np.uint8]] = []
        errors: dict[str, str] = {}
        for place, (episode, frame) in enumerate(numbers):
            try:
                images_THW3, digest = self._episode(episode)
                if frame >= len(images_THW3):
                    raise DatasetError(f"episode {episode} has {len(images_THW3)} images, expected one for frame {frame}")
            except ActwrightError as error:
                errors[shard.row_ids[place]] = str(error)
                continue
            good.append(place)
            images.append(images_THW3[frame])
            digests.append(digest)
        if not good:
            return ShardAnswer(row_ids=(), columns={}, errors=errors)
        columns = {IMAGES: np.stack(images), DIGEST: np.stack(digests)}
        return ShardAnswer(row_ids=tuple(shard.row_ids[place] for place in good), columns=columns, errors=errors)

    def _episode(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if self._last is None or self._last[0] != index:
            view = self.views.named(index, self.camera) if self.camera else self.views.first(index)
            frames = frames_of(self.views.source.episode(index, images=True, depth=True), view.camera, view.size, view.body)
            self._last = index, frames.images_THW3, np.frombuffer(bytes.fromhex(frames.digest()), np.uint8)
        return self._last[1], self._last[2]
