"""One episode of a set or a recording, opened to be looked at: frames by number, numbers on a time axis, depth of one frame."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from components.data.editing.description import describe
from components.data.editing.edited_source import EditedSource
from components.data.episodes.signals import Mark, Series, Signals, spans
from components.data.lerobot.columns.language_traces import COLUMN, column_of, read_traces
from components.data.lerobot.reader import DatasetReader
from components.data.sources.interface import EpisodeSource
from components.data.sources.joined import JoinedSource
from components.data.sources.lerobot import LeRobotSource
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError


class OpenedEpisode(Protocol):
    """What a player asks of an episode of any origin. Not thread-safe."""

    @property
    def cameras(self) -> Sequence[str]:
        """Names of its cameras, in order."""
        ...

    def count(self, camera: str) -> int:
        """How many frames it has of a camera."""
        ...

    def frames(self, camera: str, steps: range) -> NDArray[np.uint8]:
        """These frames (T, H, W, 3). Raises `DatasetError` for a film that is missing or damaged."""
        ...

    def depth(self, camera: str, step: int) -> NDArray[np.float32] | None:
        """Metres (H, W) of one frame; None where there is no depth."""
        ...

    def signals(self) -> Signals:
        """Everything but images."""
        ...


class SetEpisode:
    """Episode `index` of a source. Frames of films are reached by their key frames; other kinds of source give the episode whole, once."""

    def __init__(self, source: EpisodeSource, index: int) -> None:
        self._source, self._index = source, index
        described = describe(source)
        self._names = (described.state, described.action)
        self.cameras = tuple(described.cameras)
        self._part, self._number, self._first = _part_of(source, index)

    def count(self, camera: str) -> int:
        """As many as the episode has steps."""
        return self._source.rows[self._index].length

    def frames(self, camera: str, steps: range) -> NDArray[np.uint8]:
        """These frames (T, H, W, 3)."""
        if isinstance(self._part, DatasetReader | LeRobotSource):
            return self._part.images(self._number, camera, range(self._first + steps.start, self._first + steps.stop))
        if camera not in self._whole.images:
            raise DatasetError(f"episode {self._whole.episode_id} has no images of camera {camera!r}. Fix: name one of {self.cameras}")
        return self._whole.images[camera][steps.start : steps.stop]

    def depth(self, camera: str, step: int) -> NDArray[np.float32] | None:
        """Metres (H, W) of one frame; None where there is no depth."""
        return self._depth.depth_m[camera][step] if camera in self._depth.depth_m else None

    def signals(self) -> Signals:
        """State, label and executed action, where a person acted, and the traces that the set carries."""
        return signals_of(self._depth, self.cameras, self._names, self._traces())

    @cached_property
    def _whole(self) -> Episode:
        return self._source.episode(self._index, depth=False)

    @cached_property
    def _depth(self) -> Episode:
        return self._source.episode(self._index, images=False)

    def _traces(self) -> dict[str, NDArray[np.int16]]:
        reader = self._part
        if not isinstance(reader, DatasetReader) or COLUMN not in reader.features:
            return {}
        column, end = column_of(reader, self._number), self._first + self.count("")
        sizes = {camera: reader.picture_size(camera) for camera in self.cameras}
        found = {camera: read_traces(column, camera, size) for camera, size in sizes.items() if size is not None}
        return {camera: one.trace_T52[self._first : end] for camera, one in found.items() if one.is_known_T.any()}


class HeldEpisode:
    """An episode that is in memory, as a recording is after it was read."""

    def __init__(self, episode: Episode) -> None:
        self._episode = episode
        self.cameras = tuple(episode.images)

    def count(self, camera: str) -> int:
        """As many as the episode has steps."""
        return len(self._episode)

    def frames(self, camera: str, steps: range) -> NDArray[np.uint8]:
        """These frames (T, H, W, 3)."""
        return self._episode.images[camera][steps.start : steps.stop]

    def depth(self, camera: str, step: int) -> NDArray[np.float32] | None:
        """Metres (H, W) of one frame; None where there is no depth."""
        return self._episode.depth_m[camera][step] if camera in self._episode.depth_m else None

    def signals(self) -> Signals:
        """State, label and executed action, and where a person acted."""
        body = self._episode.body
        state = () if body is None else tuple(dim.name for dim in body.proprio.dims)
        action = () if body is None else tuple(dim.name for dim in body.action.dims)
        return signals_of(self._episode, self.cameras, (state, action), {})


def signals_of(
    episode: Episode, cameras: Sequence[str], names: tuple[tuple[str, ...], tuple[str, ...]], traces: dict[str, NDArray[np.int16]]
) -> Signals:
    """The signals of an episode. names: of the dimensions of state and action; () where nothing says them."""
    times_T = episode.timestamps_T
    vectors = {"state": (episode.proprio_TP, names[0]), "action": (episode.actions_TA, names[1])}
    if not np.array_equal(episode.executed_TA, episode.actions_TA):
        vectors["executed"] = (episode.executed_TA, names[1])
    acted = [] if episode.intervention_T is None else spans(episode.intervention_T)
    return Signals(
        frames=dict.fromkeys(cameras, times_T),
        series={
            name: Series(names=_named(said, values_TD.shape[1]), times_N=times_T, values_ND=values_TD)
            for name, (values_TD, said) in vectors.items()
            if values_TD.shape[1]
        },
        marks=[Mark(kind="person", start_s=float(times_T[a]), end_s=float(times_T[b - 1]), text="a person acted") for a, b in acted],
        traces=traces,
        depth=tuple(episode.depth_m),
    )


def _named(names: tuple[str, ...], width: int) -> tuple[str, ...]:
    return names if len(names) == width else tuple(str(place) for place in range(width))


def _part_of(source: EpisodeSource, index: int) -> tuple[EpisodeSource, int, int]:
    """The source under edits and lists of sources that gives the episode, its number there, and the first of its frames that is kept."""
    first = 0
    while isinstance(source, EditedSource | JoinedSource):
        if isinstance(source, EditedSource):
            piece = source.pieces[index]
            source, index, first = source.parents[piece.parent], piece.index, first + piece.first
        else:
            source, index = cast("JoinedSource", source).part(index)
    return source, index, first
