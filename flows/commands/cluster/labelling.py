"""`actwright cluster label` and `label-manifest`: the labels of a recipe by a Ray cluster, and that cluster as a job of Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from flows.commands.cluster.job import Claim, Namespace, job_name
from flows.commands.recipe_arguments import Overrides, RecipeName, recipe_of
from flows.terminal.output import print_line, print_result

Workers = Annotated[int, typer.Option(help="machines beside the head", min=1)]
Cpus = Annotated[int, typer.Option(help="CPUs a machine", min=2)]
Gpus = Annotated[int, typer.Option(help="GPUs a machine; 0 labels on CPUs", min=0)]
Queue = Annotated[str, typer.Option(help="LocalQueue of Kueue; empty: the job does not wait in a queue")]
RayImage = Annotated[str, typer.Option(help="the image of infra/docker/ray.Dockerfile in your registry")]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelManifestOptions:
    """Which recipe is labelled, on how many machines, in which queue."""

    recipe: RecipeName = "loop"
    workers: Workers = 2
    cpus: Cpus = 8
    gpus: Gpus = 0
    memory: Annotated[str, typer.Option(help="memory a machine, as Kubernetes writes it")] = "16Gi"
    queue: Queue = ""
    image: RayImage = "actwright-ray:0.1.0"
    claim: Claim = "actwright-store"
    mount: Annotated[str, typer.Option(help="where pods mount the claim; its .actwright is their home")] = "/workspace"
    namespace: Namespace = "actwright"
    change: Overrides = None


def label(recipe: RecipeName = "loop", change: Overrides = None) -> None:
    """Make the data stages until the labels, which a Ray cluster makes, and keep them as those of this store.

    Without `--set annotate.ray.address=...` a Ray of its own is started on this machine. If it was killed, run it again: it goes on.

    Example: actwright cluster label own.json --set annotate.ray.address=auto --set annotate.ray.actors=8
    """
    from components.config.launch.ray_config import RAY
    from flows.pipeline.run_context import RunContext, make_until
    from flows.platform.wiring import open_platform

    chosen = recipe_of(recipe, change, is_run=True)
    context = RunContext(platform=open_platform(), recipe=replace(chosen, annotate=replace(chosen.annotate, engine=RAY)))
    with context.panel.shown():
        made = make_until(context, "annotate")
    for line in made.manifest.record.get("undigested", {}).get("cost", ()):
        print_line(line)
    print_result(stage="annotate", digest=made.digest, path=str(made.path))


def label_manifest(options: LabelManifestOptions) -> None:
    """Print a labelling on Kubernetes as YAML: a RayJob of KubeRay with a cluster of its own, and its NetworkPolicy; nothing is submitted.

    It runs `actwright cluster label` on the claim, so that this command or `actwright run` finds the labels there.

    Example: actwright cluster label-manifest own.json --workers 4 --gpus 8 --queue labelling | kubectl apply -f -
    """
    from components.adapters.ray_cluster.manifest import RayPods, labelling_yaml
    from model_core.spec.errors import SpecError

    name = job_name("label", recipe_of(options.recipe, options.change).name, 39)
    values = {field: getattr(options, field) for field in options.__slots__ if field != "change"}
    try:
        pods = RayPods(name=name, changes=tuple(options.change or ()), **values)
        typer.echo(labelling_yaml(pods), nl=False)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
