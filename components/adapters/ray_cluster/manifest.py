"""What a labelling on a Ray cluster looks like to Kubernetes: a RayJob of KubeRay, which Kueue queues, and its NetworkPolicy. Pure."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any

from components.adapters.kubernetes_manifest import fill_template
from components.adapters.ray_cluster.fields import check_ray_job
from components.config.paths import INFRA
from model_core.spec.documents import to_document
from model_core.spec.errors import require
from model_core.spec.settings import whole

TEMPLATE = INFRA / "k8s" / "ray-labelling.yaml"
RAY_VERSION = "2.60.0"  # of the extra `ray`, and of the image


@dataclass(frozen=True, slots=True, kw_only=True)
class RayPods:
    """One labelling on a cluster of its own, which ends with it.

    recipe: name or file of the recipe, as the pods see it. changes: of its fields, as --set takes them. workers: machines beside the head,
    each of cpus CPUs and gpus GPUs. queue: the LocalQueue of Kueue ("": none). token_secret: Secret whose key "token" is the cluster's.
    """

    recipe: str = "loop"
    name: str = "label-loop"
    namespace: str = "actwright"
    image: str = "actwright-ray:0.1.0"
    workers: int = 2
    cpus: int = 8
    gpus: int = 0
    memory: str = "16Gi"
    shared_memory: str = "4Gi"
    queue: str = ""
    claim: str = "actwright-store"
    mount: str = "/workspace"
    token_secret: str = "actwright-ray-token"
    deadline_s: int = 7 * 24 * 3600
    retries: int = 3
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fits = re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", self.name) is not None
        require(fits, "a RayJob's name is 1..40 of a-z, 0-9 and '-', begins with a letter and ends with no '-'", got=repr(self.name))
        whole("workers", self.workers, low=1, high=1000)
        whole("cpus", self.cpus, low=2, high=1000)
        whole("gpus", self.gpus, low=0, high=64)

    @property
    def actors(self) -> int:
        """Processes with the model: one a GPU, or half of the CPUs; never so many that none is left to read and decode."""
        return self.workers * (min(self.gpus, self.cpus - 1) or max(1, self.cpus // 2))

    @property
    def entrypoint(self) -> str:
        """What the head runs: the data stages until labels, on the cluster that it belongs to."""
        ray = (
            "annotate.ray.address=auto",
            f"annotate.ray.actors={self.actors}",
            f"annotate.ray.gpus_per_actor={1.0 if self.gpus else 0.0}",
        )
        words = ["actwright", "cluster", "label", self.recipe]
        return shlex.join([*words, *(word for change in (*ray, *self.changes) for word in ("--set", change))])


def render_labelling(pods: RayPods) -> list[dict[str, Any]]:
    """NetworkPolicy and RayJob, from infra/k8s/ray-labelling.yaml. Raises `SpecError` for what KubeRay or Kueue would refuse or drop."""
    values = {**to_document(pods), "entrypoint": pods.entrypoint, "ray_version": RAY_VERSION}
    values |= {"gpus": str(pods.gpus) if pods.gpus else None, "cpus": str(pods.cpus), "suspend": True if pods.queue else None}
    values |= {"queue": pods.queue or None, "workers_label": f"{pods.name}-workers"}
    documents = fill_template(TEMPLATE.read_text(encoding="utf-8"), values)
    for document in documents:
        if document["kind"] == "RayJob":
            check_ray_job(document)
    return documents


def labelling_yaml(pods: RayPods) -> str:
    """The same as one YAML text, for `kubectl apply -f -`."""
    import yaml

    return "---\n".join(yaml.safe_dump(document, sort_keys=False, width=140) for document in render_labelling(pods))
