"""`actwright suite list|show|run|recorded|take-in|page`: benchmark suites, a policy on one, and the page that lets others repeat it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result, stoppable

if TYPE_CHECKING:
    from components.evaluation.suite import NamedSuite
    from flows.pipeline.stages.suite import SpreadCases
    from flows.platform.wiring import Platform

T = TypeVar("T")
_HELP = "Benchmark suites: which there are, what one holds, a policy on one, and a page that lets others repeat it."
suite_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=_HELP)
SuiteName = Annotated[str, typer.Argument(help="name of a built-in suite", metavar="NAME")]


@suite_app.command("list")
def list_command() -> None:
    """List the built-in suites, one per line, and which of them are installed.

    Example: actwright suite list
    """
    from components.config.judging.suites import SUITES
    from components.evaluation.suites.benchmark import missing_packages

    rows = []
    for name, entry in SUITES.items():
        missing = missing_packages(name)
        note = f" (not installed: {', '.join(missing)})" if missing else ""
        print_line(f"{name:16} {entry.summary}{note}")
        rows.append({"suite": name, "states": entry.states, "trials": entry.trials, "missing": missing})
    print_result(suites=rows)


@suite_app.command("show")
def show_command(name: SuiteName) -> None:
    """Show a suite: its tasks with their sentences, the rules of success and progress, and what was published for it.

    Example: actwright suite show metaworld_mt50
    """
    from components.evaluation.suites.benchmark import Benchmark

    suite = _opened(name)
    assert isinstance(suite, Benchmark)
    for task in suite.tasks:
        print_line(f"{task.name:32} {task.instruction}" + (f"  [{task.tier}]" if task.tier else ""))
    print_line(f"success   {suite.success_rule}")
    print_line(f"progress  {suite.progress_rule}")
    print_line(f"states    {suite.states} of each task; a published evaluation runs {suite.official_trials}")
    print_line(f"rules     {suite.version}; " + ", ".join(f"{rule} {value}" for rule, value in suite.rules.items()))
    for one in suite.published:
        numbers = ", ".join(f"{tier or 'all'} {value:g} %" for tier, value in one.scores.items())
        print_line(f"published {one.model}: {numbers} ({one.source})")
    print_result(
        suite=name,
        version=suite.version,
        tasks=[task.name for task in suite.tasks],
        states=suite.states,
        trials=suite.official_trials,
        rules=dict(suite.rules),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Which policy is run on which cases of which suite."""

    name: SuiteName
    policy: Annotated[
        str,
        typer.Argument(
            help="champion, NAME@champion, NAME/VERSION, a recipe, or the folder of a bento, bundle or checkpoint", metavar="POLICY"
        ),
    ]
    cases: Annotated[
        int, typer.Option(help="initial states of each task; 0: as many as a published evaluation has", min=0, metavar="N")
    ] = 0
    first: Annotated[int, typer.Option(help="number of the first initial state", min=0, metavar="N")] = 0
    tasks: Annotated[str, typer.Option(help="names of tasks, separated by commas (default: all)", metavar="NAMES")] = ""
    reasoning: Annotated[str, typer.Option(help="full, trace+action or action (default: the policy's own)", metavar="LEVEL")] = ""
    steering: Annotated[
        str, typer.Option(help="whole or ahead: a drawn trace with every observation, all of it or what lies ahead", metavar="LINE")
    ] = "none"
    batch: Annotated[int, typer.Option(help="episodes that are decided for together; the order of work, not the scenes", min=1)] = 10
    workers: Annotated[int, typer.Option(help="processes", min=1)] = 2


@suite_app.command("run")
@from_options(RunOptions)
def run_command(options: RunOptions) -> None:
    """Run a policy on a suite and write the result with exact intervals: JSON, a Markdown table and a page.

    A run that was stopped goes on where it was. A suite that is not installed, a policy of another embodiment and instructions that the
    policy was never taught are refused before the first trial.

    Example: actwright suite run metaworld_loop champion
    Example: actwright suite run metaworld_mt50 models/mine --cases 10
    Example: actwright suite run two_buttons models/mine --steering whole
    Example: actwright suite run libero_object models/mine --tasks pick_up_the_milk_and_place_it_in_the_basket
    """
    run_and_tell(options)


def run_and_tell(options: RunOptions, spread: SpreadCases | None = None) -> None:
    """The work of `suite run`. spread: has the cases run elsewhere first."""
    from components.evaluation.suites.results import markdown
    from flows.commands.bench.runs import PlainProgress
    from flows.pipeline.stages.suite import PAGE, RESULT, TABLE, SuiteRequest, run_suite
    from flows.platform.wiring import open_platform

    _opened(options.name)
    platform = open_platform()
    asked = SuiteRequest(
        suite=options.name,
        checkpoint=_checkpoint(platform, options.policy),
        command=shlex.join(["actwright", *sys.argv[1:]]),
        tasks=tuple(task for task in options.tasks.split(",") if task),
        states=options.cases,
        first=options.first,
        reasoning=options.reasoning,
        steering=options.steering,
        workers=options.workers,
        batch=options.batch,
        spread=spread,
    )
    with stoppable():
        result, folder = _refusing(lambda: run_suite(platform, asked, PlainProgress(options.name, quiet=False)))
    print_line(markdown(result))
    whole = result.whole
    print_result(
        suite=result.suite,
        version=result.version,
        successes=whole.successes,
        trials=whole.trials,
        interval=[round(whole.low, 6), round(whole.high, 6)],
        result=str(folder / RESULT),
        table=str(folder / TABLE),
        page=str(folder / PAGE),
    )


@suite_app.command("page")
def page_command(
    results: Annotated[list[Path], typer.Argument(help="folders (or result.json files) of `actwright suite run`", metavar="RESULT...")],
    out: Annotated[Path, typer.Option(help="the page to write", metavar="FILE")] = Path("suite.html"),
) -> None:
    """Put several policies on one page beside what was published; results of other trials or of another suite version are refused.

    Example: actwright suite page runs/suite-metaworld_loop-3f9a... runs/suite-metaworld_loop-77b0... --out both.html
    """
    from components.report.reproduction import reproduction_page
    from flows.pipeline.stages.suite import read_result
    from model_core.spec.files import atomic_write

    found = _refusing(lambda: [read_result(path) for path in results])
    page = _refusing(lambda: reproduction_page(found, shlex.join(["actwright", *sys.argv[1:]])))
    atomic_write(out, page)
    print_result(page=str(out), policies=[one.policy for one in found], suite=found[0].suite)


@suite_app.command("recorded")
def recorded_command(
    policy: Annotated[str, typer.Argument(help="the policy, as for `suite run`", metavar="POLICY")],
    frozen: Annotated[Path, typer.Argument(help="folder of a frozen data set with held-out episodes", metavar="FROZEN")],
    reasoning: Annotated[str, typer.Option(help="full, trace+action or action (default: the policy's own)", metavar="LEVEL")] = "",
) -> None:
    """Measure a policy on recorded episodes before a robot moves: error in each dimension, and the likelihood of what was recorded.

    Example: actwright suite recorded champion .actwright/store/freeze/3f9a
    """
    from components.evaluation.suites.recorded import recorded_markdown
    from flows.commands.bench.runs import PlainProgress
    from flows.pipeline.stages.suite import RESULT, TABLE, run_recorded
    from flows.platform.wiring import open_platform

    platform = open_platform()
    checkpoint = _checkpoint(platform, policy)
    progress = PlainProgress("recorded", quiet=False)
    result, folder = _refusing(lambda: run_recorded(platform, checkpoint, frozen, reasoning, progress))
    print_line(recorded_markdown(result))
    ratios = {one.name: round(one.ratio, 6) for one in result.dimensions}
    files = {"result": str(folder / RESULT), "table": str(folder / TABLE)}
    print_result(frames=result.frames, refused=result.refused, ratio=ratios, likelihood=dict(result.likelihood), **files)


@suite_app.command("take-in")
def take_in_command(
    file: Annotated[Path, typer.Argument(help="the aggregate JSON that `vla-eval run` or `vla-eval export` wrote", metavar="FILE")],
    policy: Annotated[str, typer.Argument(help="the policy that our service answered with, as for `suite run`", metavar="POLICY")],
) -> None:
    """Take a result of vla-eval in: its episodes as trials with exact intervals, and what it could not finish counted and told.

    Example: actwright suite take-in results/LIBEROBenchmark_libero_object_aggregate.json champion
    """
    from components.evaluation.suites.results import markdown
    from flows.pipeline.stages.suite import PAGE, RESULT, TABLE, take_in
    from flows.platform.wiring import open_platform

    platform = open_platform()
    checkpoint = _checkpoint(platform, policy)
    result, folder = _refusing(lambda: take_in(platform, file, checkpoint, shlex.join(["actwright", *sys.argv[1:]])))
    print_line(markdown(result))
    whole = result.whole
    files = {"result": str(folder / RESULT), "table": str(folder / TABLE), "page": str(folder / PAGE)}
    print_result(suite=result.suite, version=result.version, successes=whole.successes, trials=whole.trials, void=whole.void, **files)


def add_suites(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(suite_app, name="suite")


def _refusing(work: Callable[[], T]) -> T:
    """What was asked for and cannot be is wrong usage."""
    from model_core.spec.errors import SpecError

    try:
        return work()
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


def _opened(name: str) -> NamedSuite:
    from components.evaluation.suite import open_benchmark

    return _refusing(lambda: open_benchmark(name))


def _checkpoint(platform: Platform, policy: str) -> Path:
    from flows.pipeline.model_lookup import checkpoint_of

    return _refusing(lambda: checkpoint_of(platform, policy))
