"""Readings move as a robot does: none stands, leaves, jumps, wraps, or was rounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.numbers.vectors import (
    FEW_EPISODES,
    VECTORS,
    each_state,
    each_vector,
    no_state,
    over_episodes,
    tables,
)
from components.data.inspection.checks.verdict import DEFECT, RISK, SET, Fault, Verdict, check, of_episodes
from components.data.inspection.measurements.median import median
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.measurements.rows.numbers import VectorMeasurements
from components.data.lerobot import layout


@check(
    "stuck_dimension",
    severity=DEFECT,
    reason="a sensor or a cable failed: the reading stands while its command moves",
    fix="remove the episode, and look at the sensor",
    source="strands-labs/robots#798",
)
def stuck_dimension(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """No reading stands for half of an episode while it moves in the others and the action moves as much as there."""
    run = over_episodes(m, layout.STATE, lambda v: v.stuck_D.astype(np.float64))
    lengths = median([e.frames for e in m.episodes]) if m.episodes else 1.0
    action = over_episodes(m, layout.ACTION, lambda v: v.std_D)

    def judge(e: EpisodeMeasurements) -> str | None:
        v, a = e.vectors.get(layout.STATE), e.vectors.get(layout.ACTION)
        if v is None or run is None or len(v) != len(run):
            return None
        stuck = (v.stuck_D > 0.45 * e.frames) & (run < 0.2 * lengths)
        if a is not None and action is not None and len(a) == len(v):
            stuck &= a.std_D > 0.1 * action
        bad = np.flatnonzero(stuck)
        return f"{m.dimension(layout.STATE, int(bad[0]))} stands for {int(v.stuck_D[bad[0]])} of {e.frames} frames" if bad.size else ""

    return of_episodes(m, judge, "there is no state") if len(m.episodes) >= 3 else Verdict(of=len(m.episodes), missing=FEW_EPISODES)


@check(
    "spikes",
    severity=RISK,
    reason="a reading that leaves and comes back within a frame is an error of transmission",
    fix="repair the row, or remove the episode",
    source="robotology/mesh-support#1288",
)
def spikes(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """No single reading lies far from both of its neighbours."""
    scale = over_episodes(m, layout.STATE, lambda v: v.high_D - v.low_D)
    usual = over_episodes(m, layout.STATE, lambda v: v.max_step_D)
    if scale is None or usual is None:
        return no_state(m)

    def bad(_: str, v: VectorMeasurements) -> NDArray[np.bool_]:
        own = np.maximum(v.high_D - v.low_D, scale)
        far = (v.spike_D > 0.25 * own) & (v.spike_D > 6 * np.maximum(v.step_D, 1e-9)) & (v.spike_D > 3 * usual)
        return (v.distinct_D > 3) & (own > 1e-9) & (far | (v.spike_D > cfg.inspection.max_spike * own))

    return each_state(m, bad, lambda _, v, at: f"leaves by {v.spike_D[at]:.4g} for one frame")


@check(
    "jumps",
    severity=RISK,
    reason="the reading goes on elsewhere: rows are missing, or a joint was calibrated again",
    fix="cut the episode at the jump",
    source="droid-dataset/droid#82",
)
def jumps(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """No reading goes on at another place from one frame to the next."""
    usual = over_episodes(m, layout.STATE, lambda v: v.max_step_D)
    scale = over_episodes(m, layout.STATE, lambda v: v.high_D - v.low_D)
    if len(m.episodes) < 3:
        return Verdict(of=len(m.episodes), missing=FEW_EPISODES)
    if scale is None or usual is None:
        return no_state(m)

    def bad(_: str, v: VectorMeasurements) -> NDArray[np.bool_]:
        smooth = (v.distinct_D > 8) & (v.step_D > 0) & (v.wraps_D == 0)
        return smooth & (v.max_step_D > cfg.inspection.max_jump * scale) & (v.max_step_D > 10 * v.step_D) & (v.max_step_D > 4 * usual)

    return each_state(m, bad, lambda _, v, at: f"jumps by {v.max_step_D[at]:.4g} within a frame")


@check(
    "angle_wraps",
    severity=RISK,
    reason="an angle that jumps by a whole turn is a movement to every network",
    fix="unwrap the angle, or write its sine and cosine",
    source="huggingface/lerobot#3587",
)
def angle_wraps(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """No angle jumps by a whole turn."""
    return each_vector(m, lambda _, v: v.wraps_D != 0, lambda _, v, at: f"jumps by a whole turn {v.wraps_D[at]} times")


@check(
    "float16_loss",
    severity=RISK,
    reason="numbers went through half precision, which leaves three digits",
    fix="export again in float32",
    source="deepspeedai/DeepSpeed#1062",
)
def float16_loss(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """Numbers that move smoothly are not all numbers of half precision."""

    def bad(_: str, v: VectorMeasurements) -> NDArray[np.bool_]:
        fine = (v.distinct_D > 12) & (v.gap_D < 1e-2 * np.maximum(v.max_D - v.min_D, 1e-9))
        is_whole = (np.abs(v.gap_D - np.round(v.gap_D)) < 1e-9) & (v.gap_D >= 1)
        return fine & v.is_half_D & ~is_whole

    return each_vector(m, bad, lambda *_: "holds numbers of half precision only", least=cfg.inspection.min_frames)


@check(
    "coarse",
    severity=RISK,
    reason="the numbers were rounded or cast to whole ones, and small movements are lost",
    fix="export again without rounding",
    source="huggingface/lerobot#552",
)
def coarse(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """A dimension that moves has more than a few steps within its range."""

    def bad(_: str, v: VectorMeasurements) -> NDArray[np.bool_]:
        stands = v.at_limit_D > 0.5  # a gripper that is open or closed: what lies between is too little to tell
        return (v.distinct_D > 3) & ~stands & (v.gap_D > cfg.inspection.coarse * np.maximum(v.max_D - v.min_D, 1e-9))

    def say(_: str, v: VectorMeasurements, at: tuple[int, int]) -> str:
        return f"has {v.distinct_D[at]} different values, {v.gap_D[at]:.3g} apart at least"

    return each_vector(m, bad, say, least=cfg.inspection.min_frames)


@check(
    "dimension_copied",
    severity=RISK,
    reason="one joint was written in the place of another",
    fix="export again with every joint in its place",
    source="robotology/icub-hri#47",
)
def dimension_copied(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """No two dimensions of a vector are the same in every episode."""
    faults: list[Fault] = []
    looked = 0
    for name in VECTORS:
        found = tables(m, name)
        if len(found) != 1:
            continue
        v = found[0][1]
        table = np.concatenate([v.min_D, v.max_D, v.mean_D, v.std_D, v.step_D])
        moves = v.std_D.max(axis=0) > 0
        looked += len(moves)
        for a in range(len(moves)):
            for b in range(a + 1, len(moves)):
                if moves[a] and np.array_equal(table[:, a], table[:, b]):
                    faults.append(Fault(where=SET, reason=f"{m.dimension(name, a)} and {m.dimension(name, b)} hold the same numbers"))
    return Verdict(
        faults=tuple(faults), looked_at=looked, of=looked, unit="dimensions", missing="" if looked else "there is neither state nor action"
    )
