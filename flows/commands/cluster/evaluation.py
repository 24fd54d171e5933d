"""`actwright cluster evaluate`: a policy on a suite, whose cases the pods of an Indexed Job run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.cluster.job import AllowTag, Claim, Image, Kubeconfig, Mount, Namespace, Priority, Queue, job_name, require_digest
from flows.commands.suites.commands import RunOptions, run_and_tell

if TYPE_CHECKING:
    from pathlib import Path

Pods = Annotated[int, typer.Option(help="pods at most, each with its share of the cases", min=1)]
Cpu = Annotated[str, typer.Option(help="CPUs a pod, as Kubernetes writes them")]
Memory = Annotated[str, typer.Option(help="memory a pod, as Kubernetes writes it")]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions(RunOptions):
    """`RunOptions`, and the pods that run the cases."""

    pods: Pods = 8
    image: Image = "actwright-worker:0.1.0"
    allow_tag: AllowTag = False
    cpu: Cpu = "2"
    memory: Memory = "8Gi"
    queue: Queue = ""
    priority: Priority = ""
    claim: Claim = "actwright-store"
    mount: Mount = None
    namespace: Namespace = "actwright"
    kubeconfig: Kubeconfig = None


def evaluate(options: EvaluateOptions) -> None:
    """Run a policy on a suite, its cases by the pods of an Indexed Job, with the result of `actwright suite run`.

    Run it where the workspace claim is mounted, with the policy and ACTWRIGHT_HOME below it. A share whose pod failed is tried again; what
    finished is kept, so a command that was stopped goes on where it was, here too (`actwright suite run`).

    Example: actwright cluster evaluate metaworld_mt50 champion --pods 50 --image registry.example/actwright-worker@sha256:...
    """
    from components.config.launch.evaluation_job import EvaluationSpec
    from components.config.launch.placement import Placement
    from flows.platform.settings import load_settings
    from flows.platform.wiring import open_cluster
    from model_core.spec.errors import SpecError

    require_digest(options.image, allow_tag=options.allow_tag)
    place = (options.mount or load_settings().home.resolve().parent).as_posix()
    try:
        spec = EvaluationSpec(
            name=job_name("evaluate", options.name, 50),
            image=options.image,
            allow_tag=options.allow_tag,
            job=f"{place.rstrip('/')}/later",  # replaced by the document of this evaluation
            nodes=options.pods,
            cpu=options.cpu,
            memory=options.memory,
            claim=options.claim,
            mount=place,
            namespace=options.namespace,
            placement=Placement(kind="job", queue=options.queue, priority=options.priority),
        )
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error

    def spread(cfg: Any, checkpoint: Path, out: Path, progress: Any) -> None:
        from components.evaluation.spread.launch import spread_groups

        cluster = open_cluster(options.kubeconfig)
        cluster.fitted(spec)  # says what is lacking before anything is submitted
        # each evaluation has a job of its own: its step's folder is named by its content
        named = replace(spec, name=f"{spec.name[:40]}-{out.name[:8]}".lower())
        spread_groups(cluster, named, cfg, checkpoint, out, progress)

    run_and_tell(options, spread)
