"""The action means the same in every episode: a position or a change, with the same sign, of the same dimension."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.numbers.vectors import VECTORS, over_episodes
from components.data.inspection.checks.verdict import DEFECT, Fault, Verdict, check
from components.data.inspection.measurements.median import median
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.measurements.rows.coupling import Coupling
from components.data.lerobot import layout

ALIKE = 0.1  # readings whose agreement with an action differs by less follow it alike: which is nearer is chance
_CONVERT = "convert these episodes, or leave them out"


@check(
    "mode_changes",
    severity=DEFECT,
    reason="positions beside changes: an action of one kind moves the robot wrongly as the other",
    fix=_CONVERT,
    source="openvla/openvla#35",
)
def mode_changes(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """The action means the same (a position, or a change) in every episode."""
    said = {e.episode_id: _mode(e, cfg) for e in m.episodes}
    known = [mode for mode in said.values() if mode]
    usual = "position" if known.count("position") * 2 >= len(known) else "change"
    wrong = {where: f"the action is a {mode}, in most episodes a {usual}" for where, mode in said.items() if mode and mode != usual}
    wrong = wrong if len(known) >= 3 else {}
    spans = [(e, ratio) for e, ratio in _spans(m) if e.frames >= cfg.inspection.min_frames]
    if usual != "position" or len(known) < 3:
        spans = []  # how far a change goes says how fast the robot moved, and nothing of its meaning
    low, high = cfg.inspection.action_span, 1 / cfg.inspection.action_span
    for e, ratio in spans:
        if max((ratio < low).mean(), (ratio > high).mean()) >= 0.6:
            wrong.setdefault(e.episode_id, f"beside the state the action spans {median(ratio):.2g} times what it spans in most episodes")
    faults = tuple(Fault(where=where, reason=reason) for where, reason in wrong.items())
    looked = len({where for where, mode in said.items() if mode} | {e.episode_id for e, _ in spans})
    missing = "the state follows neither the action nor its change closely enough" if looked < len(said) else ""
    return Verdict(faults=faults, looked_at=looked, of=len(said), missing=missing)


def _mode(e: EpisodeMeasurements, cfg: ValidateConfig) -> str:
    position, change = e.time.position.peak, e.time.change.peak
    if max(position, change) < max(cfg.inspection.min_agreement, 4.0 / np.sqrt(max(e.frames, 1))):
        return ""
    return (
        "position" if position > change + cfg.inspection.mode_margin else "change" if change > position + cfg.inspection.mode_margin else ""
    )


def _spans(m: SetMeasurements) -> list[tuple[EpisodeMeasurements, NDArray[np.float64]]]:
    """How far the action goes beside the state in each dimension, of what is usual; for three episodes of equal widths at least."""
    usual = {name: over_episodes(m, name, lambda v: v.high_D - v.low_D) for name in VECTORS}
    action, state = usual[layout.ACTION], usual[layout.STATE]
    if action is None or state is None or len(action) != len(state) or len(m.episodes) < 3:
        return []
    moves = (action > 1e-9) & (state > 1e-9)
    found: list[tuple[EpisodeMeasurements, NDArray[np.float64]]] = []
    for e in (e for e in m.episodes if all(name in e.vectors for name in VECTORS)):
        a, s = (e.vectors[name].high_D - e.vectors[name].low_D for name in (layout.ACTION, layout.STATE))
        if moves.sum() > 1 and (s[moves] > 1e-9).all():
            found.append((e, (a[moves] / action[moves]) / (s[moves] / state[moves])))
    return found


@check(
    "direction_changes",
    severity=DEFECT,
    reason="one dimension of the action has another sign or another place than in most episodes",
    fix=_CONVERT,
    source="openvla/openvla#6",
)
def direction_changes(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """The state follows every dimension of the action with the same sign, and the same dimension of the state, in every episode.

    In a short episode other readings may follow an action by chance. So a dimension only has another place where the reading that it moves
    elsewhere does not follow it as well.
    """
    width = max((len(e.time.position.peak_D) for e in m.episodes), default=0)
    faults: list[Fault] = []
    looked: set[str] = set()
    for d in range(width):
        clearer = _clearer(m, d)
        mine = [(e, clearer(e)) for e in m.episodes]
        strong = [(e, float(c.peak_D[d]), int(c.partner_D[d])) for e, c in mine if len(c.peak_D) > d and abs(c.peak_D[d]) > _clear(e, cfg)]
        if len(strong) < 3:
            continue
        looked |= {e.episode_id for e, _, _ in strong}
        sign = 1 if sum(peak > 0 for _, peak, _ in strong) * 2 >= len(strong) else -1
        partners = [partner for _, _, partner in strong]
        usual = max(set(partners), key=partners.count)
        is_settled = partners.count(usual) >= 0.6 * len(partners)
        for e, peak, partner in strong:
            followed = float(clearer(e).best_DP[d, usual])
            is_usual = partner == usual or (is_settled and abs(followed) > abs(peak) - ALIKE)
            if is_usual and followed * sign < 0:
                faults.append(Fault(where=e.episode_id, reason=f"{m.dimension(layout.ACTION, d)} moves the state the other way"))
            elif is_settled and not is_usual:
                moved, instead = m.dimension(layout.STATE, partner), m.dimension(layout.STATE, usual)
                reason = f"{m.dimension(layout.ACTION, d)} moves {moved}, in most episodes {instead}"
                faults.append(Fault(where=e.episode_id, reason=reason))
    return Verdict(
        faults=tuple(faults), looked_at=len(looked), of=len(m.episodes), missing="" if looked else "no state follows an action clearly"
    )


def _clearer(m: SetMeasurements, d: int) -> Callable[[EpisodeMeasurements], Coupling]:
    """The meaning of dimension `d` of the action (a position or a change) that the state agrees with better, over the whole set."""

    def size(coupling: Coupling) -> float:
        return abs(float(coupling.peak_D[d])) if len(coupling.peak_D) > d else 0.0

    position, change = (
        float(median([size(c) for c in found])) for found in zip(*((e.time.position, e.time.change) for e in m.episodes), strict=True)
    )
    return (lambda e: e.time.position) if position >= change else (lambda e: e.time.change)


def _clear(e: EpisodeMeasurements, cfg: ValidateConfig) -> float:
    return max(cfg.inspection.min_agreement + 0.15, 5.0 / np.sqrt(max(e.frames, 1)))
