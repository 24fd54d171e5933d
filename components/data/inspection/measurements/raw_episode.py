"""The rows of one episode as plain arrays, from a folder or from an `Episode`: what measurements are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.folder.content import FolderView
from components.data.inspection.folder.entries import EpisodeEntry
from components.data.lerobot import layout
from components.data.lerobot.success import SUCCESS_COLUMNS
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import Episode

_OWN = ("frame_index", "episode_index", "index", "task_index", "timestamp", layout.RECORDED)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawEpisode:
    """One episode without pictures. vectors: column -> (T, D) float64. times_T: seconds, as recorded where that is known.

    stamps_T: the column timestamp. tasks: the different task_index of its frames, in order; empty where none. flags: place -> what
    is said of success or end there. session: what was recorded together with it, "" where nothing says it.
    """

    episode_id: str
    number: int
    fps: float
    times_T: NDArray[np.float64]
    stamps_T: NDArray[np.float64]
    vectors: Mapping[str, NDArray[np.float64]]
    instruction: str = ""
    listed_tasks: tuple[str, ...] = ()
    tasks: tuple[int, ...] = ()
    flags: Mapping[str, NDArray[np.float64]] = field(default_factory=dict[str, NDArray[np.float64]])
    session: str = ""
    embodiment: EmbodimentSpec | None = None

    def __len__(self) -> int:
        return len(self.times_T)

    @property
    def state_TP(self) -> NDArray[np.float64]:
        """The robot's readings; (T, 0) where there are none."""
        return self.vectors.get(layout.STATE, np.zeros((len(self), 0)))

    @property
    def action_TA(self) -> NDArray[np.float64]:
        """The labelled actions; (T, 0) where there are none."""
        return self.vectors.get(layout.ACTION, np.zeros((len(self), 0)))


def of_folder(view: FolderView, entry: EpisodeEntry) -> RawEpisode:
    """Episode `entry` of a folder, from the rows that say they are its."""
    rows = view.rows_of.get(entry.number, np.zeros(0, np.int64))
    whose = slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) and rows[-1] - rows[0] == len(rows) - 1 else rows  # nothing is copied
    columns = {name: values[whose] for name, values in view.table.columns.items()}
    stamps_T = columns.get("timestamp", np.arange(len(rows)) / (view.fps or 1.0)).astype(np.float64).reshape(len(rows), -1)[:, 0]
    times_T = columns[layout.RECORDED].astype(np.float64).ravel() if layout.RECORDED in columns else stamps_T
    found = columns.get("task_index", np.zeros(0)).ravel()
    tasks = tuple(int(task) for task in dict.fromkeys(found.tolist()) if task == task)
    ours = view.ours.get(entry.number, {})
    listed = entry.tasks or tuple(view.sentences[task] for task in tasks[:1] if task in view.sentences)
    stated = {f"meta/episodes {name}": entry.extra.get(name) for name in SUCCESS_COLUMNS} | {layout.EXTENSION_EPISODES: ours.get("success")}
    flags = {place: _flags(value) for place, value in stated.items() if value is not None}
    flags |= {f"frames {name}": _flags(columns[name]) for name in (*SUCCESS_COLUMNS, "next.done") if name in columns}
    return RawEpisode(
        episode_id=view.episode_id(entry.number),
        number=entry.number,
        fps=view.fps,
        times_T=times_T,
        stamps_T=stamps_T,
        vectors={name: _table(values) for name, values in columns.items() if _is_vector(name, values)},
        instruction=view.sentences.get(tasks[0], "") if tasks else (listed[0] if listed else ""),
        listed_tasks=entry.tasks,
        tasks=tasks,
        flags=flags,
        session=_session(entry, ours),
        embodiment=view.embodiment,
    )


def of_episode(episode: Episode, number: int, fps: float, embodiment: EmbodimentSpec | None) -> RawEpisode:
    """An episode that is in memory already; of its flags only the outcome is known."""
    vectors = {layout.STATE: episode.proprio_TP, layout.ACTION: episode.actions_TA, layout.EXECUTED: episode.executed_TA}
    if episode.tcp_T3 is not None:
        vectors[layout.TCP] = episode.tcp_T3
    outcome = {} if episode.success is None else {"outcome": np.array([float(episode.success)])}
    return RawEpisode(
        episode_id=episode.episode_id,
        number=number,
        fps=fps,
        times_T=np.asarray(episode.timestamps_T, np.float64),
        stamps_T=np.asarray(episode.timestamps_T, np.float64),
        vectors={name: _table(values) for name, values in vectors.items()},
        instruction=episode.instruction,
        listed_tasks=(episode.instruction,),
        flags=outcome,
        embodiment=embodiment,
    )


def _is_vector(name: str, values: NDArray[Any]) -> bool:
    return name not in _OWN and (values.ndim == 2 or name in (layout.STATE, layout.ACTION)) and values.shape[-1] > 0


def _table(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(len(values), -1)


def _flags(value: Any) -> NDArray[np.float64]:
    """Flags as numbers; what is no flag is no number."""
    try:
        return np.asarray(value, np.float64).ravel()
    except (TypeError, ValueError):
        return np.full(1, np.nan)


def _session(entry: EpisodeEntry, ours: Mapping[str, Any]) -> str:
    """The first field that names a recording session, of the ones that writers use."""
    for name in ("session", "session_id", "recording_id", "recording", "scene_id"):
        if (value := entry.extra.get(name)) is not None:
            return f"{name} {value}"
    return ""
