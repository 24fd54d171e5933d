"""`actwright study ablate`: variants of a recipe, each with something taken away, trained and judged alike."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from flows.commands.options import from_options
from flows.commands.recipe_arguments import Overrides, RecipeName, recipe_of
from flows.terminal.output import print_line, print_result, stoppable


@dataclass(frozen=True, slots=True, kw_only=True)
class AblateOptions:
    """Which variants of which recipe."""

    recipe: RecipeName = "loop"
    variants: Annotated[str, typer.Option(help="names, separated by commas (default: all that the recipe can have)", metavar="NAMES")] = ""
    trainings: Annotated[int, typer.Option(help="of each variant: training seeds from the recipe's own on", min=1)] = 1
    start: Annotated[str, typer.Option(help="checkpoint for the variant mid-training, where the recipe has none", metavar="FOLDER")] = ""
    plan: Annotated[bool, typer.Option("--plan", help="print what would be found and made, and stop")] = False
    change: Overrides = None


@from_options(AblateOptions)
def ablate_command(options: AblateOptions) -> None:
    """Take depth, trace or the start checkpoint away from a recipe, train and evaluate each variant alike, and compare them.

    Variants: answers-reuse-depth, answers-trace+action and answers-action (the same policy decides with less reasoning), steered (it is
    given a drawn trace), without-depth and without-labels (trained without), mid-training (another start). Every training has the same
    steps and seeds; the trials are paired by seed and scene. The plan is printed first; finished steps are found and not made again.

    Example: actwright study ablate loop --plan
    Example: actwright study ablate loop --variants answers-action,without-depth --trainings 3
    """
    from dataclasses import asdict

    from components.evaluation.arena.variants import variants_of
    from flows.pipeline.stages.training import check_start
    from flows.pipeline.studies.ablation import TABLE, plan_ablation, plan_lines, run_ablation
    from flows.pipeline.studies.arena import ARENA, PAGE, PICTURE
    from flows.platform.wiring import open_platform
    from model_core.spec.errors import SpecError

    chosen = recipe_of(options.recipe, options.change, is_run=not options.plan)
    try:
        variants = variants_of(chosen, [name for name in options.variants.split(",") if name], options.start)
        for variant in variants if not options.plan else ():
            check_start(variant.recipe)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    platform = open_platform()
    planned = plan_ablation(platform, variants, options.trainings)
    for line in plan_lines(variants, planned):
        print_line(line)
    if options.plan:
        print_result(plan=[asdict(one) for one in planned])
        return
    with stoppable():
        result, folder = run_ablation(platform, variants, options.trainings, shlex.join(["actwright", *sys.argv[1:]]))
    print_line((folder / TABLE).read_text(encoding="utf-8"))
    print_result(
        rates={one.name: [one.successes, one.trials] for one in result.standings},
        better=[[pair.better, pair.other] for pair in result.pairs if pair.better],
        table=str(folder / TABLE),
        result=str(folder / ARENA),
        picture=str(folder / PICTURE),
        page=str(folder / PAGE),
    )
