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
from flows.pipeline.run_context import RunContext
from flows.pipeline.run_summary import Outcome, summarize, verdict_page
from flows.platform.error_messages import explained


def _stage(name: str) -> Callable[[Callable[..., Step]], Any]:
    return task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)


def _flow(name: str) -> Callable[[Callable[..., Any]], Any]:
    return flow(name=name, validate_parameters=False, persist_result=False)


@_stage("collect")
def collect(context: RunContext) -> Step:
    """Workcells record demonstrations."""
    raw = context.do("collect", lambda progress: stages.collect_step(context.platform, context.recipe, progress))
    context.keep("upload", "collect", lambda progress: storage.keep_raw(context.platform, raw, progress))
    return raw


@_stage("validate")
def validate(context: RunContext, raw: Step) -> Step:
    """Every episode is judged; bad ones are set aside with their reason."""
    return context.do("validate", lambda progress: stages.validate_step(context.platform, context.recipe, raw, progress))


@_stage("annotate")
def annotate(context: RunContext, raw: Step, valid: Step) -> Step:
    """Every frame gets depth tokens and a trace."""
    return context.do("annotate", lambda progress: stages.annotate_step(context.platform, context.recipe, raw, valid, progress))


@_stage("freeze")
def freeze(context: RunContext, raw: Step, labels: Step) -> Step:
    """Labelled episodes become a data set version with a contract."""
    frozen = context.do("freeze", lambda progress: stages.freeze_step(context.platform, context.recipe, raw, labels, progress))
    context.keep("vault", "freeze", lambda progress: storage.keep_version(context.platform, context.recipe, context.steps(), progress))
    return frozen


@_stage("train")
def train(context: RunContext, frozen: Step) -> Step:
    """The policy learns."""
    return context.do("train", lambda progress: stages.train_step(context.platform, context.recipe, frozen, progress))


@_stage("evaluate")
def evaluate(context: RunContext, trained: Step, frozen: Step) -> Step:
    """The policy is examined in closed loop."""
    return context.do("evaluate", lambda progress: stages.evaluate_step(context.platform, context.recipe, trained, frozen, progress))


@_stage("gate")
def gate(context: RunContext, evaluated: Step, trained: Step, frozen: Step) -> Step:
    """Champion against candidate; the candidate is registered either way."""
    return context.do("gate", lambda progress: stages.gate_step(context.platform, context.recipe, evaluated, trained, frozen, progress))


@_stage("package")
def package(context: RunContext, trained: Step, frozen: Step, gated: Step) -> Step:
    """The champion becomes a Bento whose golden probes pass."""
    return context.do("package", lambda progress: stages.package_step(context.platform, context.recipe, trained, frozen, gated, progress))


@_stage("workcells")
def workcells(context: RunContext, packaged: Step) -> Step:
    """Cells act on the served policy and record what happened."""
    cells = context.do("workcells", lambda progress: stages.workcells_step(context.platform, context.recipe, packaged, progress))
    context.keep("recordings", "workcells", lambda progress: storage.keep_recordings(context.platform, cells, progress))
    return cells


@_stage("report")
def report(context: RunContext) -> Step:
    """What was seen, for a person."""
    return context.do(
        "report", lambda progress: stages.report_step(context.platform, context.recipe, context.steps(), summarize(context), progress)
    )


@_flow("prepare-data")
def prepare_data(context: RunContext) -> Step:
    """Raw demonstrations in, one frozen data set version out."""
    raw = collect(context)
    valid = validate(context, raw)
    labels = annotate(context, raw, valid)
    return freeze(context, raw, labels)


@_flow("train-policy")
def train_policy(context: RunContext, frozen: Step) -> tuple[Step, Step]:
    """A frozen data set in, a checkpoint and what it can do out."""
    trained = train(context, frozen)
    return trained, evaluate(context, trained, frozen)


@_flow("release-policy")
def release_policy(context: RunContext, frozen: Step, trained: Step, evaluated: Step) -> Step | None:
    """The gate decides; a promoted policy is packed. None: held."""
    gated = gate(context, evaluated, trained, frozen)
    verdict: Verdict = stages.read_verdict(gated)
    create_markdown_artifact(key="verdict", markdown=verdict_page(verdict), description="gate")
    if not verdict.promote:
        return None
    return package(context, trained, frozen, gated)


@_flow("run-workcells")
def run_workcells(context: RunContext, packaged: Step) -> Step:
    """Two cells on the served policy."""
    return workcells(context, packaged)


@_flow("loop")
def loop(recipe: str, context: RunContext) -> Outcome:
    """Demonstrations to robots that act on the served policy."""
    frozen = prepare_data(context)
    trained, evaluated = train_policy(context, frozen)
    packaged = release_policy(context, frozen, trained, evaluated)
    if packaged is not None:
        run_workcells(context, packaged)
    report(context)
    outcome = summarize(context)
    create_table_artifact(key="stages", table=outcome.stage_rows(), description=f"run {context.name}")
    return outcome


def run_loop(context: RunContext) -> Outcome:
    """Run the loop in this process against the Prefect API that the environment names."""
    # Prefect's heartbeat thread sleeps in whole seconds and is joined at the end of every flow run
    try:
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), context.panel.shown():
            return loop(recipe=context.recipe.name, context=context)
    except Exception as error:
        told = explained(error, context.platform.settings)
        if told is None:
            raise
        raise told from error
    finally:
        _send_what_is_queued()


def _send_what_is_queued() -> None:
    """Prefect sends logs and events from threads; let them finish before the server of this run is stopped."""
    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)
