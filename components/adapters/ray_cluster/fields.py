"""Which fields a RayJob has, and what we hold it to: strict, because the API server drops a misspelt field without a word.

Source: KubeRay, ray-operator/apis/ray/v1/rayjob_types.go (f6ef3f7b32639dc6555797512d7cb784bd436901) and raycluster_types.go
(3275ee09f6a6c899c37e82ea6349785536de6bd4); what Kueue refuses: its rayjob_webhook.go. Pod templates are core kinds, which
kubernetes-validate checks in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_core.spec.errors import SpecError, require

POD_TEMPLATE = "pod template"  # a core kind, checked by its own schema
# name -> kind of its value: a Python type, a table of fields, a list of one table, or POD_TEMPLATE
_HEAD: Mapping[str, Any] = {
    "template": POD_TEMPLATE,
    "rayStartParams": dict,
    "headService": dict,
    "enableIngress": bool,
    "serviceType": str,
}
_WORKERS: Mapping[str, Any] = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "idleTimeoutSeconds": int,
    "rayStartParams": dict,
    "template": POD_TEMPLATE,
    "scaleStrategy": dict,
    "numOfHosts": int,
}
_CLUSTER: Mapping[str, Any] = {
    "rayVersion": str,
    "headGroupSpec": _HEAD,
    "workerGroupSpecs": [_WORKERS],
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": dict,
    "headServiceAnnotations": dict,
    "gcsFaultToleranceOptions": dict,
    "managedBy": str,
    "suspend": bool,
}
_JOB: Mapping[str, Any] = {
    "entrypoint": str,
    "entrypointNumCpus": float,
    "entrypointNumGpus": float,
    "entrypointResources": str,
    "runtimeEnvYAML": str,
    "metadata": dict,
    "jobId": str,
    "submissionMode": str,
    "submitterConfig": {"backoffLimit": int},
    "submitterPodTemplate": POD_TEMPLATE,
    "rayClusterSpec": _CLUSTER,
    "clusterSelector": dict,
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "ttlSecondsAfterFinished": int,
    "shutdownAfterJobFinishes": bool,
    "suspend": bool,
    "managedBy": str,
    "deletionPolicy": str,
}
_TOP: Mapping[str, Any] = {"apiVersion": str, "kind": str, "metadata": dict, "spec": _JOB}
_NEEDED = (
    "spec.entrypoint",
    "spec.rayClusterSpec.headGroupSpec.rayStartParams",
    "spec.rayClusterSpec.headGroupSpec.template",
    "spec.rayClusterSpec.workerGroupSpecs",
)
_WORKER_NEEDS = ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template")
MOST_WORKER_GROUPS = 7  # Kueue admits a RayJob of at most eight pod sets: the head and these


def check_ray_job(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The pod templates in a RayJob. Raises `SpecError` for a field that is unknown, missing, of another kind, or refused by Kueue."""
    kind = (document.get("apiVersion"), document.get("kind"))
    require(kind == ("ray.io/v1", "RayJob"), "expected a RayJob of ray.io/v1", got=kind)
    templates: list[Mapping[str, Any]] = []
    _walk("", document, _TOP, templates)
    for path in _NEEDED:
        _at(document, path)
    spec = document["spec"]
    groups = spec["rayClusterSpec"]["workerGroupSpecs"]
    for group in groups:
        missing = [name for name in _WORKER_NEEDS if name not in group]
        require(not missing, f"RayJob spec.rayClusterSpec.workerGroupSpecs: {missing[:1]} is missing", got=group.get("groupName"))
    require(spec.get("shutdownAfterJobFinishes") is True, "RayJob spec.shutdownAfterJobFinishes must be true: else its machines stay taken")
    require("clusterSelector" not in spec, "RayJob spec.clusterSelector is refused by Kueue: the job brings its own cluster")
    require(len(groups) <= MOST_WORKER_GROUPS, f"Kueue admits at most {MOST_WORKER_GROUPS} worker groups", got=len(groups))
    autoscaled = spec["rayClusterSpec"].get("enableInTreeAutoscaling", False)
    require(not autoscaled, "RayJob enableInTreeAutoscaling is refused by Kueue, which admits a job as a whole")
    return templates


def _walk(path: str, node: Any, table: Any, templates: list[Mapping[str, Any]]) -> None:
    if table is POD_TEMPLATE:
        require(isinstance(node, Mapping), f"RayJob {path}: expected a pod template", got=type(node).__name__)
        templates.append(node)
    elif isinstance(table, Mapping):
        require(isinstance(node, Mapping), f"RayJob {path}: expected a mapping", got=type(node).__name__)
        for name, value in node.items():
            place = f"{path}.{name}".lstrip(".")
            if name not in table:
                raise SpecError(f"RayJob has no field {place}; at {path or 'the top'} there are {', '.join(table)}")
            _walk(place, value, table[name], templates)
    elif isinstance(table, list):
        require(isinstance(node, list), f"RayJob {path}: expected a list", got=type(node).__name__)
        for number, value in enumerate(node):
            _walk(f"{path}[{number}]", value, table[0], templates)
    else:
        fits = isinstance(node, table) and not (table is int and isinstance(node, bool))
        require(fits, f"RayJob {path}: expected {table.__name__}", got=type(node).__name__)


def _at(document: Mapping[str, Any], path: str) -> None:
    node: Any = document
    for name in path.split("."):
        require(isinstance(node, Mapping) and name in node, f"RayJob {path} is missing")
        node = node[name]
