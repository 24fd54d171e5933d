"""The clock of the rows: steady, forward, without gaps, at the stated rate, and with new readings."""

from __future__ import annotations

import numpy as np

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.verdict import (
    DEFECT,
    RISK,
    UNKNOWN,
    Verdict,
    check,
    of_episodes,
)
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements

_EXPORT = "export the data set again from its recordings"


@check(
    "timestamps",
    severity=DEFECT,
    reason="a chunk of actions is rows that are one period apart, so a gap or a repeated time moves every later action",
    fix="cut the episode at the gap, or record it again",
    source="huggingface/lerobot#933",
)
def timestamps(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """Every frame has a time that comes one control period after the one before, within the tolerance."""
    period = 1.0 / m.fps if m.fps else 0.0
    allowed = cfg.max_timestamp_jitter_s + cfg.max_period_error * period

    def judge(e: EpisodeMeasurements) -> str | None:
        found = e.time.periods_s
        if not period or not len(found):
            return None
        bad = np.flatnonzero(~(np.abs(found - period) <= allowed))
        kind = "not a number" if bad.size and not np.isfinite(found[bad[0]]) else f"{found[bad[0]]:.4g} s" if bad.size else ""
        return f"{bad.size} steps are not {period:.4g} s long, first {kind} at frame {int(bad[0]) + 1}" if bad.size else ""

    return of_episodes(m, judge, "an episode of one frame, or a set without a rate, has no period")


@check(
    "time_backwards",
    severity=DEFECT,
    reason="times that repeat or run back come from two recorders in one file, or from rows in the wrong order",
    fix="sort and renumber the rows of the recording, then export again",
    source="huggingface/lerobot#1875",
)
def time_backwards(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Times only grow."""

    def judge(e: EpisodeMeasurements) -> str | None:
        back = np.flatnonzero(e.time.periods_s <= 0)
        return f"{back.size} times are not later than the one before, first at frame {int(back[0]) + 1}" if back.size else ""

    return of_episodes(m, judge, "")


@check(
    "time_gap",
    severity=DEFECT,
    reason="frames were lost while recording, so the movement across the gap is faster than the robot",
    fix="cut the episode at the gap",
    source="almond-bot/axol#256",
)
def time_gap(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """No step takes `gap_periods` periods or more."""
    limit = cfg.inspection.gap_periods / m.fps if m.fps else np.inf

    def judge(e: EpisodeMeasurements) -> str | None:
        if e.time.is_made_up or not len(e.time.periods_s):
            return None
        far = np.flatnonzero(e.time.periods_s >= limit)
        return f"{far.size} gaps, first {e.time.periods_s[far[0]]:.4g} s before frame {int(far[0]) + 1}" if far.size else ""

    return of_episodes(m, judge, "times are frame / fps and were not measured, so a gap cannot be seen")


@check(
    "time_jitter",
    severity=RISK,
    reason="an unsteady recorder gives actions that are not one period long",
    fix="record on a machine that keeps its rate, or resample to one rate",
    source="huggingface/lerobot#4423",
)
def time_jitter(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """Periods differ by less than a share of a period."""

    def judge(e: EpisodeMeasurements) -> str | None:
        if e.time.is_made_up or len(e.time.periods_s) < 3 or not m.fps:
            return None
        spread = float(np.std(e.time.periods_s)) * m.fps
        return f"periods have a deviation of {spread:.1%} of a period" if spread > cfg.inspection.max_jitter else ""

    return of_episodes(m, judge, "times are frame / fps and were not measured")


@check(
    "clock_rate",
    severity=DEFECT,
    reason="a loop that runs 2 % too slow makes every movement 2 % too fast when it is executed",
    fix="state the rate that was recorded, or resample",
    source="almond-bot/axol#138",
)
def clock_rate(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """The whole episode lasts as long as its steps take."""

    def judge(e: EpisodeMeasurements) -> str | None:
        steps = e.frames - 1
        if steps < 1 or not m.fps or not np.isfinite(e.time.periods_s).all():
            return None
        expected, allowed = steps / m.fps, cfg.max_timestamp_jitter_s + cfg.max_period_error / m.fps
        if not (np.abs(e.time.periods_s - 1 / m.fps) <= allowed).all():
            return None  # named by the rule of single times
        error = max(abs(e.time.lasts_s - expected) - allowed, 0.0) / expected
        return f"it lasts {e.time.lasts_s:.4g} s, expected {expected:.4g} s at {m.fps:g} Hz" if error > cfg.max_rate_error else ""

    return of_episodes(m, judge, "single times are wrong already, or there is one frame")


@check(
    "stamp_drift",
    severity=DEFECT,
    reason="readers find the picture of a row by its timestamp, so a stamp beside its frame shows another picture",
    fix=_EXPORT,
    source="huggingface/lerobot#3513",
)
def stamp_drift(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """The column timestamp is frame_index / fps within half a frame."""

    def judge(e: EpisodeMeasurements) -> str:
        return f"a stamp is {e.time.stamp_error:.2f} frames beside frame / fps" if not e.time.stamp_error <= 0.5 else ""

    return of_episodes(m, judge, "")


@check(
    "times_measured",
    severity=UNKNOWN,
    reason="times that were made from the frame number hide every gap and every drift of the recorder",
    fix="keep the recorder's clock in a column of its own (`recorded.timestamp`)",
    source="huggingface/lerobot#2786",
)
def times_measured(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """The times were measured by the recorder."""
    made_up = sum(e.time.is_made_up for e in m.episodes)
    missing = f"the times of {made_up} episodes are frame / fps to the last digit" if made_up else ""
    return Verdict(looked_at=len(m.episodes) - made_up, of=len(m.episodes), missing=missing)


@check(
    "state_repeats",
    severity=RISK,
    reason="the robot's readings come slower than the rows, so most rows pair a new action with an old state",
    fix="record at the rate of the slowest sensor, or resample",
    source="strands-labs/robots#798",
)
def state_repeats(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """The state is read again for every row."""

    def judge(e: EpisodeMeasurements) -> str | None:
        if not any(v.distinct_D.max() > 2 for name, v in e.vectors.items() if name == "observation.state" and len(v)):
            return None
        share, run = e.time.state_repeats, e.time.stuck_run
        if share > cfg.inspection.max_repeats or run > cfg.inspection.stuck_frames:
            return f"the state stands still in {share:.0%} of the steps in which the action changes, {run} in a row"
        return ""

    return of_episodes(m, judge, "there is no state that changes")


@check(
    "rows_repeat",
    severity=RISK,
    reason="rows that repeat were written to keep a rate that the recorder did not reach",
    fix="remove repeated rows, and state the rate that was reached",
    source="huggingface/lerobot#4099",
)
def rows_repeat(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """Rows do not repeat between movements."""

    def judge(e: EpisodeMeasurements) -> str | None:
        inner = e.frames - 1 - e.meaning.still_head - e.meaning.still_tail
        if inner < 8:
            return None
        repeats = e.time.row_repeats * (e.frames - 1) - e.meaning.still_head - e.meaning.still_tail
        share = max(repeats, 0.0) / inner
        return f"{share:.0%} of the steps between movements repeat the row before" if share > cfg.inspection.max_repeats else ""

    return of_episodes(m, judge, "there is too little movement")
