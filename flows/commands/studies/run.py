"""`actwright study run`: champion and candidate on the same scenes in randomized complete blocks, in a simulator or on a robot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from flows.commands.options import from_options
from flows.commands.recipe_arguments import Overrides, RecipeName, recipe_of
from flows.commands.serving.service_options import CaFile, TokenFile
from flows.terminal.output import OF_OUTCOME, print_line, print_result, stoppable

if TYPE_CHECKING:
    from components.config.judging.verdict import GateVerdict
    from components.config.recipe import Recipe
    from components.evaluation.studies.design import StudyDesign
    from components.evaluation.studies.labels import Operator
    from components.evaluation.studies.run import RunTrial
    from components.evaluation.suite import Suite

    Prepared = tuple[StudyDesign, Callable[[Path], RunTrial]]  # the design, and how a trial is run in the study's folder

SIDES = ("candidate", "champion")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions:
    """What a person gives."""

    recipe: RecipeName = "loop"
    candidate: Annotated[str, typer.Option(help="NAME/VERSION, or the folder of a bento, bundle or checkpoint", metavar="MODEL")] = ""
    champion: Annotated[str, typer.Option(help="as --candidate", metavar="MODEL")] = "champion"
    seed: Annotated[int, typer.Option(help="draws the order of scenes and of both policies on each", min=0)] = 0
    metric: Annotated[str, typer.Option(help="success, or score: the differences of stage progress")] = "success"
    films: Annotated[bool, typer.Option("--films", help="draw a strip of images of every simulated trial")] = False
    url: Annotated[
        list[str] | None,
        typer.Option(help="a robot instead of the simulator: candidate=http://... and champion=http://...", metavar="SIDE=URL"),
    ] = None
    operator: Annotated[str, typer.Option(help="who says at the terminal what came of each trial (default: the robot tells)")] = ""
    phone: Annotated[
        str, typer.Option(help="who says it uses the page of the console that is reached at this address", metavar="http(s)://HOST:PORT")
    ] = ""
    stage: Annotated[
        list[str] | None, typer.Option(help="a stage of the task, in order, for the page to offer; the last one is success", metavar="NAME")
    ] = None
    answers: Annotated[Path | None, typer.Option(help='their answers: line n is of trial n, such as "no 0.4"', exists=True)] = None
    robot: Annotated[str, typer.Option(help="metaworld, strict, or MODULE:FACTORY")] = "metaworld"
    option: Annotated[list[str] | None, typer.Option(help="passed to the robot's factory", metavar="NAME=VALUE")] = None
    task: Annotated[list[str] | None, typer.Option(help="of the robot (default: the tasks of the recipe)")] = None
    timeout_s: Annotated[float, typer.Option(help="a trial on the robot that takes longer is void", min=1.0)] = 600.0
    realtime: Annotated[bool, typer.Option("--realtime", help="the world does not wait for answers")] = False
    commissioning: Annotated[Path | None, typer.Option(help="limits of this cell", exists=True, dir_okay=False)] = None
    token_file: TokenFile = None
    ca_file: CaFile = None
    change: Overrides = None


@from_options(StudyOptions)
def run_command(options: StudyOptions) -> None:
    """Compare two policies on the same scenes until it is decided: the design is locked before the first trial, each trial is on record.

    Each scene meets both policies, in an order that is drawn from --seed. The section `gate` of the recipe says what is asked
    (`gate.margin`, `gate.max_pairs` of each task, `gate.pairs_per_block`). A study that was stopped goes on with the same command. Exits 0
    where the candidate was shown to be good enough, 3 where not, 4 without enough evidence.

    Example: actwright study run loop --candidate actwright/4 --champion actwright/3
    Example: actwright study run loop --candidate actwright/4 --seed 7 --metric score --set gate.max_pairs=100
    Example: actwright study run loop --url candidate=http://127.0.0.1:3001 --url champion=http://127.0.0.1:3000 --operator Ada
    Example: actwright study run loop --url candidate=http://127.0.0.1:3001 --url champion=http://127.0.0.1:3000 --phone https://cell-pc:3100
    """
    from components.evaluation.studies.design import lock
    from components.evaluation.studies.run import run_study
    from flows.platform.wiring import open_platform
    from flows.terminal.stage_progress import StagePanel

    _check_operator(options)
    chosen, home = recipe_of(options.recipe, options.change), open_platform().settings.home.resolve()
    design, trials_in = (_on_robot if options.url else _simulated)(options, chosen)
    folder = lock(home / "studies", design)
    print_line(f"{folder}: {len(design.scenes)} scenes at most, each with both policies; {design.void_rule}")
    panel = StagePanel(titles={"study": "study"}, live=False if options.operator or options.phone else None)
    with stoppable(), panel.shown():
        verdict, ledger = run_study(folder, trials_in(folder), panel.stage("study"))
    tell_verdict(folder, verdict, ledger.head, len(ledger.trials))


def tell_verdict(folder: Path, verdict: GateVerdict, head: str, trials: int) -> None:
    """Write the verdict into the study's folder, print it, and end with its exit code."""
    from dataclasses import replace

    from components.evaluation.judging.documents import title_of, verdict_junit, verdict_markdown
    from model_core.spec.files import atomic_write

    told = replace(verdict, study=folder.name, head=head)
    atomic_write(folder / "verdict.md", verdict_markdown(told))
    atomic_write(folder / "verdict.xml", verdict_junit(told))
    print_line(f"{title_of(told)} after {trials} trials")
    for reason in told.reasons:
        print_line(f"  {reason}")
    print_result(study=str(folder), outcome=told.decided, trials=trials, head=head, verdict=str(folder / "verdict.md"))
    if code := OF_OUTCOME[told.decided]:
        raise typer.Exit(code)


def suite_of(recipe: Recipe) -> Suite:
    """The suite with as many scenes of each task as the gate plans pairs, from `evaluate.first_seed` on, or with its own cases."""
    from dataclasses import replace

    from components.config.judging.suites import suite_entry
    from components.evaluation.suite import open_suite
    from flows.pipeline.stages.training import simulation_of

    asked, count = recipe.evaluate, recipe.gate.max_pairs
    entry = suite_entry(asked.suite) if asked.suite else None
    if entry is not None and entry.states - asked.first_state < count:
        count = entry.states - asked.first_state
        print_line(f"suite {asked.suite} has {count} initial states of each task from state {asked.first_state} on: as many pairs at most")
    return open_suite(replace(asked, seeds_per_task=count), simulation_of(recipe.collect))


def _simulated(options: StudyOptions, recipe: Recipe) -> Prepared:
    from components.evaluation.studies.simulated import open_contestants, simulated_design, simulated_trials
    from flows.pipeline.model_lookup import packed_model
    from flows.platform.wiring import open_platform

    if not options.candidate:
        raise typer.BadParameter("--candidate MODEL names the policy to judge, such as actwright/4 (or --url, for a robot)")
    platform, suite = open_platform(), suite_of(recipe)
    checkpoints = {side: packed_model(platform, getattr(options, side)).checkpoint for side in SIDES}
    contestants = open_contestants(recipe.evaluate, suite, checkpoints, platform.settings.home.resolve() / "studies" / "parts")
    design = simulated_design(recipe.evaluate, recipe.gate, contestants, seed=options.seed, metric=options.metric)
    return design, lambda folder: simulated_trials(recipe.evaluate, contestants, folder / "film" if options.films else None)


def _on_robot(options: StudyOptions, recipe: Recipe) -> Prepared:
    from dataclasses import replace

    from components.deployment.cell_process import named_robot
    from components.deployment.study_cells import ask_services, robot_design, robot_trials
    from components.evaluation.studies.design import Scene
    from components.evaluation.studies.desk import ROBOT, AtTheDesk, StudyDesk
    from components.evaluation.studies.labels import STAGES
    from flows.commands.serving.service_options import credentials_of
    from model_core.spec.execution.cell_options import CellOptions

    factory, named = named_robot(options.robot)
    served = ask_services(_urls(options.url or []), credentials_of(options.token_file, options.ca_file, 10.0))
    cell = CellOptions(
        robot=factory,
        task="",
        url=served["candidate"].url,  # until each trial puts the one of its side
        cell="study",
        result=Path("result.json"),
        robot_options=(*named, *(options.option or ())),
        realtime=options.realtime,
        commissioning=options.commissioning,
        token_file=options.token_file,
        ca_file=options.ca_file,
    )
    tasks, first = options.task or recipe.collect.tasks, recipe.evaluate.first_seed
    scenes = tuple(Scene(task=task, seed=first + number) for number in range(recipe.gate.max_pairs) for task in tasks)
    design = robot_design(recipe.gate, scenes, served, cell, draw=(options.seed, options.metric), timeout_s=options.timeout_s)
    if options.stage:
        design = replace(design, rules={**design.rules, STAGES: list(options.stage)})

    def trials_in(folder: Path) -> RunTrial:
        if not options.phone:
            return robot_trials(folder, design, served, cell, _operator(options), print_line)
        desk = StudyDesk(folder)
        print_line(f"phone  {options.phone.rstrip('/')}/trials/{folder.name}  (of `actwright console` over this home)")
        return robot_trials(folder, design, served, replace(cell, console=desk.folder / ROBOT), AtTheDesk(desk), print_line)

    return design, trials_in


def _urls(given: list[str]) -> Mapping[str, str]:
    found = {side: address for side, _, address in (one.partition("=") for one in given)}
    if set(found) != set(SIDES) or len(given) != 2:
        raise typer.BadParameter(f"--url: expected candidate=URL and champion=URL, each once, got {' '.join(given)}")
    return found


def _check_operator(options: StudyOptions) -> None:
    if options.phone and (options.operator or options.answers):
        raise typer.BadParameter("--phone: the person at the page tells what came of each trial. Fix: leave --operator and --answers out")
    if options.phone and not options.url:
        raise typer.BadParameter(
            "--phone: a page leads trials on a robot. Fix: name the services of both policies by --url, or leave it out"
        )
    if options.phone and urlsplit(options.phone).scheme not in ("http", "https"):
        raise typer.BadParameter(f"--phone: expected the address of a console, such as https://cell-pc:3100, got {options.phone!r}")


def _operator(options: StudyOptions) -> Operator | None:
    from components.evaluation.studies.labels import WrittenAnswers
    from flows.terminal.operator_questions import AtTheTerminal

    if options.answers is not None:
        return WrittenAnswers(options.answers, options.operator or "answers file")
    return AtTheTerminal(options.operator) if options.operator else None
