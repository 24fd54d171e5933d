"""Numbers are numbers, within limits, of one unit, and neither constant nor beyond their quantiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.numbers.vectors import FEW_EPISODES, VECTORS, each_vector, over_episodes
from components.data.inspection.checks.verdict import DEFECT, RISK, SET, Fault, Verdict, check, of_episodes
from components.data.inspection.measurements.median import median
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.measurements.rows.numbers import VectorMeasurements
from components.data.lerobot import layout

_CONVERT = "convert these episodes, or leave them out"


@check(
    "not_finite",
    severity=DEFECT,
    reason="one number that is none makes every gradient none",
    fix="repair the row, or remove the episode",
    source="huggingface/lerobot#3280",
)
def not_finite(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every number is finite."""

    def judge(e: EpisodeMeasurements) -> str:
        bad = [(name, int(v.missing_D.sum())) for name, v in e.vectors.items() if v.missing_D.any()]
        return f"{bad[0][1]} numbers of {bad[0][0]} are not finite" if bad else ""

    return of_episodes(m, judge, "")


@check(
    "out_of_range",
    severity=DEFECT,
    reason="a number outside of the robot's limits is of another unit, another body or a broken sensor",
    fix="correct the unit, or the limits of the embodiment if they are wrong",
    source="OpenHelix-Team/RoboMemArena#19",
)
def out_of_range(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """State and action are within the embodiment's limits."""
    body = m.embodiment
    limits = {} if body is None else {layout.STATE: body.proprio, layout.ACTION: body.action, layout.EXECUTED: body.action}

    def judge(e: EpisodeMeasurements) -> str | None:
        if not limits:
            return None
        for name, spec in limits.items():
            v = e.vectors.get(name)
            if v is None or len(v) != len(spec):
                continue
            slack = cfg.range_slack * (spec.high - spec.low)
            bad = np.flatnonzero((v.min_D < spec.low - slack) | (v.max_D > spec.high + slack))
            if bad.size:
                d = int(bad[0])
                dim = spec.dims[d]
                return f"{name} {dim.name} is {v.min_D[d]:.4g}..{v.max_D[d]:.4g}, expected {dim.low:g}..{dim.high:g} {dim.unit}"
        return ""

    return of_episodes(m, judge, "the embodiment's limits are not described (`--embodiment FILE`)")


@check(
    "action_clipping",
    severity=DEFECT,
    reason="a controller that only knows full speed teaches nothing about how far to go",
    fix="record with a wider limit, or leave the episode out",
    source="Physical-Intelligence/openpi#637",
)
def action_clipping(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """Few actions stand at the embodiment's limits."""
    body = m.embodiment

    def judge(e: EpisodeMeasurements) -> str | None:
        v = e.vectors.get(layout.ACTION)
        if body is None or v is None or len(v) != len(body.action):
            return None
        near = 1e-3 * (body.action.high - body.action.low)
        at = (v.min_D <= body.action.low + near) | (v.max_D >= body.action.high - near)
        share = float(np.where(at, v.at_limit_D, 0.0).min()) if len(v) else 0.0
        return f"{share:.0%} of the actions stand at their limits" if share > cfg.max_clipped_fraction else ""

    return of_episodes(m, judge, "the embodiment's limits are not described")


@check(
    "saturated",
    severity=RISK,
    reason="values were cut at a limit, so what lies beyond it is not in the data",
    fix="widen the limit of the recorder or the controller",
    source="openvla/openvla#315",
)
def saturated(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """At most one dimension (a gripper) stands at its own least or largest value for long."""

    def bad(name: str, v: VectorMeasurements) -> NDArray[np.bool_]:
        found = (v.at_limit_D > cfg.inspection.max_at_limit) & (v.distinct_D > 10)
        found &= np.array(["grip" not in m.dimension(name, d).lower() for d in range(found.shape[1])])
        return found & (found.sum(axis=1, keepdims=True) > 1)

    return each_vector(
        m, bad, lambda _, v, at: f"stands at its limit in {v.at_limit_D[at]:.0%} of the frames", least=cfg.inspection.min_frames
    )


def _size(v: VectorMeasurements) -> NDArray[np.float64]:
    return np.maximum(np.abs(v.min_D), np.abs(v.max_D))


@check(
    "unit_changes",
    severity=DEFECT,
    reason="radians beside degrees, or metres beside millimetres: one normalisation fits neither",
    fix=_CONVERT,
    source="huggingface/lerobot#2968",
)
def unit_changes(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """A vector has about the size that it has in most episodes.

    One dimension alone may hardly move in an episode: it counts where it is also far below the smallest of the other episodes.
    """
    limit = cfg.inspection.unit_ratio

    def smallest(sizes_ED: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        most_D = median(sizes_ED, axis=axis)
        return np.where(sizes_ED * 4 * limit >= most_D, sizes_ED, most_D).min(axis=axis)

    usual = {name: over_episodes(m, name, _size) for name in VECTORS}
    least = {name: over_episodes(m, name, _size, smallest) for name in VECTORS}

    def bad(name: str, v: VectorMeasurements) -> NDArray[np.bool_]:
        most, low, size = usual[name], least[name], _size(v)
        if most is None or low is None:
            return np.zeros_like(size, np.bool_)
        known = (most > 1e-6) & (size > 1e-6)
        ratio = np.divide(size, most, out=np.ones_like(size), where=known)
        far = known & ((ratio > limit) | (ratio < 1 / limit))
        is_whole = far.sum(axis=1) >= np.maximum(2, 0.5 * known.sum(axis=1))
        small = (ratio < 1 / (4 * limit)) & (size * limit < low)
        single = known & ((ratio > 4 * limit) | small) & (v.distinct_D > 1)
        return np.where(is_whole[:, None], far, single)

    def say(name: str, v: VectorMeasurements, at: tuple[int, int]) -> str:
        most = usual[name]
        return "" if most is None else f"is {_size(v)[at] / most[at[1]]:.3g} times as large as in most episodes"

    return each_vector(m, bad, say, FEW_EPISODES) if len(m.episodes) >= 3 else Verdict(of=len(m.episodes), missing=FEW_EPISODES)


@check(
    "constant_dimension",
    severity=RISK,
    reason="a dimension that never changes has no scale, and divides by zero when it is normalised",
    fix="leave the dimension out, or find out why it was not recorded",
    source="huggingface/lerobot#3280",
)
def constant_dimension(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every dimension of state and action changes somewhere in the set."""
    faults: list[Fault] = []
    looked = 0
    for name in VECTORS:
        low, high = over_episodes(m, name, lambda v: v.min_D, np.min), over_episodes(m, name, lambda v: v.max_D, np.max)
        if low is None or high is None:
            continue
        looked += len(low)
        faults += [
            Fault(where=SET, reason=f"{m.dimension(name, int(d))} is {low[d]:.4g} in every frame") for d in np.flatnonzero(low == high)
        ]
    return Verdict(
        faults=tuple(faults), looked_at=looked, of=looked, unit="dimensions", missing="" if looked else "there is neither state nor action"
    )


@check(
    "quantiles_saturate",
    severity=RISK,
    reason="values outside of q01..q99 are cut when actions are coded in bins, so a rare movement is taught as none",
    fix="widen the quantiles or code this dimension without them",
    source="PKU-Alignment/VLA-Arena#29",
)
def quantiles_saturate(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """The range of each dimension is not much wider than q01..q99 of the set."""
    stated = m.statistics
    if stated is None:
        return Verdict(of=1, unit="sets", missing="the set has no statistics")
    exact = {(one.feature, one.name): one.exact_D for one in stated.stated}
    faults: list[Fault] = []
    looked = 0
    for name in VECTORS:
        if (name, "q01") not in exact or (name, "q99") not in exact:
            continue
        low, high = over_episodes(m, name, lambda v: v.min_D, np.min), over_episodes(m, name, lambda v: v.max_D, np.max)
        if low is None or high is None:
            continue
        inner = exact[(name, "q99")] - exact[(name, "q01")]
        looked += len(inner)
        wide = (high - low > cfg.inspection.quantile_ratio * np.maximum(inner, 1e-12)) & (high > low)
        for d in np.flatnonzero(wide):
            faults.append(
                Fault(where=SET, reason=f"{m.dimension(name, int(d))} spans {high[d] - low[d]:.4g}, q01..q99 only {inner[d]:.4g}")
            )
    return Verdict(
        faults=tuple(faults), looked_at=looked, of=looked, unit="dimensions", missing="" if looked else "no quantiles are stated"
    )
