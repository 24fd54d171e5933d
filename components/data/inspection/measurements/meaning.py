"""Measurements of what an episode says and does: its task, its outcome, where it stands still, and what it equals."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.measurements.raw_episode import RawEpisode
from components.data.inspection.motion import MOVED, commanded_rows_T, finite, moved_rows_T
from components.data.lerobot import layout

POINTS = 16  # of a path, evenly spaced over its steps
STILL = 0.002  # a change of less than this share of the episode's own range is none


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeaningMeasurements:
    """instruction: of its frames; listed: what meta/ says. tasks: the different task_index. outcomes: place -> 1 solved, 0 not, -1 unknown.

    ends: places (frames) of a flag next.done. idle: share of steps in which nothing is commanded and nothing moves. still_head, still_tail:
    frames without movement at the start and the end. state_digest, action_digest: of the numbers. path_16D: the state along the episode,
    move_D: from its first row to its last. length_of_path, roughness: of steps and of changes of steps, for ranking only.
    """

    instruction: str
    listed: tuple[str, ...]
    tasks: tuple[int, ...]
    outcomes: Mapping[str, int]
    ends: tuple[int, ...]
    idle: float
    still_head: int
    still_tail: int
    state_digest: str
    action_digest: str
    path_16D: NDArray[np.float64]
    move_D: NDArray[np.float64]
    length_of_path: float
    roughness: float
    session: str


def measure_meaning(episode: RawEpisode) -> MeaningMeasurements:
    """Measure what an episode says and does."""
    state_TP = finite(episode.state_TP if episode.state_TP.shape[1] else episode.action_TA)
    moving_T = _moving_T(episode)
    where = np.flatnonzero(moving_T)
    span_D = np.maximum(np.ptp(state_TP, axis=0), 1e-9) if state_TP.size else np.ones(state_TP.shape[1])
    ahead = np.diff(state_TP, axis=0) / span_D
    places = np.linspace(0, len(state_TP) - 1, POINTS).round().astype(int) if len(state_TP) else np.zeros(0, int)
    done = episode.flags.get("frames next.done", np.zeros(0))
    return MeaningMeasurements(
        instruction=episode.instruction,
        listed=episode.listed_tasks,
        tasks=episode.tasks,
        outcomes={place: _outcome(flags) for place, flags in episode.flags.items() if place != "frames next.done"},
        ends=tuple(int(step) for step in np.flatnonzero(done > 0.5)),
        idle=_idle(episode),
        still_head=int(where[0]) if where.size else len(episode),
        still_tail=len(moving_T) - 1 - int(where[-1]) if where.size else len(episode),
        state_digest=_digest(episode.state_TP),
        action_digest=_digest(episode.action_TA),
        path_16D=state_TP[places],
        move_D=state_TP[-1] - state_TP[0] if len(state_TP) else np.zeros(state_TP.shape[1]),
        length_of_path=float(np.abs(ahead).sum() / max(ahead.shape[1], 1)) if ahead.size else 0.0,
        roughness=float(np.abs(np.diff(ahead, axis=0)).mean()) if len(ahead) > 1 else 0.0,
        session=episode.session,
    )


def _moving_T(episode: RawEpisode) -> NDArray[np.bool_]:
    """Per step, whether state or action changes by more than a little of its range over this episode."""
    moving = np.zeros(max(len(episode) - 1, 0), np.bool_)
    for values in (episode.state_TP, episode.action_TA):
        if values.shape[1] and len(values) > 1:
            known = finite(values)
            span = known.max(axis=0) - known.min(axis=0)
            moving |= np.any(np.abs(known[1:] - known[:-1]) > STILL * np.maximum(span, 1e-9), axis=1)
    return moving


def _idle(episode: RawEpisode) -> float:
    """By the rule of the gate, which knows what is commanded where the embodiment is described."""
    if not len(episode):
        return 0.0
    executed = episode.vectors.get(layout.EXECUTED, episode.action_TA)
    body = episode.embodiment
    return float((~commanded_rows_T(executed, body) & ~moved_rows_T(episode.state_TP, body, MOVED)).mean())


def _outcome(flags: NDArray[np.float64]) -> int:
    known = flags[np.isfinite(flags)]
    if not known.size or not np.isin(known, (0.0, 1.0)).all():
        return -1
    return int(known.any())


def _digest(values_TD: NDArray[np.float64]) -> str:
    return hashlib.sha256(f"{values_TD.shape}".encode() + np.ascontiguousarray(values_TD, np.float32).tobytes()).hexdigest()[:32]
