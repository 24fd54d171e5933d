"""Runs beside each other. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.adapters.mlflow.reading.records import RunRow


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRuns:
    """runs: our ids. params: those that differ; metrics: all, with their last values. Name -> a value for each run, None for none."""

    runs: tuple[str, ...]
    params: Mapping[str, tuple[str | None, ...]]
    metrics: Mapping[str, tuple[float | None, ...]]


def compare_runs(runs: Sequence[RunRow]) -> ComparedRuns:
    """The runs side by side, in the order given."""
    params = {name: tuple(run.params.get(name) for run in runs) for name in sorted({name for run in runs for name in run.params})}
    metrics = {name: tuple(run.metrics.get(name) for run in runs) for name in sorted({name for run in runs for name in run.metrics})}
    differing = {name: values for name, values in params.items() if len(set(values)) > 1}
    return ComparedRuns(runs=tuple(run.run_id for run in runs), params=differing, metrics=metrics)


_ACCOUNT, _FRAMES = "account/train/", "/frames"  # as `components.artifacts.stage_log` names what was trained on


def source_shares(run: RunRow) -> dict[str, float]:
    """Source of the data -> its share of the frames that a training drew, from its account; empty for a run that recorded none."""
    frames = {
        name.removeprefix(_ACCOUNT).removesuffix(_FRAMES): value
        for name, value in run.metrics.items()
        if name.startswith(_ACCOUNT) and name.endswith(_FRAMES) and value > 0
    }
    total = sum(frames.values())
    return {source: count / total for source, count in sorted(frames.items())}


def curves_shown(runs: Sequence[RunRow]) -> list[str]:
    """Names of the curves that a training has: losses, accuracies and speeds, in training and on what was held out."""
    return sorted({name for run in runs for name in run.metrics if name.startswith(("train/", "validation/", "speed/"))})
