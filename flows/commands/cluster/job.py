"""The options of a training on a cluster, and the recipe's job that follows from them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.commands.recipe_arguments import Overrides, RecipeName, recipe_of
from flows.terminal.output import print_line

if TYPE_CHECKING:
    from components.config.launch.cluster_job import JobSpec
    from components.config.launch.placement import Placement
    from components.config.launch.stored_data import StoredData
    from components.config.recipe import Recipe
    from flows.platform.settings import Settings

Image = Annotated[str, typer.Option(help="the image of infra/docker/worker.Dockerfile in your registry")]
AllowTag = Annotated[
    bool, typer.Option("--allow-tag", help="submit an image that is named by a tag, not by its digest: a later attempt may run other code")
]
Nodes = Annotated[int, typer.Option(help="machines; 0: as many as the recipe's train.world_size needs", min=0)]
Procs = Annotated[int, typer.Option(help="processes a machine (one a GPU)", min=1)]
Gpus = Annotated[int, typer.Option(help="GPUs a machine; 0 trains on processors", min=0)]
GpuKind = Annotated[str, typer.Option(help="what GPUs there are (a100, h100 or h200): what a published network needs must fit")]
Kind = Annotated[
    Literal["auto", "job", "jobset", "trainjob"], typer.Option(help="object of the cluster that runs it; auto: the last that it serves")
]
Queue = Annotated[str, typer.Option(help="LocalQueue of Kueue that admits it; empty: it does not wait in a queue")]
Priority = Annotated[str, typer.Option(help="with --queue: WorkloadPriorityClass, by which Kueue orders and preempts")]
Rdma = Annotated[int, typer.Option(help="RDMA network devices a machine", min=0)]
RdmaResource = Annotated[str, typer.Option(help="name that the cluster's device plugin gave them")]
Topology = Annotated[str, typer.Option(help="with --queue: node label of which all machines have one value, such as that of a rack")]
Preferred = Annotated[bool, typer.Option("--topology-preferred", help="they need not, where no place has room for all")]
Claim = Annotated[str, typer.Option(help="the claim that holds the workspace, mountable by several machines")]
Mount = Annotated[Path | None, typer.Option(help="where pods mount the claim (default: the folder that holds ACTWRIGHT_HOME)")]
DataFrom = Annotated[
    Literal["claim", "store"],
    typer.Option(help="where machines read the data set: on the claim, or each from its own copy out of the object store"),
]
DataCache = Annotated[
    str, typer.Option(help="with --data store: claim of a volume of the machine's own that keeps data sets", metavar="CLAIM")
]
Namespace = Annotated[str, typer.Option(help="namespace of the job")]
Kubeconfig = Annotated[Path | None, typer.Option(help="default: its usual place, or the pod's own account inside a cluster")]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """Which recipe trains, with which image, on how many machines, in which namespace."""

    recipe: RecipeName = "loop"
    image: Image = "actwright-worker:0.1.0"
    allow_tag: AllowTag = False
    nodes: Nodes = 0
    procs: Procs = 1
    gpus: Gpus = 0
    gpu: GpuKind = "h100"
    claim: Claim = "actwright-store"
    mount: Mount = None
    data: DataFrom = "claim"
    data_cache: DataCache = ""
    kind: Kind = "auto"
    queue: Queue = ""
    priority: Priority = ""
    rdma: Rdma = 0
    rdma_resource: RdmaResource = "rdma/rdma_shared_device_a"
    topology: Topology = ""
    topology_preferred: Preferred = False
    namespace: Namespace = "actwright"
    change: Overrides = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions(JobOptions):
    """`JobOptions`, and the cluster that the job is submitted to."""

    kubeconfig: Kubeconfig = None


def spread_recipe(options: JobOptions, *, is_run: bool = False) -> Recipe:
    """The recipe with its training spread over the processes of all machines. is_run: see `recipe_of`."""
    recipe = recipe_of(options.recipe, options.change, is_run=is_run)
    return on_gpus(recipe, machines(options, recipe) * options.procs)


def machines(options: JobOptions, recipe: Recipe) -> int:
    """How many machines were asked for, or hold the recipe's processes."""
    if options.nodes:
        return options.nodes
    world = recipe.train.world_size
    if world % options.procs:
        raise typer.BadParameter(f"train.world_size is {world}, which --procs {options.procs} does not divide; name --nodes as well")
    return world // options.procs


def on_gpus(recipe: Recipe, world: int) -> Recipe:
    """The recipe with its training spread over `world` processes: the same global batch, in smaller micro batches if necessary."""
    from model_core.spec.errors import SpecError

    batch = recipe.train
    micro = max(1, min(batch.micro_batch, batch.global_batch // world))
    try:
        return replace(recipe, train=replace(batch, world_size=world, micro_batch=micro))
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


def job_name(work: str, of: str, most: int | None = None) -> str:
    """ "train-my-recipe" for the training of my_recipe, as Kubernetes names objects. most: letters of it, cut at the end."""
    plain = "".join(c if c.isalnum() else "-" for c in of.lower()).strip("-")
    return f"{work}-{plain}"[:most].rstrip("-")


def require_digest(image: str, *, allow_tag: bool) -> None:
    """Refuse an image that is named by a tag before anything is done; raises `typer.BadParameter` with what to type."""
    from components.config.launch.cluster_job import TAG_RISK, how_to_pin, is_by_digest

    if not (allow_tag or is_by_digest(image)):
        raise typer.BadParameter(f"--image {image} {TAG_RISK}. Fix: {how_to_pin(image)}")


def job_of(options: JobOptions) -> JobSpec:
    """The job of a recipe; one recipe has one name, so that the same command finds its job again."""
    from components.config.launch.cluster_job import JobSpec
    from flows.platform.settings import load_settings
    from model_core.spec.errors import SpecError

    settings = load_settings()
    place = (options.mount or settings.home.resolve().parent).as_posix()
    recipe = recipe_of(options.recipe, options.change)
    try:
        return JobSpec(
            name=job_name("train", recipe.name),
            image=options.image,
            allow_tag=options.allow_tag,
            # replaced by the step's own folder when the job is submitted
            job=f"{place.rstrip('/')}/.actwright/store/train/job.json",
            nodes=machines(options, recipe),
            procs=options.procs,
            gpus=options.gpus,
            claim=options.claim,
            mount=place,
            namespace=options.namespace,
            data=_stored_data(options, settings),
            placement=_placement(options),
        )
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


def _placement(options: JobOptions) -> Placement:
    from components.config.launch.placement import Placement

    return Placement(**{one.name: getattr(options, one.name) for one in fields(Placement)})


def _stored_data(options: JobOptions, settings: Settings) -> StoredData | None:
    from components.config.launch.stored_data import StoredData

    if options.data == "claim":
        return None
    return StoredData(storage=settings.storage, bucket=settings.bucket, cache_claim=options.data_cache)


def planned_job(options: JobOptions) -> JobSpec:
    """The job of a recipe, as its plan says: with memory for a network of the published layout, and only where its part fits on a GPU.

    Lines of the plan go to stderr. Raises `SpecError`, with the changes that would fit, where GPUs are asked for and do not hold it.
    """
    from components.config.published.networks import is_published

    recipe, spec = spread_recipe(options), job_of(options)
    if not is_published(recipe.train.network):
        return spec
    from components.training.sizing.machines import accelerator
    from components.training.sizing.plan import machine_memory_bytes, plan_training, require_fit

    plan = plan_training(recipe, accelerator(options.gpu))
    if spec.gpus:
        for line in plan.lines():
            print_line(line)
        require_fit(plan)
    needed = -(-machine_memory_bytes(plan, spec.procs) // 2**30)
    return replace(spec, memory=f"{max(needed, int(spec.memory.removesuffix('Gi')))}Gi")
