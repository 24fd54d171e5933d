"""The distance of action and state, where the action is a position."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.verdict import RISK, SET, Fault, Verdict, check
from components.data.inspection.measurements.median import median
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.lerobot import layout


@check(
    "leader_offset",
    severity=RISK,
    reason="follower and leader were calibrated apart, so every command misses by the same angle",
    fix="calibrate both arms, or subtract the offset",
    source="huggingface/lerobot#3762",
)
def leader_offset(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """Where the action is a position, it is where the state is, on average."""
    return _offsets(m, cfg, is_set=True)


@check(
    "offset_changes",
    severity=RISK,
    reason="a joint was calibrated again within the set, so equal numbers mean other positions",
    fix="correct the joint in these episodes, or leave them out",
    source="NVIDIA/Isaac-GR00T#156",
)
def offset_changes(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """The distance of action and state is the same in every episode."""
    return _offsets(m, cfg, is_set=False)


def _offsets(m: SetMeasurements, cfg: ValidateConfig, *, is_set: bool) -> Verdict:
    missing = "the action is no position of the same joints, or the state does not follow it closely enough"
    known = _positions(m)
    if len(known) < 3:
        return Verdict(of=len(m.episodes), missing=missing)
    offsets = np.stack([e.vectors[layout.ACTION].mean_D - e.vectors[layout.STATE].mean_D for e in known])
    low = np.min([e.vectors[layout.STATE].low_D for e in known], axis=0)
    high = np.max([e.vectors[layout.STATE].high_D for e in known], axis=0)
    share = offsets / np.maximum(high - low, 1e-9)
    usual = median(share, axis=0)
    faults: list[Fault] = []
    if is_set:
        steady = np.abs(share - usual).max(axis=0) < np.maximum(np.abs(usual), 1e-9)
        places = np.flatnonzero((np.abs(usual) > cfg.inspection.max_offset) & steady)
        faults = [
            Fault(where=SET, reason=f"{m.dimension(layout.ACTION, int(d))} lies {usual[d]:.1%} of the range beside the state")
            for d in places
        ]
    else:
        noise = median(np.abs(share - usual), axis=0)
        for e, mine in zip(known, share, strict=True):
            far = np.abs(mine - usual)
            bad = np.flatnonzero((far > cfg.inspection.offset_from_set) & (far > 6 * noise))
            if bad.size:
                d = int(bad[0])
                reason = f"{m.dimension(layout.ACTION, d)} less the state is {mine[d]:.1%} of the range, in most episodes {usual[d]:.1%}"
                faults.append(Fault(where=e.episode_id, reason=reason))
    return Verdict(faults=tuple(faults), looked_at=len(known), of=len(m.episodes), missing=missing if len(known) < len(m.episodes) else "")


@lru_cache(maxsize=1)  # both rules ask, one after the other
def _positions(m: SetMeasurements) -> Sequence[EpisodeMeasurements]:
    """The episodes whose action is a position of the joints of the state."""
    return tuple(e for e in m.episodes if _is_position(e))


def _is_position(e: EpisodeMeasurements) -> bool:
    action, state = e.vectors.get(layout.ACTION), e.vectors.get(layout.STATE)
    if action is None or state is None or len(action) != len(state):
        return False
    follows = e.time.position.peak > max(0.6, e.time.change.peak) and e.time.position.peak > 4.0 / np.sqrt(max(e.frames, 1))
    middle = np.abs(action.mean_D - state.mean_D) < 0.5 * np.maximum(state.high_D - state.low_D, action.high_D - action.low_D) + 1e-9
    return bool(follows) and float(middle.mean()) > 0.5
