"""Measurements of what an episode says and does: its task, its outcome, where it stands still, and what it equals."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.measurements.rows.block import RowBlock
from components.data.inspection.motion import MOVED, commanded_rows_T, finite, moved_rows_T
from components.data.lerobot import layout

POINTS = 16  # of a path, evenly spaced over its steps
STEP, MOST = 8, 64  # every which row of an episode is kept, counted from either end, and how many of them at most
STILL = 0.002  # a change of less than this share of the episode's own range is none


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeaningMeasurements:
    """instruction: of its frames; listed: what meta/ says. tasks: the different task_index. outcomes: place -> 1 solved, 0 not, -1 unknown.

    ends: places (frames) of a flag next.done. idle: share of steps in which nothing is commanded and nothing moves. still_head, still_tail:
    frames without movement at the start and the end. state_digest, action_digest: of the numbers. path_16D: the state along the episode,
    head_SD, tail_SD: the same every `STEP` rows, counted from the first row and from the last one, in the order of time.
    move_D: from the first row to the last. length_of_path, roughness: of steps and of changes of steps, for ranking only.
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
    head_SD: NDArray[np.float64]
    tail_SD: NDArray[np.float64]
    move_D: NDArray[np.float64]
    length_of_path: float
    roughness: float
    session: str


def measure_meaning(block: RowBlock) -> list[MeaningMeasurements]:
    """Measure what episodes say and do."""
    state, action = block.column(layout.STATE), block.column(layout.ACTION)
    path_DN = finite(state if len(state) else action)
    idle_E, (head_E, tail_E) = _idle(block, state, action), _still_ends(block, _moving_N(block, (state, action)))
    path_E16D, (length_E, rough_E) = _path(block, path_DN), _skill(block, path_DN)
    ends = _ends(block, path_DN)
    moves_ED = (path_DN[:, block.ends_E] - path_DN[:, block.starts_E]).T
    found: list[MeaningMeasurements] = []
    for e, episode in enumerate(block.episodes):
        done = episode.flags.get("frames next.done")
        found.append(
            MeaningMeasurements(
                instruction=episode.instruction,
                listed=episode.listed_tasks,
                tasks=episode.tasks,
                outcomes={place: _outcome(flags) for place, flags in episode.flags.items() if place != "frames next.done"},
                ends=() if done is None else tuple(int(step) for step in np.flatnonzero(done > 0.5)),
                idle=float(idle_E[e]),
                still_head=int(head_E[e]),
                still_tail=int(tail_E[e]),
                state_digest=_digest(episode.state_TP),
                action_digest=_digest(episode.action_TA),
                path_16D=path_E16D[e],
                head_SD=ends[e][0],
                tail_SD=ends[e][1],
                move_D=moves_ED[e],
                length_of_path=float(length_E[e]),
                roughness=float(rough_E[e]),
                session=episode.session,
            )
        )
    return found


def _moving_N(block: RowBlock, columns: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Per row, whether state or action changes until the next one by more than a little of its range over this episode."""
    moving_N = np.zeros(block.rows, np.bool_)
    for values_DN in (finite(column) for column in columns if len(column)):
        span_DE = block.each(np.maximum, values_DN) - block.each(np.minimum, values_DN)
        moving_N |= np.any(np.abs(block.ahead(values_DN)) > block.spread(STILL * np.maximum(span_DE, 1e-9)), axis=0)
    return moving_N


def _still_ends(block: RowBlock, moving_N: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Frames without movement at the start and the end of each episode: all of them where nothing moves."""
    first_E = block.each(np.minimum, np.where(moving_N, block.place_N, block.spread(block.lengths_E)))
    last_E = block.each(np.maximum, np.where(moving_N, block.place_N, -1))
    return first_E, np.where(last_E < 0, block.lengths_E, block.lengths_E - 2 - last_E)


def _path(block: RowBlock, path_DN: NDArray[np.float64]) -> NDArray[np.float64]:
    """The path at `POINTS` places of each episode: (E, POINTS, D)."""
    last_E = block.lengths_E - 1
    place_E16 = np.arange(POINTS) * (last_E / (POINTS - 1))[:, None]
    place_E16[:, -1] = last_E
    rows_E16 = block.starts_E[:, None] + place_E16.round().astype(np.int64)
    return np.ascontiguousarray(path_DN[:, rows_E16].transpose(1, 2, 0))


def _ends(block: RowBlock, path_DN: NDArray[np.float64]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The path every `STEP` rows from the first row on, and up to the last one, of each episode."""
    reach_E = STEP * np.minimum((block.lengths_E - 1) // STEP, MOST - 1)
    both = (block.starts_E, block.starts_E + reach_E + 1), (block.ends_E - reach_E, block.ends_E + 1)
    parts = (zip(first.tolist(), behind.tolist(), strict=True) for first, behind in both)
    head, tail = ([np.ascontiguousarray(path_DN[:, first:behind:STEP].T) for first, behind in part] for part in parts)
    return list(zip(head, tail, strict=True))


def _skill(block: RowBlock, path_DN: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each episode the length of its path, and the mean change from one step to the next, in ranges of its dimensions."""
    if not len(path_DN):
        return np.zeros(len(block)), np.zeros(len(block))
    span_DE = np.maximum(block.each(np.maximum, path_DN) - block.each(np.minimum, path_DN), 1e-9)
    steps_DN = block.ahead(path_DN) / block.spread(span_DE)
    turns_DN = block.ahead(steps_DN)
    turns_DN[:, block.ends_E[block.lengths_E > 1] - 1] = 0.0  # the last step has no next one
    length_E, turns_E = (block.each(np.add, np.abs(values)).sum(axis=0) for values in (steps_DN, turns_DN))
    return length_E / len(path_DN), turns_E / (np.maximum(block.lengths_E - 2, 1) * len(path_DN))


def _idle(block: RowBlock, state_PN: NDArray[np.float64], action_AN: NDArray[np.float64]) -> NDArray[np.float64]:
    """By the rule of the gate, which knows what is commanded where the embodiment is described."""
    executed_AN = block.column(layout.EXECUTED) if layout.EXECUTED in block.episodes[0].vectors else action_AN
    body = block.episodes[0].embodiment
    commanded_N = commanded_rows_T(executed_AN.T, body, block.starts_E)
    moved_N = moved_rows_T(state_PN.T, body, MOVED, block.starts_E)
    return block.count(~commanded_N & ~moved_N) / block.lengths_E


def _outcome(flags: NDArray[np.float64]) -> int:
    known = flags[np.isfinite(flags)]
    if not known.size or not np.isin(known, (0.0, 1.0)).all():
        return -1
    return int(known.any())


def _digest(values_TD: NDArray[np.float64]) -> str:
    return hashlib.sha256(f"{values_TD.shape}".encode() + np.ascontiguousarray(values_TD, np.float32).tobytes()).hexdigest()[:32]
