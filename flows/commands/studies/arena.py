"""`actwright study arena`: many policies on the same cases, with ratings and groups."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaOptions:
    """Which evaluations are compared, and how."""

    evaluations: Annotated[
        list[str],
        typer.Argument(
            help="folders of `actwright suite run` or `actwright run`, or with a report.json; NAME=FOLDER gives a name",
            metavar="EVALUATION...",
        ),
    ]
    score: Annotated[str, typer.Option(help="what is compared in each case: success or progress")] = "success"
    alpha: Annotated[float, typer.Option(help='probability of any wrong "better" among all pairs', min=0.0001, max=0.5)] = 0.05
    resamples: Annotated[int, typer.Option(help="of the bootstrap behind the intervals of the ratings", min=100)] = 2000
    seed: Annotated[int, typer.Option(help="of the bootstrap", min=0)] = 0


@from_options(ArenaOptions)
def arena_command(options: ArenaOptions) -> None:
    """Compare many policies by their finished evaluations on the same cases: Elo ratings with intervals, and who was shown to be better.

    Policies that the trials cannot tell apart are shown as one group. Nothing is run: the rows of each evaluation are paired by case.
    Writes JSON, a Markdown table, a picture and a page, and a run of MLflow for each policy.

    Example: actwright study arena runs/suite-metaworld_loop-3f9a... runs/suite-metaworld_loop-77b0...
    Example: actwright study arena small=runs/monday large=runs/tuesday --score progress
    """
    from components.evaluation.arena.documents import arena_markdown
    from components.evaluation.arena.standings import ArenaRules
    from flows.pipeline.studies.arena import ARENA, PAGE, PICTURE, TABLE, ArenaRequest, run_arena
    from flows.platform.wiring import open_platform
    from model_core.spec.errors import SpecError

    if options.score not in ("success", "progress"):
        raise typer.BadParameter(f"--score: expected success or progress, got {options.score!r}")
    rules = ArenaRules(score=options.score, alpha=options.alpha, resamples=options.resamples, seed=options.seed)
    command = shlex.join(["actwright", *sys.argv[1:]])
    try:
        result, folder = run_arena(open_platform(), ArenaRequest(evaluations=tuple(options.evaluations), rules=rules, command=command))
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    print_line(arena_markdown(result))
    print_result(
        suite=result.suite,
        groups=[[one.name for one in result.standings if one.group == group] for group in range(1, result.standings[-1].group + 1)],
        elo={one.name: [one.rating, one.rating_low, one.rating_high] for one in result.standings},
        better=[[pair.better, pair.other] for pair in result.pairs if pair.better],
        result=str(folder / ARENA),
        table=str(folder / TABLE),
        picture=str(folder / PICTURE),
        page=str(folder / PAGE),
    )
