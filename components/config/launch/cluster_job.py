"""A training on several machines as a frozen value: what a cluster adapter runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from components.config.launch.placement import Placement
from components.config.launch.stored_data import StoredData
from components.config.launch.torchrun import Rendezvous, torchrun_command
from model_core.spec.errors import require

# A pod has one network interface and it is called eth0; without the name gloo may take the loopback address of the host's name.
_POD_INTERFACE = "eth0"
# the name of the machines' jobs within a JobSet: the Trainer takes at most 20 characters, and expects this one
NODE = "node"
TAG_RISK = "is a tag, and a later attempt of the same job may run other code"
_DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")


def is_by_digest(image: str) -> bool:
    """Whether every pod of every attempt runs the same image, whatever its tag names by then."""
    return "@" in image


def how_to_pin(image: str) -> str:
    """What to do about an image that is named by a tag, for a person."""
    return (
        f"name it by its digest, --image NAME@sha256:... (once it is in a registry, `crane digest {image}` or "
        f"`docker buildx imagetools inspect {image}` prints it), or submit the tag all the same with --allow-tag, "
        "as for an image that is only on the machines of the cluster"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One training on `nodes` machines.

    job: path of the job document as the pods see it (see `components.training.job`), below `mount`, where the claim is mounted.
    procs: processes a machine (one a GPU). cpu, memory, shared_memory: Kubernetes quantities, per machine. deadline_s: the
    cluster ends it after so long. suspend: something else starts it. allow_tag: the image need not be named by digest.
    data: where machines fetch the data set; None: it is on the claim.
    placement: its kind, queue and devices.
    """

    name: str
    image: str
    job: str
    nodes: int = 1
    procs: int = 1
    gpus: int = 0
    cpu: str = "4"
    memory: str = "16Gi"
    shared_memory: str = "4Gi"
    claim: str = "actwright-store"
    mount: str = "/workspace"
    namespace: str = "actwright"
    service_account: str = "actwright-train"
    port: int = 29_400
    deadline_s: int = 7 * 24 * 3600
    suspend: bool = False
    allow_tag: bool = False
    python: str = "python"
    env: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()
    data: StoredData | None = None
    placement: Placement = Placement()

    template: ClassVar[str] = "train-job.yaml"  # in infra/k8s
    is_gang: ClassVar[bool] = True  # all pods must run at the same time

    def __post_init__(self) -> None:
        fits = re.fullmatch(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?", self.name) is not None
        require(fits, "a job name is 1..50 of a-z, 0-9 and '-', begins with a letter and ends with no '-'", got=repr(self.name))
        most = 50 if self.placement.kind in ("auto", "job") else 40  # pods of a JobSet have longer names, of at most 63 characters
        require(len(self.name) <= most, f"the name of a {self.placement.kind} has at most {most} characters", got=repr(self.name))
        whole = "@" not in self.image or _DIGEST.fullmatch(self.image) is not None
        require(whole, "an image by digest is NAME@sha256: and 64 digits of 0-9 and a-f", got=repr(self.image))
        require(self.nodes >= 1 and self.procs >= 1, "nodes and procs must be at least 1", got=(self.nodes, self.procs))
        require(self.gpus in (0, self.procs), f"with GPUs there is one process each: set procs to {self.gpus}", got=self.procs)
        require(
            self.job.startswith(self.mount.rstrip("/") + "/"), f"pods see only {self.mount}: the job document must be below", got=self.job
        )

    @property
    def node_0(self) -> str:
        """The name under which pods find the first one (pod names of an Indexed Job, below its headless Service)."""
        if self.placement.kind in ("jobset", "trainjob"):
            return f"{self.name}-{NODE}-0-0.{self.name}"
        return f"{self.name}-0.{self.name}"

    @property
    def is_suspended(self) -> bool:
        """Whether it is made held back: a queue, or somebody else, starts it."""
        return self.suspend or bool(self.placement.queue)

    @property
    def is_image_pinned(self) -> bool:
        """See `is_by_digest`."""
        return is_by_digest(self.image)

    @property
    def command(self) -> list[str]:
        """What every pod runs. Kubernetes replaces $(JOB_COMPLETION_INDEX) by the pod's number."""
        return torchrun_command(
            self.job,
            nodes=self.nodes,
            procs=self.procs,
            rendezvous=Rendezvous(kind="static", address=self.node_0, port=self.port, node_rank="$(JOB_COMPLETION_INDEX)"),
            python=self.python,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The pod's variables, by name; `env` wins."""
        ours = {"GLOO_SOCKET_IFNAME": _POD_INTERFACE, "NCCL_SOCKET_IFNAME": _POD_INTERFACE, "PYTHONUNBUFFERED": "1"}
        if not self.gpus:
            ours["DS_ACCELERATOR"] = "cpu"
        return dict(sorted({**ours, **self.env}.items()))
