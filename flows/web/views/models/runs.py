"""Trainings as MLflow recorded them, and some of them beside each other. MLflow is not loaded for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.adapters.mlflow.reading.comparison import compare_runs, curves_shown, source_shares
from components.adapters.mlflow.reading.records import RunRow, TrackingReader
from components.artifacts.step_store import StepStore
from components.config.judging.verdict import ERROR_RATIO
from flows.pipeline.stage_records import read_reports
from flows.platform.wiring import Platform
from flows.web.http.endpoint import Call, Endpoint, Refused, not_found
from model_core.access import Role
from model_core.spec.errors import NotReady

_MOST_RUNS, _MOST_BESIDE, _MOST_POINTS = 10_000, 8, 400


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """One training. status: finished, running, failed or killed. Times in seconds since 1970; ended_s: None while it runs.

    loss, held_out_loss, mfu: their last values, None where it recorded none.
    """

    id: str
    name: str
    recipe: str
    status: str
    started_s: float
    ended_s: float | None
    loss: float | None
    held_out_loss: float | None
    mfu: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunList:
    """The newest trainings first. absent: why there is none to ask for, and what to do."""

    runs: tuple[RunLine, ...]
    absent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsQuery:
    """of: two to eight runs by their ids or the first digits of these, with commas between."""

    of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRow:
    """A parameter in which the runs differ: a value for each run, None where it has none."""

    name: str
    values: tuple[str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRow:
    """A number of each run, None where it has none. kind: "last" of a curve, "share" of the frames trained on that a source recorded, or
    "evaluation" of its checkpoint in this home."""

    kind: str
    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveLine:
    """One curve of one run; run: its place among the runs. values: None where it was no number."""

    run: int
    steps: tuple[int, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvesBeside:
    """A curve of all runs that have it."""

    name: str
    lines: tuple[CurveLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsBeside:
    """Runs beside each other, in the order in which they were asked for."""

    runs: tuple[RunLine, ...]
    params: tuple[ParameterRow, ...]
    numbers: tuple[ValueRow, ...]
    curves: tuple[CurvesBeside, ...]


def run_endpoints(platform: Platform) -> Sequence[Endpoint]:
    """The list, and some beside each other. Nothing is opened before the first call."""
    return (
        Endpoint(
            method="GET",
            path="/api/runs",
            does="The trainings that MLflow recorded, the newest first",
            role=Role.OBSERVE,
            answer=RunList,
            handle=lambda _: _listed(platform),
        ),
        Endpoint(
            method="GET",
            path="/api/runs/beside",
            does="Trainings beside each other: parameters that differ, curves, held-out error, MFU, share of the data by source",
            role=Role.OBSERVE,
            answer=RunsBeside,
            query=RunsQuery,
            handle=lambda call: _beside(platform, call),
        ),
    )


def _listed(platform: Platform) -> RunList:
    try:
        found = platform.tracking_reader().runs(tags={"stage": "train"}, limit=_MOST_RUNS)
    except NotReady as absent:
        return RunList(runs=(), absent=str(absent))
    return RunList(runs=tuple(_line(run) for run in found), absent="")


def _line(run: RunRow) -> RunLine:
    return RunLine(
        id=run.run_id,
        name=run.name,
        recipe=run.tags.get("recipe", ""),
        status=run.status,
        started_s=run.started_ms / 1000,
        ended_s=None if run.ended_ms is None else run.ended_ms / 1000,
        loss=run.metrics.get("train/loss"),
        held_out_loss=run.metrics.get("validation/loss"),
        mfu=run.metrics.get("speed/mfu"),
    )


def _beside(platform: Platform, call: Call) -> RunsBeside:
    asked = [one for one in dict.fromkeys(call.query.of.split(",")) if one]
    if not 1 <= len(asked) <= _MOST_BESIDE:
        raise Refused(f"of: expected one to {_MOST_BESIDE} runs, got {len(asked)}. Fix: choose some on the page of runs")
    reader = platform.tracking_reader()
    runs = [_one(reader, digits) for digits in asked]
    compared = compare_runs(runs)
    shares, evaluated = [source_shares(run) for run in runs], [_evaluated(platform.store, run.run_id) for run in runs]
    numbers = [ValueRow(kind="last", name=name, values=compared.metrics[name]) for name in curves_shown(runs)]
    numbers += [*_rows("share", shares), *_rows("evaluation", evaluated)]
    return RunsBeside(
        runs=tuple(_line(run) for run in runs),
        params=tuple(ParameterRow(name=name, values=values) for name, values in compared.params.items()),
        numbers=tuple(numbers),
        curves=_curves(reader, runs),
    )


def _one(reader: TrackingReader, digits: str) -> RunRow:
    found = reader.run(digits)
    if len(found) != 1:
        raise not_found(f"{'one run' if found else 'a run'} {digits[:64]!r}", "choose it on the page of runs, or give more digits")
    return found[0]


def _rows(kind: str, found: Sequence[Mapping[str, float]]) -> list[ValueRow]:
    names = sorted({name for one in found for name in one})
    return [ValueRow(kind=kind, name=name, values=tuple(one.get(name) for one in found)) for name in names]


def _curves(reader: TrackingReader, runs: Sequence[RunRow]) -> tuple[CurvesBeside, ...]:
    names = curves_shown(runs)
    lines: dict[str, list[CurveLine]] = {name: [] for name in names}
    for place, run in enumerate(runs):
        for curve in reader.curves(run, names, most=_MOST_POINTS):
            lines[curve.name].append(CurveLine(run=place, steps=curve.steps, values=curve.values))
    return tuple(CurvesBeside(name=name, lines=tuple(found)) for name, found in lines.items())


def _evaluated(store: StepStore, run_id: str) -> Mapping[str, float]:
    """What the checkpoint of a training reached in this home: success by rollouts, or the error on held-out episodes over that of the mean
    action. Of several evaluations the newest; empty where there is none."""
    trained = next((step for step in store.steps("train") if step.record.get("run_id") == run_id), None)
    if trained is None:
        return {}
    steps = [step for step in store.steps("evaluate") if step.manifest.inputs.get("checkpoint") == trained.digest]
    told: dict[str, float] = {}
    for body, report in read_reports(steps[-1]).items() if steps else ():
        where = f"{body}: " if body else ""
        if report.open_loop:
            told[f"{where}held-out error, of that of the mean action"] = report.open_loop[ERROR_RATIO]
        if report.trials:
            told[f"{where}success rate"] = report.successes / report.trials
            told[f"{where}trials"] = report.trials
    return told
