"""`actwright run`, `train`, `evaluate` and `seeds`: run all stages of a recipe, or the first ones."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.recipe_arguments import Overrides, RecipeName, recipe_of
from flows.terminal.output import OF_OUTCOME, print_result, stoppable


def run(recipe: RecipeName = "loop", change: Overrides = None) -> None:
    """Run the whole loop, all ten stages; completed stages are cached and not recomputed.

    Example: actwright run            (the default: two Meta-World tasks)
    Example: actwright run loop --set train.seed=1
    """
    from flows.pipeline.run import run_recipe

    chosen = recipe_of(recipe, change, is_run=True)
    with stoppable():
        summary, folder = run_recipe(chosen)
    verdict = "promote" if summary.verdict.promote else "hold"
    version = f"{summary.model_version.name}/{summary.model_version.version}"
    files = {"report": str(folder / "report.html"), "summary": str(folder / "summary.json")}
    files |= {"gate": str(folder / "gate.md"), "junit": str(folder / "gate.xml")}
    print_result(run=summary.name, verdict=verdict, outcome=summary.verdict.decided, model_version=version, **files)
    if code := OF_OUTCOME[summary.verdict.decided]:
        raise typer.Exit(code)


def train(recipe: RecipeName = "loop", change: Overrides = None) -> None:
    """Train on a recipe's data set (made first if it is missing); no evaluation.

    Example: actwright train loop --set train.seed=1 --set train.steps=400
    """
    from flows.pipeline.run import begin, make_shown

    context = begin(recipe_of(recipe, change, is_run=True))
    with stoppable():
        step = make_shown(context, "train")
    print_result(checkpoint=str(step.path / "checkpoint"), digest=step.digest, final_loss=step.record["final_loss"])


def evaluate(recipe: RecipeName = "loop", change: Overrides = None) -> None:
    """Evaluate a recipe's policy on fresh seeds, or on held-out episodes of its sources (trained first if it is missing).

    Example: actwright evaluate loop --set evaluate.seeds_per_task=50
    """
    from flows.pipeline.run import begin, make_shown

    context = begin(recipe_of(recipe, change, is_run=True))
    with stoppable():
        step = make_shown(context, "evaluate")
    scores = {"successes": step.record["successes"], "trials": step.record["trials"]}
    print_result(report=str(step.path / "report.json"), digest=step.digest, **scores)


def seeds(
    recipe: RecipeName = "loop",
    change: Overrides = None,
    count: Annotated[int, typer.Option(help="how many training seeds", min=1)] = 3,
) -> None:
    """Train and evaluate with several training seeds on the same data; prints a table with confidence intervals.

    Example: actwright seeds loop --count 3
    Example: actwright seeds loop --set train.steps=500
    """
    from flows.pipeline.run import run_seeds

    chosen = recipe_of(recipe, change, is_run=True)
    with stoppable():
        table = run_seeds(chosen, count)
    print_result(**table)
