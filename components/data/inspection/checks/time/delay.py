"""The state behind the action, and the pictures behind the state."""

from __future__ import annotations

import numpy as np

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.verdict import (
    RISK,
    Fault,
    Verdict,
    camera_name,
    check,
)
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.measurements.rows.coupling import Coupling

_NO_LAG = "state, action or pictures do not follow each other closely enough to tell a lag"


@check(
    "action_lag",
    severity=RISK,
    reason="a policy learns to act on what was seen some frames earlier or later",
    fix="shift the actions by the lag, or correct the recorder's synchronisation",
    source="yanlai00/bridge_data_robot_infra#1",
)
def action_lag(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """The state follows the action within `max_lag` frames, never goes before it, and in every episode alike."""
    return _lag(m, cfg, {e.episode_id: [("the state", _better(e))] for e in m.episodes}, cfg.inspection.max_lag)


@check(
    "video_lag",
    severity=RISK,
    reason="the pictures of a row show another moment than its state",
    fix="correct the start of the film, or the camera's delay, and export again",
    source="RoboDojo-Benchmark/RoboDojo#38",
)
def video_lag(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """Pictures change when the state does, within `max_lag` frames and in every episode alike."""
    pairs = {e.episode_id: [(f"camera {camera_name(name)}", view) for name, view in e.views.items()] for e in m.episodes}
    return _lag(m, cfg, pairs, cfg.inspection.max_view_lag)


def _better(e: EpisodeMeasurements) -> Coupling:
    """The meaning of the action that the state agrees with better: a position (its change), or a change."""
    return max(e.time.position, e.time.change, key=lambda coupling: coupling.peak)


def _lag(m: SetMeasurements, cfg: ValidateConfig, pairs: dict[str, list[tuple[str, Coupling]]], most: int) -> Verdict:
    limits = cfg.inspection
    frames = {e.episode_id: e.frames for e in m.episodes}
    seen: dict[str, list[int]] = {}
    clear: list[tuple[str, str, Coupling]] = []
    for episode, mine in pairs.items():
        for what, coupling in mine:
            is_high = coupling.peak >= max(limits.min_agreement, 4.0 / np.sqrt(max(frames[episode], 1)))
            if is_high and coupling.peak**2 - coupling.second**2 >= limits.clear_lag:
                seen.setdefault(what, []).append(coupling.lag)
                clear.append((episode, what, coupling))
    faults: list[Fault] = []
    for episode, what, coupling in clear:
        usual = int(np.median(seen[what]))
        if abs(coupling.lag - usual) > limits.lag_from_set:
            faults.append(Fault(where=episode, reason=f"{what} comes {coupling.lag} frames later, in most episodes {usual}"))
        elif not -1 <= coupling.lag <= most:
            faults.append(Fault(where=episode, reason=f"{what} comes {coupling.lag} frames later, expected -1..{most}"))
    looked = len({episode for episode, _, _ in clear})
    return Verdict(faults=tuple(faults), looked_at=looked, of=len(m.episodes), missing=_NO_LAG if looked < len(m.episodes) else "")
