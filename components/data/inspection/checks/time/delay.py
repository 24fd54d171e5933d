"""The state behind the action, and the pictures behind the state."""

from __future__ import annotations

import numpy as np

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.sessions import steady_change
from components.data.inspection.checks.verdict import RISK, SET, Fault, Verdict, camera_name, check
from components.data.inspection.measurements.median import median
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.measurements.rows.coupling import MAX_LAG, Coupling

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


@check(
    "lag_changes",
    severity=RISK,
    reason="the recorder pairs observation and action otherwise than before, so one half teaches to act a step earlier than the other",
    fix="shift the actions of one part by the difference, or train on one part",
    source="huggingface/lerobot#636",
)
def lag_changes(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """The state follows the action by as many frames in the first episodes of the set as in the last ones."""
    clear = _clear(m, cfg, {e.episode_id: [("the state", _better(e))] for e in m.episodes})
    found = steady_change([coupling.lag for _, _, coupling in clear])
    faults: tuple[Fault, ...] = ()
    if found is not None:
        before, after = clear[found - 1][2].lag, clear[found][2].lag
        since = f"in all {len(clear) - found} episodes from {clear[found][0]} on, before {before}"
        faults = (Fault(where=SET, reason=f"the state comes {after} frames after the action {since}"),)
    return Verdict(faults=faults, looked_at=len(clear), of=len(m.episodes), missing=_NO_LAG if len(clear) < len(m.episodes) else "")


def _better(e: EpisodeMeasurements) -> Coupling:
    """The meaning of the action that the state agrees with better: a position (its change), or a change."""
    return max(e.time.position, e.time.change, key=lambda coupling: coupling.peak)


def _lag(m: SetMeasurements, cfg: ValidateConfig, pairs: dict[str, list[tuple[str, Coupling]]], most: int) -> Verdict:
    limits = cfg.inspection
    clear = _clear(m, cfg, pairs)
    seen: dict[str, list[int]] = {}
    for _, what, coupling in clear:
        seen.setdefault(what, []).append(coupling.lag)
    faults: list[Fault] = []
    for episode, what, coupling in clear:
        usual = int(median(seen[what]))
        if abs(coupling.lag - usual) > limits.lag_from_set:
            faults.append(Fault(where=episode, reason=f"{what} comes {coupling.lag} frames later, in most episodes {usual}"))
        elif not -1 <= coupling.lag <= most:
            faults.append(Fault(where=episode, reason=f"{what} comes {coupling.lag} frames later, expected -1..{most}"))
    looked = len({episode for episode, _, _ in clear})
    return Verdict(faults=tuple(faults), looked_at=looked, of=len(m.episodes), missing=_NO_LAG if looked < len(m.episodes) else "")


def _clear(m: SetMeasurements, cfg: ValidateConfig, pairs: dict[str, list[tuple[str, Coupling]]]) -> list[tuple[str, str, Coupling]]:
    """(episode, what follows, how) of the lags that can be told: at no other one the two agree as well.

    The best of all lags that were looked at is no best one where it is the first or the last of them: short episodes only allow few.
    """
    frames = {e.episode_id: e.frames for e in m.episodes}
    found: list[tuple[str, str, Coupling]] = []
    for episode, mine in pairs.items():
        reach = min(MAX_LAG, (frames[episode] - 1) // 4)
        for what, coupling in mine:
            is_high = coupling.peak >= max(cfg.inspection.min_agreement, 4.0 / np.sqrt(max(frames[episode], 1)))
            is_single = coupling.peak**2 - coupling.second**2 >= cfg.inspection.clear_lag
            if is_high and is_single and (abs(coupling.lag) < reach or reach == MAX_LAG):
                found.append((episode, what, coupling))
    return found
