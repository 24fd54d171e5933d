"""Readings move as a robot does: none stands, leaves, jumps, wraps, or was rounded."""

from __future__ import annotations

import numpy as np

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.numbers.vectors import FEW_EPISODES, VECTORS, each_vector, over_episodes
from components.data.inspection.checks.verdict import DEFECT, RISK, SET, Fault, Verdict, check, of_episodes
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
    lengths = np.median([e.frames for e in m.episodes]) if m.episodes else 1.0
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
    scale = over_episodes(m, layout.STATE, lambda v: v.high_D - v.low_D, np.median)
    usual = over_episodes(m, layout.STATE, lambda v: v.max_step_D, np.median)

    def judge(e: EpisodeMeasurements) -> str | None:
        v = e.vectors.get(layout.STATE)
        if v is None or scale is None or usual is None or len(v) != len(scale):
            return None
        is_jagged = v.distinct_D > 3
        own = np.maximum(v.high_D - v.low_D, scale)
        far = is_jagged & (v.spike_D > 0.25 * own) & (v.spike_D > 6 * np.maximum(v.step_D, 1e-9)) & (v.spike_D > 3 * usual) & (own > 1e-9)
        far |= is_jagged & (v.spike_D > cfg.inspection.max_spike * own) & (own > 1e-9)
        bad = np.flatnonzero(far)
        return f"{m.dimension(layout.STATE, int(bad[0]))} leaves by {v.spike_D[bad[0]]:.4g} for one frame" if bad.size else ""

    return of_episodes(m, judge, "there is no state")


@check(
    "jumps",
    severity=RISK,
    reason="the reading goes on elsewhere: rows are missing, or a joint was calibrated again",
    fix="cut the episode at the jump",
    source="droid-dataset/droid#82",
)
def jumps(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """No reading goes on at another place from one frame to the next."""
    usual = over_episodes(m, layout.STATE, lambda v: v.max_step_D, np.median)
    scale = over_episodes(m, layout.STATE, lambda v: v.high_D - v.low_D, np.median)

    def judge(e: EpisodeMeasurements) -> str | None:
        v = e.vectors.get(layout.STATE)
        if v is None or usual is None or scale is None or len(v) != len(usual):
            return None
        smooth = (v.distinct_D > 8) & (v.step_D > 0) & (v.wraps_D == 0)
        far = smooth & (v.max_step_D > cfg.inspection.max_jump * scale) & (v.max_step_D > 10 * v.step_D) & (v.max_step_D > 4 * usual)
        bad = np.flatnonzero(far)
        return f"{m.dimension(layout.STATE, int(bad[0]))} jumps by {v.max_step_D[bad[0]]:.4g} within a frame" if bad.size else ""

    return of_episodes(m, judge, "there is no state") if len(m.episodes) >= 3 else Verdict(of=len(m.episodes), missing=FEW_EPISODES)


@check(
    "angle_wraps",
    severity=RISK,
    reason="an angle that jumps by a whole turn is a movement to every network",
    fix="unwrap the angle, or write its sine and cosine",
    source="huggingface/lerobot#3587",
)
def angle_wraps(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """No angle jumps by a whole turn."""
    return each_vector(m, lambda name, v: [(int(d), f"jumps by a whole turn {v.wraps_D[d]} times") for d in np.flatnonzero(v.wraps_D)])


@check(
    "float16_loss",
    severity=RISK,
    reason="numbers went through half precision, which leaves three digits",
    fix="export again in float32",
    source="deepspeedai/DeepSpeed#1062",
)
def float16_loss(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """Numbers that move smoothly are not all numbers of half precision."""

    def judge(name: str, v: VectorMeasurements) -> list[tuple[int, str]]:
        fine = (v.distinct_D > 12) & (v.gap_D < 1e-2 * np.maximum(v.max_D - v.min_D, 1e-9))
        whole = np.abs(v.gap_D - np.round(v.gap_D)) < 1e-9
        places = np.flatnonzero(fine & v.is_half_D & ~(whole & (v.gap_D >= 1)))
        return [(int(d), "holds numbers of half precision only") for d in places]

    return each_vector(m, judge, least=cfg.inspection.min_frames)


@check(
    "coarse",
    severity=RISK,
    reason="the numbers were rounded or cast to whole ones, and small movements are lost",
    fix="export again without rounding",
    source="huggingface/lerobot#552",
)
def coarse(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """A dimension that moves has more than a few steps within its range."""

    def judge(name: str, v: VectorMeasurements) -> list[tuple[int, str]]:
        few = (v.distinct_D > 3) & (v.gap_D > cfg.inspection.coarse * np.maximum(v.max_D - v.min_D, 1e-9))
        return [(int(d), f"has {v.distinct_D[d]} different values, {v.gap_D[d]:.3g} apart at least") for d in np.flatnonzero(few)]

    return each_vector(m, judge, least=cfg.inspection.min_frames)


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
        parts = [e.vectors[name] for e in m.episodes if name in e.vectors]
        if not parts or len({len(v) for v in parts}) > 1:
            continue
        keys = [np.stack([v.min_D, v.max_D, v.mean_D, v.std_D, v.step_D]) for v in parts]
        table = np.concatenate(keys)
        moves = np.array([v.std_D for v in parts]).max(axis=0) > 0
        looked += len(moves)
        for a in range(len(moves)):
            for b in range(a + 1, len(moves)):
                if moves[a] and np.array_equal(table[:, a], table[:, b]):
                    faults.append(Fault(where=SET, reason=f"{m.dimension(name, a)} and {m.dimension(name, b)} hold the same numbers"))
    return Verdict(
        faults=tuple(faults), looked_at=looked, of=looked, unit="dimensions", missing="" if looked else "there is neither state nor action"
    )
