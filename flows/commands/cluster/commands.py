"""`actwright cluster ...`: training on Kubernetes, as an Indexed Job that runs torchrun on every machine; labels on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.cluster.doctor import doctor
from flows.commands.cluster.evaluation import EvaluateOptions, evaluate
from flows.commands.cluster.job import JobOptions, Kubeconfig, Namespace, TrainOptions, job_of, planned_job, require_digest, spread_recipe
from flows.commands.cluster.labelling import LabelManifestOptions, label, label_manifest
from flows.commands.cluster.plan import plan
from flows.commands.cluster.stored_data import fetch_data
from flows.commands.options import from_options
from flows.commands.recipe_arguments import RecipeName
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.config.launch.cluster_job import JobSpec

cluster_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Training, labelling and evaluation on a cluster: plan it, show the manifest, submit the job, read its logs, delete it.",
)
cluster_app.command()(plan)
cluster_app.command()(from_options(TrainOptions)(doctor))
cluster_app.command()(from_options(EvaluateOptions)(evaluate))
cluster_app.command()(fetch_data)
cluster_app.command()(label)
cluster_app.command()(from_options(LabelManifestOptions)(label_manifest))


@cluster_app.command()
@from_options(JobOptions)
def manifest(options: JobOptions) -> None:
    """Print the Job and its Service as YAML; nothing is submitted and no cluster is asked.

    Of a network of the published layout the plan (`actwright cluster plan`) decides the machines' memory, and what does not fit on the
    GPUs is refused. An image that is named by a tag and not by its digest is told of on stderr; `train` refuses it.

    Example: actwright cluster manifest loop --nodes 4 --procs 8 --gpus 8 | kubectl apply --dry-run=server -f -
    Example: actwright cluster manifest molmoact_finetune --procs 8 --gpus 8 --gpu a100
    """
    from components.adapters.kubernetes_manifest import render_yaml
    from components.config.launch.cluster_job import TAG_RISK, how_to_pin

    spec = _planned(options)
    if not (spec.is_image_pinned or spec.allow_tag):
        print_line(f"the image {spec.image} {TAG_RISK}. Fix: {how_to_pin(spec.image)}")
    typer.echo(render_yaml(spec), nl=False)


@cluster_app.command()
@from_options(TrainOptions)
def train(options: TrainOptions) -> None:
    """Make the data stages here, train on the cluster, and keep the result as the training stage of this store.

    Run it where the workspace claim is mounted. If it was interrupted or failed, run it again: training resumes from the last checkpoint.
    With --data store the data set is sent to the object store (ACTWRIGHT_STORAGE), and each machine fetches it into a cache of its own.

    A network of the published layout is planned first, as for `manifest`. The image is named by its digest.

    Example: actwright cluster train loop --nodes 2 --image registry.example/actwright-worker@sha256:...
    Example: actwright cluster train mine.json --image $IMAGE --procs 8 --gpus 8 --gpu h100
    Example: actwright cluster train mine.json --image $IMAGE --procs 8 --gpus 8 --data store --data-cache actwright-node-cache
    """
    from flows.pipeline.run_context import RunContext, make_until
    from flows.pipeline.stage_records import read_account
    from flows.pipeline.stages.cluster_launch import cluster_launch
    from flows.pipeline.stages.training import train_step
    from flows.platform.wiring import open_cluster, open_platform

    require_digest(options.image, allow_tag=options.allow_tag)
    chosen, spec = spread_recipe(options, is_run=True), _planned(options)
    cluster = open_cluster(options.kubeconfig)
    context = RunContext(platform=open_platform(), recipe=chosen)
    launch = cluster_launch(context.platform.settings, spec, lambda: cluster)
    with context.panel.shown():
        make_until(context, "freeze")
        account = read_account(context.steps())
        context.do("train", lambda progress: train_step(context.platform, chosen, context.step("freeze"), progress, launch, account))
    trained = context.step("train")
    asked = [f"train.world_size={chosen.train.world_size}", f"train.micro_batch={chosen.train.micro_batch}", *(options.change or ())]
    changes = " ".join(f"--set {change}" for change in asked)
    print_line(f"trained as job {spec.name} in {spec.namespace}; continue with: actwright run {options.recipe} {changes}")
    print_line(f"or serve it: actwright serve {trained.path / 'checkpoint'}")
    print_result(stage="train", digest=trained.digest, path=str(trained.path), job=spec.name)


def _planned(options: JobOptions) -> JobSpec:
    from model_core.spec.errors import SpecError

    try:
        return planned_job(options)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


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

    spec = job_of(JobOptions(recipe=recipe, namespace=namespace))
    found = open_cluster(kubeconfig).logs(spec, lines)
    for pod, text in found.items():
        typer.echo(f"== {pod}\n{text}")
    if not found:
        print_line(f"no pod of job {spec.name} in {namespace} has a log; look at: kubectl -n {namespace} describe job {spec.name}")


@cluster_app.command()
def delete(recipe: RecipeName = "loop", namespace: Namespace = "actwright", kubeconfig: Kubeconfig = None) -> None:
    """Delete the recipe's training job with its pods and Service; checkpoints stay on the claim.

    Example: actwright cluster delete loop
    """
    from flows.platform.wiring import open_cluster

    spec = job_of(JobOptions(recipe=recipe, namespace=namespace))
    open_cluster(kubeconfig).delete(spec)
    print_result(deleted=spec.name, namespace=namespace)


def add_cluster(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(cluster_app, name="cluster")
