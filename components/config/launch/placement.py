"""As which kind of object a job of a cluster is submitted, what it waits for, and what its machines must have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from model_core.spec.errors import require

JobKind = Literal["auto", "job", "jobset", "trainjob"]
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_QUALIFIED = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a job runs and what it waits for.

    kind: "job" (an Indexed Job), "jobset" (JobSet), "trainjob" (Kubeflow Trainer); "auto": the last of these that the cluster serves.
    queue: LocalQueue of Kueue that admits it (""; none). priority: WorkloadPriorityClass, by which Kueue orders and preempts.
    rdma: network devices a machine, of the name rdma_resource that the cluster's device plugin gave them. topology: node label, such as
    that of a rack, of which all machines must have one value; topology_preferred: they need not, where no place has room for all.
    """

    kind: JobKind = "auto"
    queue: str = ""
    priority: str = ""
    rdma: int = 0
    rdma_resource: str = "rdma/rdma_shared_device_a"
    topology: str = ""
    topology_preferred: bool = False

    def __post_init__(self) -> None:
        for what, name in (("queue", self.queue), ("priority", self.priority)):
            require(not name or _NAME.fullmatch(name) is not None, f"placement.{what} is no name of a Kubernetes object", got=repr(name))
        for what, name in (("topology", self.topology), ("rdma_resource", self.rdma_resource)):
            fits = not name or _QUALIFIED.fullmatch(name) is not None
            require(fits, f"placement.{what} must be a qualified name, such as example.com/rack", got=repr(name))
        require(0 <= self.rdma <= 64, "placement.rdma is a number of devices a machine, 0 to 64", got=self.rdma)
        require(not self.rdma or bool(self.rdma_resource), "placement.rdma needs rdma_resource: the name that the device plugin gave")
        needs_queue = self.priority or self.topology
        told = "priority and topology are read by Kueue alone. Fix: name the queue too (--queue)"
        require(not needs_queue or bool(self.queue), told, got=needs_queue)
        require(not self.topology_preferred or bool(self.topology), "placement.topology_preferred needs topology")

    @property
    def is_default(self) -> bool:
        """Whether a job of this placement is what it was before there were others: its digest has nothing of it."""
        return self in (Placement(), Placement(kind="job"))
