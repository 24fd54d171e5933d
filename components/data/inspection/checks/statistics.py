"""Rules of statistics: what a folder states is compared with what its rows give; nothing of it is taken over."""

from __future__ import annotations

import numpy as np

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.verdict import DEFECT, RISK, SET, Fault, Verdict, check
from components.data.inspection.measurements.record import SetMeasurements
from components.data.inspection.measurements.statistics import StatedStatistic, StatisticMeasurements

TOLERANCE = 1e-3  # of the range: writers compute in float32 and in parts
_NONE = "the folder has no meta/stats.json"
_AGAIN = "compute the statistics again from the rows"


def _differs(one: StatedStatistic, scale: np.ndarray) -> np.ndarray:
    rounding = 1e-5 * np.maximum(np.abs(one.exact_D), np.abs(one.stated_D))
    bad: np.ndarray = ~(np.abs(one.stated_D - one.exact_D) <= TOLERANCE * scale + rounding)
    return bad


def _scale(found: StatisticMeasurements, feature: str) -> np.ndarray:
    exact = {one.name: one.exact_D for one in found.stated if one.feature == feature}
    return np.maximum(exact.get("max", np.ones(1)) - exact.get("min", np.zeros(1)), 1e-9)


def _compare(m: SetMeasurements, names: tuple[str, ...], *, averaged: bool = False) -> Verdict:
    found = m.statistics
    if found is None or not found.has_file:
        return Verdict(of=1, unit="sets", missing=_NONE)
    mine = [one for one in found.stated if one.name in names]
    faults: list[Fault] = []
    for one in mine:
        bad = _differs(one, _scale(found, one.feature))
        is_averaged = bool(np.allclose(one.stated_D, one.averaged_D, rtol=1e-3, atol=1e-6)) and len(m.episodes) > 1
        if bad.any() and is_averaged == averaged:
            d = int(np.flatnonzero(bad)[0])
            reason = f"{one.name} of {m.dimension(one.feature, d)} is stated as {one.stated_D[d]:.6g}, the rows give {one.exact_D[d]:.6g}"
            faults.append(Fault(where=SET, reason=reason))
    return Verdict(faults=tuple(faults), looked_at=len(mine), of=len(mine), unit="statistics", missing="" if mine else "none are stated")


@check(
    "statistics_missing",
    severity=RISK,
    reason="quantile normalisation fails late, or falls back to another one",
    fix=_AGAIN,
    source="huggingface/lerobot#2189",
)
def statistics_missing(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """State and action have all ten statistics; of version 2.1, which has no such file, every episode has its own."""
    found = m.statistics
    if found is not None and not found.has_file and found.without is not None:
        lost = tuple(Fault(where=where, reason="meta/episodes_stats.jsonl has no statistics of it") for where in found.without)
        return Verdict(faults=lost, looked_at=len(m.episodes), of=len(m.episodes))
    if found is None or not found.has_file:
        return Verdict(of=1, unit="sets", missing=_NONE)
    faults = [Fault(where=feature, reason=f"{', '.join(names)} are not stated") for feature, names in found.missing.items() if names]
    return Verdict(faults=tuple(faults), looked_at=len(found.missing), of=len(found.missing), unit="features")


@check(
    "stale_statistics",
    severity=DEFECT,
    reason="statistics of other data move every action without a word",
    fix=_AGAIN,
    source="huggingface/lerobot#3508",
)
def stale_statistics(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Least, largest, mean and deviation are those of the rows."""
    return _compare(m, ("min", "max", "mean", "std"))


@check(
    "quantiles_stale",
    severity=RISK,
    reason="quantile normalisation with other quantiles scales every action wrongly",
    fix=_AGAIN,
    source="huggingface/lerobot#4156",
)
def quantiles_stale(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Quantiles are those of the rows."""
    return _compare(m, ("q01", "q10", "q50", "q90", "q99"))


@check(
    "quantiles_averaged",
    severity=RISK,
    reason="the mean of the episodes' quantiles is not a quantile of the set, and is narrower than it",
    fix=_AGAIN,
    source="huggingface/lerobot#3804",
)
def quantiles_averaged(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Quantiles are not means over episodes."""
    return _compare(m, ("q01", "q10", "q50", "q90", "q99"), averaged=True)


@check(
    "statistics_count",
    severity=DEFECT,
    reason="the statistics are of more or fewer frames than are there",
    fix=_AGAIN,
    source="starVLA/starVLA#208",
)
def statistics_count(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Statistics count as many frames as there are."""
    found = m.statistics
    if found is None or not found.counts:
        return Verdict(of=1, unit="features", missing="no count is stated")
    faults = [
        Fault(where=name, reason=f"{stated:g} frames are counted, there are {there}")
        for name, (stated, there) in found.counts.items()
        if stated != there
    ]
    return Verdict(faults=tuple(faults), looked_at=len(found.counts), of=len(found.counts), unit="features")


@check(
    "picture_statistics",
    severity=RISK,
    reason="statistics of pictures in 0..255 beside pictures in 0..1 make everything black",
    fix=_AGAIN,
    source="huggingface/lerobot#61",
)
def picture_statistics(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Statistics of pictures are in 0..1."""
    found = m.statistics
    known = {} if found is None else {name: value for name, value in found.pictures.items() if np.isfinite(value)}
    faults = [
        Fault(where=name, reason=f"the largest value is stated as {value:.4g}, expected 0..1")
        for name, value in known.items()
        if value > 1.001
    ]
    return Verdict(
        faults=tuple(faults), looked_at=len(known), of=len(m.cameras), unit="cameras", missing="no statistics of pictures are stated"
    )


@check(
    "episode_statistics",
    severity=RISK,
    reason="tools that merge or select sets add these up",
    fix=_AGAIN,
    source="huggingface/lerobot#3508",
)
def episode_statistics(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """The statistics of each episode are those of its rows."""
    found = m.statistics
    if found is None or not found.episodes_with_statistics:
        return Verdict(of=len(m.episodes), missing="no episode states statistics of its own")
    faults = [
        Fault(where=where, reason=f"{what} differs by {far:.2%} of the range")
        for where, (what, far) in found.of_episodes.items()
        if far > TOLERANCE
    ]
    return Verdict(faults=tuple(faults), looked_at=found.episodes_with_statistics, of=len(m.episodes))
