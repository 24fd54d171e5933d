"""`actwright cluster ...`: the training stage on a Kubernetes cluster, as an Indexed Job that runs torchrun on every machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.terminal.output import say, tell

if TYPE_CHECKING:
    from components.config.cluster_job import JobSpec
    from components.config.recipe import Recipe

cluster_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Training on a Kubernetes cluster: show the manifest, submit it, read its end, delete it.",
)

RecipeName = Annotated[str, typer.Argument(help="name of a recipe, or a resolved .json file", metavar="RECIPE")]
Image = Annotated[str, typer.Option(help="the image of infra/docker/worker.Dockerfile in your registry")]
Nodes = Annotated[int, typer.Option(help="machines", min=1)]
Procs = Annotated[int, typer.Option(help="processes a machine (one a GPU)", min=1)]
Gpus = Annotated[int, typer.Option(help="GPUs a machine; 0 trains on processors", min=0)]
Claim = Annotated[str, typer.Option(help="the claim that holds the workspace, mountable by several machines")]
Mount = Annotated[Path | None, typer.Option(help="where pods mount the claim (default: the folder that holds ACTWRIGHT_HOME)")]
Namespace = Annotated[str, typer.Option(help="namespace of the job")]
Kubeconfig = Annotated[Path | None, typer.Option(help="default: its usual place, or the pod's own account inside a cluster")]


@cluster_app.command()
def manifest(
    recipe: RecipeName = "loop",
    image: Image = "actwright-worker:0.1.0",
    nodes: Nodes = 1,
    procs: Procs = 1,
    gpus: Gpus = 0,
    claim: Claim = "actwright-store",
    mount: Mount = None,
    namespace: Namespace = "actwright",
) -> None:
    """Print the Job and its Service as YAML; nothing is submitted and no cluster is asked.

    Example: actwright cluster manifest loop --nodes 4 --procs 8 --gpus 8 | kubectl apply --dry-run=server -f -
    """
    from components.adapters.kubernetes_manifest import render_yaml

    typer.echo(render_yaml(_spec(_recipe(recipe, nodes, procs), image, nodes, procs, gpus, claim, mount, namespace)), nl=False)


@cluster_app.command()
def train(
    recipe: RecipeName = "loop",
    image: Image = "actwright-worker:0.1.0",
    nodes: Nodes = 1,
    procs: Procs = 1,
    gpus: Gpus = 0,
    claim: Claim = "actwright-store",
    mount: Mount = None,
    namespace: Namespace = "actwright",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Make the data stages here, train on the cluster, and keep the result as the training stage of this store.

    Run it where the workspace claim is mounted. Interrupted or failed, run it again: it goes on from the last checkpoint.

    Example: actwright cluster train loop --nodes 2 --image registry.example/actwright-worker:0.1.0
    """
    from flows.pipeline.run_context import Shift, make_until
    from flows.pipeline.stages import train_step
    from flows.platform.wiring import open_cluster, open_house

    chosen = _recipe(recipe, nodes, procs)
    spec = _spec(chosen, image, nodes, procs, gpus, claim, mount, namespace)
    cluster = open_cluster(kubeconfig)
    shift = Shift(house=open_house(), recipe=chosen)

    def launch(*arguments: Any) -> dict[str, Any]:
        from components.training.on_cluster import train_on_cluster

        return train_on_cluster(*arguments, cluster=cluster, spec=spec)

    with shift.board.shown():
        make_until(shift, "freeze")
        shift.do("train", lambda progress: train_step(shift.house, chosen, shift.step("freeze"), progress, launch))
    trained = shift.step("train")
    changes = f"--set train.world_size={chosen.train.world_size} --set train.micro_batch={chosen.train.micro_batch}"
    say(f"trained as job {spec.name} in {spec.namespace}; go on with: actwright run {recipe} {changes}")
    tell(stage="train", digest=trained.digest, path=str(trained.path), job=spec.name)


@cluster_app.command()
def logs(
    recipe: RecipeName = "loop",
    namespace: Namespace = "actwright",
    lines: Annotated[int, typer.Option(help="how many of each pod", min=1)] = 50,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the last lines of every pod of the recipe's training.

    Example: actwright cluster logs loop --lines 100
    """
    from flows.platform.wiring import open_cluster

    spec = _spec(_recipe(recipe, 1, 1), "-", 1, 1, 0, "-", None, namespace)
    found = open_cluster(kubeconfig).logs(spec, lines)
    for pod, text in found.items():
        typer.echo(f"== {pod}\n{text}")
    if not found:
        say(f"no pod of job {spec.name} in {namespace} has a log; look at: kubectl -n {namespace} describe job {spec.name}")


@cluster_app.command()
def delete(recipe: RecipeName = "loop", namespace: Namespace = "actwright", kubeconfig: Kubeconfig = None) -> None:
    """Delete the recipe's training job with its pods and Service; checkpoints stay on the claim.

    Example: actwright cluster delete loop
    """
    from flows.platform.wiring import open_cluster

    spec = _spec(_recipe(recipe, 1, 1), "-", 1, 1, 0, "-", None, namespace)
    open_cluster(kubeconfig).delete(spec)
    tell(deleted=spec.name, namespace=namespace)


def _recipe(name: str, nodes: int, procs: int) -> Recipe:
    """The recipe, its training spread over so many processes: the same global batch, in smaller parts where it must be."""
    from flows.pipeline.recipes import get_recipe
    from model_core.spec.errors import SpecError

    try:
        found = get_recipe(name)
        world, batch = nodes * procs, found.train
        micro = max(1, min(batch.micro_batch, batch.global_batch // world))
        return replace(found, train=replace(batch, world_size=world, micro_batch=micro))
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


def _spec(recipe: Recipe, image: str, nodes: int, procs: int, gpus: int, claim: str, mount: Path | None, namespace: str) -> JobSpec:
    """The job of a recipe; one recipe has one name, so that the same command finds its job again."""
    from components.config.cluster_job import JobSpec
    from flows.platform.settings import load_settings
    from model_core.spec.errors import SpecError

    place = (mount or load_settings().home.resolve().parent).as_posix()
    plain = "".join(c if c.isalnum() else "-" for c in recipe.name.lower())
    try:
        return JobSpec(
            name=f"train-{plain}".rstrip("-"),
            image=image,
            # replaced by the step's own folder when the job is submitted
            job=f"{place.rstrip('/')}/.actwright/store/train/job.json",
            nodes=nodes,
            procs=procs,
            gpus=gpus,
            claim=claim,
            mount=place,
            namespace=namespace,
        )
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
