"""Runs beside each other, and what came from what. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.adapters.mlflow.reading.records import RunRow, VersionRow

SHORTEST = 4  # digits that name something: fewer would name half of everything


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Descendant:
    """A model version that was made with something: the name under which its lineage holds it, and its whole value there."""

    version: VersionRow
    name: str
    value: str


def made_with(versions: Sequence[VersionRow], what: str) -> list[Descendant]:
    """The versions whose lineage holds a value that begins with `what`: of a data set, checkpoint, annotator, commit, recipe or run."""
    return [
        Descendant(version=version, name=name, value=value)
        for version in versions
        for name, value in sorted(version.tags.items())
        if value.startswith(what)
    ]
