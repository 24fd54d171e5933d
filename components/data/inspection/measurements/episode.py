"""Measure episodes: the rows of many at once, and every picture of every camera of one once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.measurements.pixels import CameraMeasurements, measure_pictures
from components.data.inspection.measurements.raw_episode import RawEpisode
from components.data.inspection.measurements.record import EpisodeMeasurements
from components.data.inspection.measurements.rows.block import blocks
from components.data.inspection.measurements.rows.coupling import Coupling
from components.data.inspection.measurements.rows.meaning import measure_meaning
from components.data.inspection.measurements.rows.numbers import measure_numbers
from components.data.inspection.measurements.rows.time import measure_time
from components.data.inspection.measurements.views import follow_pictures, longest_run, speed_TD
from components.data.inspection.motion import PLAINLY_MOVED, commanded_rows_T, moved_rows_T
from components.data.lerobot import layout


def measure_rows(episodes: Sequence[RawEpisode]) -> Iterator[EpisodeMeasurements]:
    """Measure the rows of every episode, in their order; of no camera anything is said. Raises `ValueError` for one without a row."""
    for block in blocks(episodes):
        with np.errstate(over="ignore", invalid="ignore"):  # a rule names every number that is not finite
            measured = measure_time(block), measure_numbers(block), measure_meaning(block)
        for raw, time, vectors, meaning in zip(block.episodes, *measured, strict=True):
            yield EpisodeMeasurements(
                key="",
                episode_id=raw.episode_id,
                number=raw.number,
                frames=len(raw),
                time=time,
                vectors=vectors,
                meaning=meaning,
            )


def measure_episode(episode: RawEpisode, pictures: Mapping[str, Iterable[Any]], key: str = "") -> EpisodeMeasurements:
    """Measure everything of one episode of at least one row. pictures: camera -> its `av.VideoFrame`s, which are taken once."""
    cameras = {name: measure_pictures(frames, len(episode)) for name, frames in pictures.items()}
    speed = speed_TD(episode)
    return replace(
        next(measure_rows([episode])),
        key=key,
        cameras=cameras,
        views={name: _view(camera, speed) for name, camera in cameras.items()},
        frozen={name: _frozen(camera, episode) for name, camera in cameras.items()},
    )


def _view(camera: CameraMeasurements, speed: NDArray[np.float64]) -> Coupling:
    """How the change of the pictures follows the movement; a lag above 0 means that they show it later."""
    return follow_pictures(speed, camera.change_T[1:])


def _frozen(camera: CameraMeasurements, episode: RawEpisode) -> int:
    """The longest run of pictures that equal the one before, counted only while the arm is commanded to move or plainly moves."""
    body = episode.embodiment
    executed = episode.vectors.get(layout.EXECUTED, episode.action_TA)
    moving_T = commanded_rows_T(executed, body)
    if body is not None:
        moving_T = moving_T | moved_rows_T(episode.state_TP, body, PLAINLY_MOVED)
    length = min(len(camera), len(moving_T))
    return longest_run(camera.is_same_T[1:length] & moving_T[: length - 1]) if length > 1 else 0
