"""Measurements of time: the clock of the rows, and how the state follows the action."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.measurements.rows.block import RowBlock
from components.data.inspection.measurements.rows.coupling import Coupling, couple
from components.data.inspection.motion import finite
from components.data.lerobot import layout


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeMeasurements:
    """The clock of one episode. periods_s: from each row to the next. stamp_error: the largest distance of a stamp from frame / fps.

    is_made_up: every time is frame / fps to the last digit of float32, so no jitter can be seen. position, change: how the change of
    the state follows the change of the action that was executed, and that action itself. state_repeats: share of steps in which no
    number of the state changes though that action does. row_repeats: share of steps in which neither changes.
    """

    periods_s: NDArray[np.float64]
    lasts_s: float
    stamp_error: float
    is_made_up: bool
    position: Coupling
    change: Coupling
    state_repeats: float
    row_repeats: float
    stuck_run: int


def measure_time(block: RowBlock) -> list[TimeMeasurements]:
    """Measure the clock and how the state follows what was sent: a demonstrator who is pushed labels another action."""
    times_N, stamp_error_E, made_up_E = _clock(block)
    state = finite(block.column(layout.STATE))
    action = finite(block.column(layout.EXECUTED if layout.EXECUTED in block.episodes[0].vectors else layout.ACTION))
    ahead_state, ahead_action = block.ahead(state), block.ahead(action)
    moves_N, acts_N = (ahead_state != 0).any(axis=0), (ahead_action != 0).any(axis=0)
    still_N = ~moves_N & ~acts_N
    still_N[block.ends_E] = False  # the last row has no step
    repeats_N = ~moves_N & acts_N
    repeats_E, acts_E, still_E = (block.count(flags_N) for flags_N in (repeats_N, acts_N, still_N))
    stuck_E = block.longest_runs(repeats_N) if len(state) else np.zeros(len(block), np.int64)
    position, change = couple(block, (ahead_action, action), ahead_state)
    lasts_E = times_N[block.ends_E] - times_N[block.starts_E]
    return [
        TimeMeasurements(
            periods_s=times_N[part][1:] - times_N[part][:-1],
            lasts_s=float(lasts_E[e]),
            stamp_error=float(stamp_error_E[e]),
            is_made_up=bool(made_up_E[e]),
            position=position[e],
            change=change[e],
            state_repeats=int(repeats_E[e]) / max(int(acts_E[e]), 1),
            row_repeats=int(still_E[e]) / max(int(block.lengths_E[e]) - 1, 1),
            stuck_run=int(stuck_E[e]),
        )
        for e, part in enumerate(block.parts())
    ]


def _clock(block: RowBlock) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Times of all rows; of each episode, by how many periods a stamp is beside its place, and whether every time is made up."""
    times_N = np.concatenate([episode.times_T for episode in block.episodes])
    stamps_N = np.concatenate([episode.stamps_T for episode in block.episodes])
    fps_E = np.array([episode.fps or 1.0 for episode in block.episodes])
    expected_N = block.place_N / block.spread(fps_E)
    beside_N = np.abs(stamps_N - block.spread(stamps_N[block.starts_E]) - expected_N)
    is_ours_E = block.each(np.logical_or, times_N != stamps_N)
    is_near_N = beside_N <= 1e-6 + 4 * np.finfo(np.float32).eps * np.maximum(expected_N, 1.0)
    return times_N, block.each(np.maximum, beside_N) * fps_E, ~is_ours_E & block.each(np.logical_and, is_near_N)
