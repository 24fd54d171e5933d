"""Models: every version that a gate judged here, with its verdict, evidence and lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.artifacts.step_store import StepStore
from components.evaluation.studies.beside import CONFIDENCE, side_rate
from flows.pipeline.stage_records import read_model_version, read_reports, read_train_run, read_verdict
from flows.web.http.endpoint import Call, Endpoint, not_found
from model_core.access import Role

if TYPE_CHECKING:
    from components.artifacts.step_manifest import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One version. alias: champion or candidate, as the gate left it. outcome: of the gate. evaluation: solved of tried, as text."""

    name: str
    version: int
    alias: str
    outcome: str
    evaluation: str
    dataset_version: str
    contract_id: str
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelList:
    """Every version, the newest judgement first."""

    models: tuple[ModelRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """One criterion of the gate. stands: holds, fails, open, not enough or invalid."""

    name: str
    stands: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """How one task went. low, high: bounds of the success rate at `confidence`, exact."""

    task: str
    successes: int
    trials: int
    low: float
    high: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPage:
    """One version. lineage: name -> digest or version of what it was made of. steps, loss: of its training; loss: its last value.

    tracker_run: our id of the training run, by which MLflow finds it.
    """

    row: ModelRow
    checkpoint_digest: str
    replaced: str
    checks: tuple[CheckRow, ...]
    plan: tuple[str, ...]
    tasks: tuple[TaskRow, ...]
    lineage: Mapping[str, str]
    train_steps: int
    final_loss: float
    held_out: Mapping[str, float]
    tracker_run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One recorded value over the steps of the training."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveSet:
    """What a training recorded, by name."""

    curves: tuple[Curve, ...]


def model_endpoints(store: StepStore) -> Sequence[Endpoint]:
    """The list, one version, and the curves of its training."""
    return (
        Endpoint(
            method="GET",
            path="/api/models",
            does="Every model version that a gate judged here",
            role=Role.OBSERVE,
            answer=ModelList,
            handle=lambda _: ModelList(models=tuple(_row(gated) for gated in reversed(store.steps("gate")))),
        ),
        Endpoint(
            method="GET",
            path="/api/models/{name}/{version}",
            does="One model version: criteria, evidence, lineage",
            role=Role.OBSERVE,
            answer=ModelPage,
            handle=lambda call: _page(store, gated_step(store, call)),
        ),
        Endpoint(
            method="GET",
            path="/api/models/{name}/{version}/curves",
            does="What the training of one model version recorded, step by step",
            role=Role.OBSERVE,
            answer=CurveSet,
            handle=lambda call: _curves(trained_step(store, gated_step(store, call))),
        ),
    )


def gated_step(store: StepStore, call: Call) -> Step:
    """The newest judgement of the version that the address names. Raises `Refused` where there is none."""
    name, version = call.path["name"], call.path["version"]
    for gated in reversed(store.steps("gate")):
        found = read_model_version(gated)
        if found.name == name and str(found.version) == version:
            return gated
    raise not_found(f"model {name[:80]}/{version[:20]}", "choose one of the list of models, or make one with `actwright run`")


def trained_step(store: StepStore, gated: Step) -> Step | None:
    """The training that was judged; None where it is not in this home."""
    return store.by_digest("train", gated.manifest.inputs.get("checkpoint", ""))


def _curves(trained: Step | None) -> CurveSet:
    if trained is None:
        return CurveSet(curves=())
    points: dict[str, list[tuple[int, float]]] = {}
    for line in (trained.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        for name in values.keys() - {"step"}:
            points.setdefault(name, []).append((int(values["step"]), float(values[name])))
    return CurveSet(
        curves=tuple(
            Curve(name=name, steps=tuple(step for step, _ in found), values=tuple(value for _, value in found))
            for name, found in sorted(points.items())
        )
    )


def _row(gated: Step) -> ModelRow:
    found = read_model_version(gated)
    return ModelRow(
        name=found.name,
        version=found.version,
        alias=found.alias,
        outcome=read_verdict(gated).decided,
        evaluation=found.lineage.get("evaluation", ""),
        dataset_version=found.dataset_version,
        contract_id=found.contract_id,
        step=gated.manifest.key,
    )


def _page(store: StepStore, gated: Step) -> ModelPage:
    found, verdict, inputs = read_model_version(gated), read_verdict(gated), gated.manifest.inputs
    trained = trained_step(store, gated)
    evaluated = store.by_digest("evaluate", inputs.get("evaluation", ""))
    training = None if trained is None else read_train_run(trained)
    return ModelPage(
        row=_row(gated),
        checkpoint_digest=found.checkpoint_digest,
        replaced=found.replaced,
        checks=tuple(CheckRow(name=one.name, stands=one.stands, reason=one.reason) for one in verdict.checks),
        plan=verdict.plan,
        tasks=() if evaluated is None else task_rows(evaluated),
        lineage=found.lineage,
        train_steps=0 if training is None else training.steps,
        final_loss=0.0 if training is None else training.final_loss,
        held_out={} if training is None else training.metrics,
        tracker_run="" if training is None else training.run_id,
    )


def task_rows(evaluated: Step) -> tuple[TaskRow, ...]:
    """Each task of an evaluation, with exact bounds."""
    return tuple(
        TaskRow(
            task=f"{body}: {task}" if body else task,
            successes=score.successes,
            trials=score.trials,
            low=exact.low,
            high=exact.high,
            confidence=CONFIDENCE,
        )
        for body, report in read_reports(evaluated).items()
        for task, score in report.per_task.items()
        for exact in (side_rate(score.successes, score.trials),)
    )
