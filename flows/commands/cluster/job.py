"""The options of a training on a cluster, and the recipe's job that follows from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.recipe_arguments import RecipeName, recipe_of

if TYPE_CHECKING:
    from components.config.launch.cluster_job import JobSpec
    from components.config.recipe import Recipe

Image = Annotated[str, typer.Option(help="the image of infra/docker/worker.Dockerfile in your registry")]
Nodes = Annotated[int, typer.Option(help="machines", min=1)]
Procs = Annotated[int, typer.Option(help="processes a machine (one a GPU)", min=1)]
Gpus = Annotated[int, typer.Option(help="GPUs a machine; 0 trains on processors", min=0)]
Claim = Annotated[str, typer.Option(help="the claim that holds the workspace, mountable by several machines")]
Mount = Annotated[Path | None, typer.Option(help="where pods mount the claim (default: the folder that holds ACTWRIGHT_HOME)")]
Namespace = Annotated[str, typer.Option(help="namespace of the job")]
Kubeconfig = Annotated[Path | None, typer.Option(help="default: its usual place, or the pod's own account inside a cluster")]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """Which recipe trains, with which image, on how many machines, in which namespace."""

    recipe: RecipeName = "loop"
    image: Image = "actwright-worker:0.1.0"
    nodes: Nodes = 1
    procs: Procs = 1
    gpus: Gpus = 0
    claim: Claim = "actwright-store"
    mount: Mount = None
    namespace: Namespace = "actwright"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions(JobOptions):
    """`JobOptions`, and the cluster that the job is submitted to."""

    kubeconfig: Kubeconfig = None


def spread_recipe(options: JobOptions) -> Recipe:
    """The recipe with its training spread over the processes of all machines."""
    return on_gpus(recipe_of(options.recipe), options.nodes * options.procs)


def on_gpus(recipe: Recipe, world: int) -> Recipe:
    """The recipe with its training spread over `world` processes: the same global batch, in smaller micro batches if necessary."""
    from model_core.spec.errors import SpecError

    batch = recipe.train
    micro = max(1, min(batch.micro_batch, batch.global_batch // world))
    try:
        return replace(recipe, train=replace(batch, world_size=world, micro_batch=micro))
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


def job_of(options: JobOptions) -> JobSpec:
    """The job of a recipe; one recipe has one name, so that the same command finds its job again."""
    from components.config.launch.cluster_job import JobSpec
    from flows.platform.settings import load_settings
    from model_core.spec.errors import SpecError

    place = (options.mount or load_settings().home.resolve().parent).as_posix()
    plain = "".join(c if c.isalnum() else "-" for c in spread_recipe(options).name.lower())
    try:
        return JobSpec(
            name=f"train-{plain}".rstrip("-"),
            image=options.image,
            # replaced by the step's own folder when the job is submitted
            job=f"{place.rstrip('/')}/.actwright/store/train/job.json",
            nodes=options.nodes,
            procs=options.procs,
            gpus=options.gpus,
            claim=options.claim,
            mount=place,
            namespace=options.namespace,
        )
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
