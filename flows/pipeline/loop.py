"""When, and in what order: the loop as Prefect flows. Every task body is one step; nothing is computed here.

prepare-data      collect -> validate -> annotate -> freeze
train-policy      train -> evaluate
release-policy    gate and register -> package and serve
run-workcells     cells on the served policy -> their recordings
report            what a person reads
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from components.artifacts.step_store import Step
from components.config.records import Verdict
from flows.pipeline import stages, storage
from flows.pipeline.run_context import Shift
from flows.pipeline.run_summary import Outcome, summarize, verdict_page
from flows.platform.error_messages import explained


def _stage(name: str) -> Callable[[Callable[..., Step]], Any]:
    return task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)


def _flow(name: str) -> Callable[[Callable[..., Any]], Any]:
    return flow(name=name, validate_parameters=False, persist_result=False)


@_stage("collect")
def collect(shift: Shift) -> Step:
    """Workcells record demonstrations."""
    raw = shift.do("collect", lambda progress: stages.collect_step(shift.house, shift.recipe, progress))
    shift.keep("upload", "collect", lambda progress: storage.keep_raw(shift.house, raw, progress))
    return raw


@_stage("validate")
def validate(shift: Shift, raw: Step) -> Step:
    """Every episode is judged; bad ones are set aside with their reason."""
    return shift.do("validate", lambda progress: stages.validate_step(shift.house, shift.recipe, raw, progress))


@_stage("annotate")
def annotate(shift: Shift, raw: Step, valid: Step) -> Step:
    """Every frame gets depth tokens and a trace."""
    return shift.do("annotate", lambda progress: stages.annotate_step(shift.house, shift.recipe, raw, valid, progress))


@_stage("freeze")
def freeze(shift: Shift, raw: Step, labels: Step) -> Step:
    """Labelled episodes become a data set version with a contract."""
    frozen = shift.do("freeze", lambda progress: stages.freeze_step(shift.house, shift.recipe, raw, labels, progress))
    shift.keep("vault", "freeze", lambda progress: storage.keep_version(shift.house, shift.recipe, shift.steps(), progress))
    return frozen


@_stage("train")
def train(shift: Shift, frozen: Step) -> Step:
    """The policy learns."""
    return shift.do("train", lambda progress: stages.train_step(shift.house, shift.recipe, frozen, progress))


@_stage("evaluate")
def evaluate(shift: Shift, trained: Step, frozen: Step) -> Step:
    """The policy is examined in closed loop."""
    return shift.do("evaluate", lambda progress: stages.evaluate_step(shift.house, shift.recipe, trained, frozen, progress))


@_stage("gate")
def gate(shift: Shift, evaluated: Step, trained: Step, frozen: Step) -> Step:
    """Champion against candidate; the candidate is registered either way."""
    return shift.do("gate", lambda progress: stages.gate_step(shift.house, shift.recipe, evaluated, trained, frozen, progress))


@_stage("package")
def package(shift: Shift, trained: Step, frozen: Step, gated: Step) -> Step:
    """The champion becomes a Bento whose golden probes pass."""
    return shift.do("package", lambda progress: stages.package_step(shift.house, shift.recipe, trained, frozen, gated, progress))


@_stage("workcells")
def workcells(shift: Shift, packaged: Step) -> Step:
    """Cells act on the served policy and record what happened."""
    cells = shift.do("workcells", lambda progress: stages.workcells_step(shift.house, shift.recipe, packaged, progress))
    shift.keep("recordings", "workcells", lambda progress: storage.keep_recordings(shift.house, cells, progress))
    return cells


@_stage("report")
def report(shift: Shift) -> Step:
    """What was seen, for a person."""
    return shift.do("report", lambda progress: stages.report_step(shift.house, shift.recipe, shift.steps(), summarize(shift), progress))


@_flow("prepare-data")
def prepare_data(shift: Shift) -> Step:
    """Raw demonstrations in, one frozen data set version out."""
    raw = collect(shift)
    valid = validate(shift, raw)
    labels = annotate(shift, raw, valid)
    return freeze(shift, raw, labels)


@_flow("train-policy")
def train_policy(shift: Shift, frozen: Step) -> tuple[Step, Step]:
    """A frozen data set in, a checkpoint and what it can do out."""
    trained = train(shift, frozen)
    return trained, evaluate(shift, trained, frozen)


@_flow("release-policy")
def release_policy(shift: Shift, frozen: Step, trained: Step, evaluated: Step) -> Step | None:
    """The gate decides; a promoted policy is packed. None: held."""
    gated = gate(shift, evaluated, trained, frozen)
    verdict: Verdict = stages.read_verdict(gated)
    create_markdown_artifact(key="verdict", markdown=verdict_page(verdict), description="gate")
    if not verdict.promote:
        return None
    return package(shift, trained, frozen, gated)


@_flow("run-workcells")
def run_workcells(shift: Shift, packaged: Step) -> Step:
    """Two cells on the served policy."""
    return workcells(shift, packaged)


@_flow("loop")
def loop(recipe: str, shift: Shift) -> Outcome:
    """Demonstrations to robots that act on the served policy."""
    frozen = prepare_data(shift)
    trained, evaluated = train_policy(shift, frozen)
    packaged = release_policy(shift, frozen, trained, evaluated)
    if packaged is not None:
        run_workcells(shift, packaged)
    report(shift)
    outcome = summarize(shift)
    create_table_artifact(key="stages", table=outcome.stage_rows(), description=f"run {shift.name}")
    return outcome


def run_loop(shift: Shift) -> Outcome:
    """Run the loop in this process against the Prefect API that the environment names."""
    # Prefect's heartbeat thread sleeps in whole seconds and is joined at the end of every flow run
    try:
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), shift.board.shown():
            return loop(recipe=shift.recipe.name, shift=shift)
    except Exception as error:
        told = explained(error, shift.house.settings)
        if told is None:
            raise
        raise told from error
    finally:
        _send_what_is_queued()


def _send_what_is_queued() -> None:
    """Prefect sends logs and events from threads; let them finish before the server of this run is stopped."""
    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)
