"""When, and in what order: the loop as Prefect flows. Every task body is one step; nothing is computed here.

prepare-data      collect -> validate -> annotate -> freeze
train-policy      train -> evaluate
release-policy    gate and register -> package and serve
run-workcells     cells on the served policy -> their recordings
report            the run as a page and a summary
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

from components.artifacts.step_manifest import Step
from components.config.judging.verdict import GateVerdict
from components.config.records import RunSummary
from components.config.stages import stage_named
from components.evaluation.judging.documents import verdict_markdown
from flows.pipeline.run_context import RunContext
from flows.pipeline.run_summary import stage_rows
from flows.pipeline.stage_records import read_verdict
from flows.pipeline.stages.release import check_release
from flows.platform.error_messages import explained


def _stage(name: str) -> Callable[[Callable[..., Any]], Any]:
    """A Prefect task for a stage, described as the table of stages says."""
    stage = stage_named(name)
    return task(name=stage.name, task_run_name=stage.name, description=stage.work, cache_policy=NO_CACHE, persist_result=False)


def _task_of(name: str) -> Any:
    """The task of a stage; the steps before it are arguments so that Prefect knows the order."""

    def carry_out(context: RunContext, *_before: Step) -> Step:
        return context.carry_out(name)

    carry_out.__doc__ = stage_named(name).work
    return _stage(name)(carry_out)


def _flow(name: str) -> Callable[[Callable[..., Any]], Any]:
    return flow(name=name, validate_parameters=False, persist_result=False)


collect = _task_of("collect")
validate = _task_of("validate")
annotate = _task_of("annotate")
freeze = _task_of("freeze")
train = _task_of("train")
evaluate = _task_of("evaluate")
gate = _task_of("gate")
package = _task_of("package")
workcells = _task_of("workcells")


@_stage("report")
def report(context: RunContext) -> RunSummary:
    """Summarize the run and write its report."""
    return context.report()


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
    verdict: GateVerdict = read_verdict(gated)
    create_markdown_artifact(key="verdict", markdown=verdict_markdown(verdict), description="gate")
    if not verdict.promote:
        return None
    return package(context, trained, frozen, gated)


@_flow("run-workcells")
def run_workcells(context: RunContext, packaged: Step) -> Step:
    """Two cells on the served policy."""
    return workcells(context, packaged)


@_flow("loop")
def loop(recipe: str, context: RunContext) -> RunSummary:
    """Demonstrations to robots that act on the served policy."""
    frozen = prepare_data(context)
    check_release(context.recipe, frozen)
    trained, evaluated = train_policy(context, frozen)
    packaged = release_policy(context, frozen, trained, evaluated)
    if packaged is not None and not context.recipe.data:  # cells of a recipe with sources are robots: `actwright workcell`
        run_workcells(context, packaged)
    summary = report(context)
    create_table_artifact(key="stages", table=stage_rows(summary), description=f"run {context.name}")
    return summary


def run_loop(context: RunContext) -> RunSummary:
    """Run the loop in this process against the Prefect API that the environment names."""
    # Prefect's heartbeat thread sleeps in whole seconds and is joined at the end of every flow run
    try:
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), context.panel.shown():
            return loop(recipe=context.recipe.name, context=context)
    except Exception as error:
        cause = explained(error, context.platform.settings)
        if cause is None:
            raise
        raise cause from error
    finally:
        _send_what_is_queued()


def _send_what_is_queued() -> None:
    """Prefect sends logs and events from threads; let them finish before the server of this run is stopped."""
    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)
