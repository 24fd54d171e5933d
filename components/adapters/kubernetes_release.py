"""What the policy service of one release looks like to Kubernetes: a Deployment, its Service, autoscaler and disruption budget. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from components.adapters.kubernetes_manifest import fill_template
from components.config.paths import INFRA
from model_core.spec.documents import to_document
from model_core.spec.errors import require
from model_core.spec.settings import whole

TEMPLATE = INFRA / "k8s" / "policy-release.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePods:
    """One release on a cluster. digest: of the release. cache_claim: a volume of the node's own where releases are kept.

    replicas, most_replicas: between these the autoscaler chooses, by requests that wait and requests a second that cells have reserved
    (`reserved_per_pod`: what one pod is to promise). memory, memory_limit: of one pod, as Kubernetes writes them.
    """

    digest: str
    namespace: str = "actwright"
    worker_image: str = "actwright-worker:0.1.0"
    serve_image: str = "actwright-serve:0.1.0"
    storage: str = "s3://object-store:8333"
    bucket: str = "actwright"
    cache_claim: str = "actwright-node-cache"
    replicas: int = 1
    most_replicas: int = 8
    reserved_per_pod: str = "20"
    memory: str = "4Gi"
    memory_limit: str = "8Gi"

    def __post_init__(self) -> None:
        digits = re.fullmatch(r"[0-9a-f]{64}", self.digest)
        require(digits is not None, "digest: expected the 64 hex digits of a release (`actwright fleet release show`)", got=self.digest)
        whole("replicas", self.replicas, low=1, high=1000)
        whole("most_replicas", self.most_replicas, low=self.replicas, high=1000)

    @property
    def name(self) -> str:
        """Of all its objects; no two releases of a cluster have the same first 16 digits."""
        return f"policy-{self.digest[:16]}"


def render_release(pods: ReleasePods) -> list[dict[str, Any]]:
    """The objects, from infra/k8s/policy-release.yaml. Raises `SpecError` for a placeholder without a value."""
    return fill_template(TEMPLATE.read_text(encoding="utf-8"), {**to_document(pods), "short": pods.digest[:16]})


def release_yaml(pods: ReleasePods) -> str:
    """The same as one YAML text, for `kubectl apply -f -`."""
    import yaml

    return "---\n".join(yaml.safe_dump(document, sort_keys=False, width=140) for document in render_release(pods))
