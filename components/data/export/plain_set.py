"""What of our episodes a plain LeRobot set holds: its columns and features, and what is left out because no public reader knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.editing.description import SetDescription, describe
from components.data.export.comparison import Held
from components.data.lerobot import layout
from components.data.lerobot.columns import interventions
from components.data.lerobot.video import VideoCodec
from components.data.sources.interface import EpisodeSource
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError

SUCCESS = "next.success"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainSpec:
    """fps: whole. cameras: name -> (height, width). has_success: whether every episode says if it solved its task.

    has_intervention: whether every episode says in which frames a person acted.
    """

    robot: str
    fps: int
    cameras: Mapping[str, tuple[int, int]]
    state: tuple[str, ...] | None
    action: tuple[str, ...] | None
    has_success: bool
    has_intervention: bool

    @property
    def held(self) -> Held:
        """What of an episode is compared when the set is read back."""
        return Held(rate_hz=self.fps, has_success=self.has_success, has_intervention=self.has_intervention, has_tool_centre=False)


def plain_spec(source: EpisodeSource) -> PlainSpec:
    """The spec of a source. Raises `DatasetError` for a rate that LeRobot cannot write, and for a source without episodes."""
    described: SetDescription = describe(source)
    fps = round(described.control_hz)
    if abs(fps - described.control_hz) > 1e-9:
        raise DatasetError(
            f"LeRobot sets have a whole number of frames a second, {source.name} has {described.control_hz:g}. "
            "Fix: read it as a source with rate_hz of a whole number, which resamples it and says so"
        )
    if not source.rows:
        raise DatasetError(f"{source.name} has no episodes, so there is nothing to export")
    first = source.episode(0, depth=False)
    return PlainSpec(
        robot=described.robot,
        fps=fps,
        cameras={name: (frames.shape[1], frames.shape[2]) for name, frames in first.images.items()},
        state=_stated(described.state),
        action=_stated(described.action),
        has_success=all(row.success is not None for row in source.rows),
        has_intervention=first.intervention_T is not None
        and all(source.episode(row.index, images=False, depth=False).intervention_T is not None for row in source.rows),
    )


def _stated(names: tuple[str, ...]) -> tuple[str, ...] | None:
    return None if names == tuple(str(place) for place in range(len(names))) else names


def columns_of(episode: Episode, spec: PlainSpec, place: tuple[int, int, int]) -> dict[str, NDArray[Any]]:
    """The rows of one episode. place: its number, its first row, its task index. Raises `DatasetError` for other cameras."""
    got = {name: (frames.shape[1], frames.shape[2]) for name, frames in episode.images.items()}
    if got != dict(spec.cameras):
        raise DatasetError(
            f"episode {episode.episode_id} has cameras {got}, the first one has {dict(spec.cameras)}; a set has the same in every "
            "episode. Fix: leave it out with `actwright data select`"
        )
    number, start, task = place
    steps = np.arange(len(episode), dtype=np.int64)
    columns: dict[str, NDArray[Any]] = {
        layout.STATE: episode.proprio_TP.astype(np.float32),
        layout.ACTION: episode.actions_TA.astype(np.float32),
    }
    columns = {name: values for name, values in columns.items() if values.shape[1]}
    if spec.has_success:
        columns[SUCCESS] = (steps == len(steps) - 1) & bool(episode.success)
    if spec.has_intervention and episode.intervention_T is not None:
        columns[interventions.NAME] = episode.intervention_T
    return columns | {
        "timestamp": (steps / spec.fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(len(steps), number, np.int64),
        "index": steps + start,
        "task_index": np.full(len(steps), task, np.int64),
    }


def features_of(columns: Mapping[str, NDArray[Any]], spec: PlainSpec, codec: VideoCodec) -> dict[str, Any]:
    """The features of info.json."""
    names = {layout.STATE: spec.state, layout.ACTION: spec.action}
    features: dict[str, Any] = {}
    for key, values in columns.items():
        stated = names.get(key)
        features[key] = {
            "dtype": str(values.dtype),
            "shape": list(values.shape[1:]) or [1],
            "names": list(stated) if stated is not None else None,
        }
    for camera, (height, width) in spec.cameras.items():
        video = {"height": height, "width": width, "codec": codec.codec_name, "pix_fmt": codec.stored_pix_fmt}
        video |= {"is_depth_map": False, "fps": spec.fps, "channels": 3}
        features[f"{layout.IMAGE_PREFIX}{camera}"] = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {f"video.{k}": v for k, v in video.items()} | {"has_audio": False},
        }
    return features


def left_out_of(episode: Episode, spec: PlainSpec) -> dict[str, bool]:
    """What of an episode a plain set does not hold, each with whether it is there."""
    return {
        f"depth of {', '.join(sorted(episode.depth_m))}": bool(episode.depth_m),
        "executed actions that differ from the labels": not np.array_equal(episode.executed_TA, episode.actions_TA),
        "the gripper's path in the world": episode.tcp_T3 is not None,
        "camera geometry": bool(episode.geometry),
        "whether it solved its task": episode.success is not None and not spec.has_success,
        "where a person acted, which other episodes do not say": episode.intervention_T is not None and not spec.has_intervention,
        "a name of its task besides the instruction": episode.task != episode.instruction,
    }
