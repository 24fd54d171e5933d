"""Measurements of the statistics that a folder states: each beside the exact one and beside the mean over its episodes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.folder.content import FolderView
from components.data.lerobot import layout
from components.data.lerobot.statistics import QUANTILES, vector_statistics

NAMES = ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")
_SINGLE = ("timestamp", "frame_index", "episode_index", "index", "task_index", layout.RECORDED)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StatedStatistic:
    """One statistic of one feature. exact_D: of the rows. averaged_D: the mean of the episodes' own, weighted by their frames."""

    feature: str
    name: str
    stated_D: NDArray[np.float64]
    exact_D: NDArray[np.float64]
    averaged_D: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StatisticMeasurements:
    """stated: of every feature of numbers that the file names. missing: feature -> statistics that it does not state.

    counts: feature -> (frames stated, frames there). pictures: camera -> the largest value that is stated. of_episodes: episode id ->
    (the feature, statistic and dimension that differ most, by how much of the feature's range). scale_D of each feature: p98 - p02.
    without: of version 2.1, which states statistics of single episodes alone, the episodes that have none; None for other versions.
    """

    has_file: bool
    stated: tuple[StatedStatistic, ...]
    missing: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, tuple[float, int]]
    pictures: Mapping[str, float]
    of_episodes: Mapping[str, tuple[str, float]]
    episodes_with_statistics: int
    without: tuple[str, ...] | None = None


def measure_statistics(view: FolderView) -> StatisticMeasurements:
    """Recompute everything that is stated; nothing of it is taken over."""
    stated: list[StatedStatistic] = []
    missing: dict[str, tuple[str, ...]] = {}
    counts: dict[str, tuple[float, int]] = {}
    wanted = [name for name in view.table.columns if name in view.features and name not in _SINGLE]
    for feature in wanted:
        values = view.table.columns[feature]
        kept = view.statistics.get(feature)
        kept = kept if isinstance(kept, Mapping) else {}
        if view.statistics and feature in (layout.STATE, layout.ACTION):
            missing[feature] = tuple(name for name in (*NAMES, "count") if name not in kept)
        stated += _beside(feature, kept, values, view)
        if "count" in kept:
            counts[feature] = (_first(kept["count"]), len(values))
    said, differing = _of_episodes(view, [f for f in wanted if f in (layout.STATE, layout.ACTION)])
    return StatisticMeasurements(
        has_file=bool(view.statistics),
        stated=tuple(one for one in stated if one.stated_D.shape == one.exact_D.shape),
        missing=missing,
        counts=counts,
        pictures={key: _largest(view.statistics[key].get("max")) for key in view.cameras if isinstance(view.statistics.get(key), Mapping)},
        of_episodes=differing,
        episodes_with_statistics=said,
        without=_without(view),
    )


def _without(view: FolderView) -> tuple[str, ...] | None:
    if view.info.get("codebase_version") != "v2.1":
        return None
    return tuple(view.episode_id(entry.number) for entry in view.entries if not entry.statistics)


def _beside(feature: str, kept: Mapping[str, Any], values: NDArray[Any], view: FolderView) -> list[StatedStatistic]:
    """Each stated statistic beside the exact one. The mean over episodes costs a pass over each, so it is only made where they differ."""
    exact = {name: np.asarray(value) for name, value in exact_statistics(values).items()}
    scale = np.maximum(exact["max"] - exact["min"], 1e-9)
    found: list[StatedStatistic] = []
    for name in (name for name in NAMES if name in kept):
        stated_D, averaged_D = _flat(kept[name]), exact[name]
        if stated_D.shape == averaged_D.shape and name.startswith("q") and (np.abs(stated_D - averaged_D) > 1e-4 * scale).any():
            parts = [values[rows] for rows in view.rows_of.values() if len(rows)]
            total = sum(len(part) for part in parts)
            share = float(name[1:]) / 100
            averaged_D = sum((np.quantile(_rows(p), share, axis=0) * (len(p) / total) for p in parts), np.zeros(len(scale)))
        found.append(StatedStatistic(feature=feature, name=name, stated_D=stated_D, exact_D=exact[name], averaged_D=averaged_D))
    return found


def exact_statistics(values: NDArray[Any]) -> dict[str, Any]:
    """`vector_statistics`, in one call for all dimensions where every number is finite."""
    table = np.reshape(values, (len(values), -1))
    if not np.isfinite(table).all() or not len(table):
        return vector_statistics(values)
    in_order = np.array(table.T, order="C")  # as it is stored: float32 sorts twice as fast
    in_order.sort(axis=1)
    by_dim = np.array(table.T, np.float64, order="C")  # of numbers that lie beside each other, mean and deviation take a fifth of the time
    low, high = in_order[:, 0].astype(np.float64), in_order[:, -1].astype(np.float64)
    found: dict[str, Any] = {"min": low, "max": high, "mean": by_dim.mean(axis=1), "std": by_dim.std(axis=1)}
    return found | {name: _quantile(in_order, share) for name, share in QUANTILES.items()}


def _quantile(in_order_DN: NDArray[Any], share: float) -> NDArray[np.float64]:
    """What `np.quantile` gives, of rows that are sorted already: on the line between two of them."""
    place = share * (in_order_DN.shape[1] - 1)
    row = int(place)
    below, above = (in_order_DN[:, at].astype(np.float64) for at in (row, min(row + 1, in_order_DN.shape[1] - 1)))
    rest = place - row
    return below + (above - below) * rest if rest < 0.5 else above - (above - below) * (1 - rest)


def _rows(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(len(values), -1)


def _of_episodes(view: FolderView, features: list[str]) -> tuple[int, dict[str, tuple[str, float]]]:
    """How many episodes state statistics of their own, and those that differ from their rows by more than rounding."""
    none = np.zeros(0, np.int64)
    stating = [(entry, rows) for entry in view.entries if entry.statistics and len(rows := view.rows_of.get(entry.number, none))]
    names: list[str] = []
    far_XE: list[NDArray[np.float64]] = []
    for feature in features if stating else ():
        values = _rows(view.table.columns[feature])
        span_D = np.maximum(np.ptp(values, axis=0), 1e-9)
        for name, exact_ED in _of_parts(values, [rows for _, rows in stating]).items():
            stated_ED = _stacked([entry.statistics.get(f"{feature}/{name}") for entry, _ in stating], len(span_D))
            differs_ED = np.abs(stated_ED - exact_ED) / span_D
            is_known_E: NDArray[np.bool_] = np.any(np.isfinite(differs_ED), axis=1)
            names.append(f"{name} of {feature}")
            far_XE.append(np.where(is_known_E, np.fmax.reduce(differs_ED, axis=1, initial=0.0), 0.0))
    found: dict[str, tuple[str, float]] = {}
    for (entry, _), far_X in zip(stating, np.transpose(far_XE).tolist() if far_XE else (), strict=False):
        if max(far_X) > 1e-4:
            found[view.episode_id(entry.number)] = (names[far_X.index(max(far_X))], max(far_X))
    return len(stating), found


def _stacked(kept: list[Any], width: int) -> NDArray[np.float64]:
    """What each episode states, (E, D); no number where it states nothing, or another number of values."""
    lengths = {len(one) if isinstance(one, list) and not isinstance(one[0] if one else one, list) else -1 for one in kept}
    if lengths == {width}:
        with contextlib.suppress(TypeError, ValueError):
            return np.asarray(kept, np.float64)
    flat = (_flat(np.nan if one is None else one) for one in kept)
    return np.stack([one if one.shape == (width,) else np.full(width, np.nan) for one in flat])


def _of_parts(values_ND: NDArray[np.float64], parts: list[NDArray[np.int64]]) -> dict[str, NDArray[np.float64]]:
    """Statistics of the rows of each part, (E, D) each, in one call for all of them."""
    values_DN = np.ascontiguousarray(values_ND[np.concatenate(parts)].T)
    lengths_E = np.array([len(part) for part in parts])
    starts_E = np.cumsum(lengths_E) - lengths_E
    with np.errstate(over="ignore", invalid="ignore"):  # a rule names every number that is not finite
        mean_DE = np.add.reduceat(values_DN, starts_E, axis=1) / lengths_E
        beside_DN = values_DN - np.repeat(mean_DE, lengths_E, axis=1)
        std_DE = np.sqrt(np.add.reduceat(beside_DN * beside_DN, starts_E, axis=1) / lengths_E)
    low_DE, high_DE = np.minimum.reduceat(values_DN, starts_E, axis=1), np.maximum.reduceat(values_DN, starts_E, axis=1)
    return {"min": low_DE.T, "max": high_DE.T, "mean": mean_DE.T, "std": std_DE.T}


def _flat(value: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(value, np.float64).ravel()
    except (TypeError, ValueError):
        return np.zeros(0)


def _first(value: Any) -> float:
    flat = _flat(value)
    return float(flat[0]) if flat.size else float("nan")


def _largest(value: Any) -> float:
    flat = _flat(np.asarray(value, object).tolist() if value is not None else [])
    return float(flat.max()) if flat.size else float("nan")
