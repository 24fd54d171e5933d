"""`actwright cluster plan`: what a training would need of its GPUs, before one is rented."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.recipe_arguments import Overrides, RecipeName, recipe_of
from flows.terminal.output import print_line, print_result

Gpu = Annotated[str, typer.Option(help="a100, h100 or h200")]
Mfu = Annotated[float, typer.Option(help="share of the GPU's peak that training is assumed to reach")]
World = Annotated[int, typer.Option(help="GPUs, one process each; 0: those of the recipe", min=0)]
Build = Annotated[bool, typer.Option("--dry-run", help="build the sharded network on meta tensors and compare")]


def plan(
    recipe: RecipeName = "molmoact_finetune",
    gpus: World = 0,
    gpu: Gpu = "h100",
    mfu: Mfu = 0.4,
    build: Build = False,
    change: Overrides = None,
) -> None:
    """Print memory of each GPU by part, tokens and FLOP of a step, and hours; refuse what cannot fit, with what would.

    Example: actwright cluster plan molmoact_pretrain --dry-run
    Example: actwright cluster plan molmoact_finetune --gpus 4 --gpu a100
    """
    from components.training.sizing.machines import accelerator
    from components.training.sizing.plan import plan_training, require_fit
    from flows.commands.cluster.job import on_gpus

    chosen = recipe_of(recipe, change)
    found = plan_training(on_gpus(chosen, gpus or chosen.train.world_size), accelerator(gpu), mfu=mfu)
    for line in found.lines():
        print_line(line)
    document = found.document()
    if build:
        from components.training.sizing.dry_run import dry_run
        from model_core.spec.documents import to_document

        built = dry_run(found)
        print_line(f"  dry run      {built.did}")
        document["dry_run"] = to_document(built)
    require_fit(found)
    print_result(**document)
