"""The model card of one version: what a person reads before it is used, and what is not known of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.artifacts.step_store import StepStore
from components.config.judging.verdict import ERROR_RATIO
from components.config.records import EvalReport
from flows.pipeline.stage_records import read_dataset, read_model_version, read_reports, read_train_run, read_verdict
from flows.web.http.endpoint import Call, Endpoint
from flows.web.views.models.versions import CheckRow, TaskRow, gated_step, task_rows, trained_step
from model_core.access import Role
from model_core.contracts import read_contracts

if TYPE_CHECKING:
    from components.artifacts.step_manifest import Step
    from model_core.spec.contract import PolicyContract
    from model_core.spec.embodiment import VectorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class CardCamera:
    """A camera that the policy needs. width, height: pixels."""

    name: str
    role: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CardDimension:
    """One number of an action or of the robot's readings, with its unit and limits."""

    name: str
    unit: str
    low: float
    high: float
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CardRobot:
    """What it acts for. words: the closed vocabulary of instructions; empty: any text."""

    embodiment: str
    contract_id: str
    control_hz: float
    chunk_length: int
    reasoning: tuple[str, ...]
    cameras: tuple[CardCamera, ...]
    action: tuple[CardDimension, ...]
    proprio: tuple[CardDimension, ...]
    words: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSource:
    """What one source gave to the training. frames: 0 where they were not counted; share: of all frames."""

    source: str
    episodes: int
    frames: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CardData:
    """The data set version. annotators: what was labelled -> by which version."""

    name: str
    version: str
    episodes: int
    frames: int
    train_frames: int
    validation_frames: int
    annotators: Mapping[str, str]
    sources: tuple[CardSource, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardEvaluation:
    """How it was evaluated. body: the embodiment, "" where there is one. protocol: the rules. held_out_error: of that of the mean action,
    None where it was not measured. image_swap_change: share of actions that change with the image, None likewise."""

    body: str
    protocol: Mapping[str, str]
    held_out_error: float | None
    image_swap_change: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """The card. robots: one for each embodiment. unknown: what was not measured or recorded, in sentences."""

    name: str
    version: int
    outcome: str
    robots: tuple[CardRobot, ...]
    data: CardData | None
    recipe: str
    steps: int
    measured: Mapping[str, float]
    evaluations: tuple[CardEvaluation, ...]
    tasks: tuple[TaskRow, ...]
    checks: tuple[CheckRow, ...]
    unknown: tuple[str, ...]


def card_endpoints(store: StepStore) -> Sequence[Endpoint]:
    """The card of a version."""
    return (
        Endpoint(
            method="GET",
            path="/api/models/{name}/{version}/card",
            does="The model card of one version: robot, data, training, evaluation, and what is not known",
            role=Role.OBSERVE,
            answer=ModelCard,
            handle=lambda call: _card(store, call),
        ),
    )


def _card(store: StepStore, call: Call) -> ModelCard:
    gated = gated_step(store, call)
    trained = trained_step(store, gated)
    frozen = None if trained is None else store.by_digest("freeze", trained.manifest.inputs.get("frozen", ""))
    evaluated = store.by_digest("evaluate", gated.manifest.inputs.get("evaluation", ""))
    found, verdict = read_model_version(gated), read_verdict(gated)
    training = None if trained is None else read_train_run(trained)
    contracts = {} if trained is None else read_contracts(trained.path / "checkpoint")
    reports = {} if evaluated is None else read_reports(evaluated)
    data = None if frozen is None else _data(frozen, trained)
    return ModelCard(
        name=found.name,
        version=found.version,
        outcome=verdict.decided,
        robots=tuple(_robot(contract) for contract in contracts.values()),
        data=data,
        recipe=training.recipe_digest if training else "",
        steps=training.steps if training else 0,
        measured=training.metrics if training else {},
        evaluations=tuple(_evaluation(body, report) for body, report in reports.items()),
        tasks=() if evaluated is None else task_rows(evaluated),
        checks=tuple(CheckRow(name=one.name, stands=one.stands, reason=one.reason) for one in verdict.checks),
        unknown=tuple(_unknown(data, trained, reports, verdict.study)),
    )


def _robot(contract: PolicyContract) -> CardRobot:
    body = contract.embodiment

    return CardRobot(
        embodiment=body.name,
        contract_id=contract.contract_id,
        control_hz=float(body.control_hz),
        chunk_length=contract.chunk_length,
        reasoning=contract.reasoning.levels,
        cameras=tuple(CardCamera(name=one.name, role=one.role, width=one.width, height=one.height) for one in body.cameras),
        action=_dimensions(body.action),
        proprio=_dimensions(body.proprio),
        words=contract.words,
        templates=contract.templates,
    )


def _dimensions(vector: VectorSpec) -> tuple[CardDimension, ...]:
    return tuple(
        CardDimension(name=one.name, unit=one.unit, low=float(one.low), high=float(one.high), mode=one.mode or vector.mode)
        for one in vector.dims
    )


def _data(frozen: Step, trained: Step | None) -> CardData:
    found = read_dataset(frozen)
    rows = [row for row in (trained.record.get("account", ()) if trained else ()) if row["stage"] == "train" and row["frames"]]
    total = sum(row["frames"] for row in rows)
    return CardData(
        name=found.name,
        version=found.version,
        episodes=found.episodes,
        frames=found.frames,
        train_frames=found.train_frames,
        validation_frames=found.validation_frames,
        annotators=found.annotators,
        sources=tuple(
            CardSource(source=row["source"], episodes=row["episodes"], frames=row["frames"], share=row["frames"] / total) for row in rows
        ),
    )


def _evaluation(body: str, report: EvalReport) -> CardEvaluation:
    return CardEvaluation(
        body=body,
        protocol={name: str(value) for name, value in sorted(report.protocol.items())},
        held_out_error=report.open_loop.get(ERROR_RATIO),
        image_swap_change=report.blindness.get("image_swap_change"),
    )


def _unknown(data: CardData | None, trained: Step | None, reports: Mapping[str, EvalReport], study: str) -> Iterator[str]:
    if trained is None:
        yield "Its training is not in this home: nothing is known of its data and of the robot here."
    elif data is None:
        yield "Its data set version is not in this home."
    elif not data.sources:
        yield "How much each source of the data gave was not recorded."
    if not reports:
        yield "Its evaluation is not in this home."
    for body, report in reports.items():
        of = f" of {body}" if body else ""
        if not report.trials:
            yield f"It was not evaluated in closed loop{of}: how often it solves a task is not known."
        elif not report.open_loop:
            yield f"Its error on held-out episodes{of} was not measured."
        yield f"How it does on a real robot{of} is not known from this evaluation, nor on tasks, cameras and objects other than these."
    if not study:
        yield "It was compared with no champion."
