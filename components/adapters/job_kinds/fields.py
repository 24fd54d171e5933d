"""Which fields the kinds of Kueue have: strict, because an API server drops a misspelt field without a word.

Source: kubernetes-sigs/kueue, apis/kueue/v1beta2: clusterqueue_types.go (013c8f252cf1f4fa555e2fbfc6b3ef10846f4cdd),
localqueue_types.go (02bc146f48b74052ca278517a12e92b1a2ca4c16), resourceflavor_types.go (2fff9dfc9f18c1512327980fcee5cf8524d2d72c),
topology_types.go (046d2efa6fa34ff6f967530579f1883dddcc5407), workloadpriorityclass_types.go (1dd2a624ae61d49217794211de853a403f47ee42).
JobSet and TrainJob have no table: the models of kubeflow-trainer-api check them in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.adapters.job_kinds.needs import KUEUE, KUEUE_VERSION
from model_core.spec.errors import SpecError, require

# name -> kind of its value: a Python type, a table of fields, or a list of one of them
_QUOTA: Mapping[str, Any] = {"name": str, "nominalQuota": (str, int), "borrowingLimit": (str, int), "lendingLimit": (str, int)}
_GROUP: Mapping[str, Any] = {"coveredResources": [str], "flavors": [{"name": str, "resources": [_QUOTA]}]}
_PREEMPTION: Mapping[str, Any] = {"reclaimWithinCohort": str, "borrowWithinCohort": dict, "withinClusterQueue": str}
_SPECS: Mapping[str, Mapping[str, Any]] = {
    "ClusterQueue": {
        "resourceGroups": [_GROUP],
        "cohortName": str,
        "queueingStrategy": str,
        "namespaceSelector": dict,
        "flavorFungibility": dict,
        "preemption": _PREEMPTION,
        "admissionChecksStrategy": dict,
        "stopPolicy": str,
        "fairSharing": dict,
        "admissionScope": dict,
        "concurrentAdmissionPolicy": dict,
    },
    "LocalQueue": {"clusterQueue": str, "stopPolicy": str, "fairSharing": dict, "wallTimePolicy": dict},
    "ResourceFlavor": {"nodeLabels": dict, "nodeTaints": [dict], "tolerations": [dict], "topologyName": str, "resourceWeights": dict},
    "Topology": {"levels": [{"nodeLabel": str}]},
}
QUEUE_KINDS = (*_SPECS, "WorkloadPriorityClass")


def check_queue_object(document: Mapping[str, Any]) -> None:
    """Raise `SpecError` for a field that is unknown or of another kind, and for rules of Kueue that its schemas state."""
    kind = str(document.get("kind"))
    require(kind in QUEUE_KINDS, f"expected one of {', '.join(QUEUE_KINDS)}", got=kind)
    api = f"{KUEUE}/{KUEUE_VERSION}"
    require(document.get("apiVersion") == api, f"{kind}: Kueue 0.20 serves only {api}", got=document.get("apiVersion"))
    top: dict[str, Any] = {"apiVersion": str, "kind": str, "metadata": dict}
    top |= {"value": int, "description": str} if kind == "WorkloadPriorityClass" else {"spec": _SPECS[kind], "status": dict}
    _walk(kind, "", document, top)
    spec = document.get("spec", {})
    for group in spec.get("resourceGroups", []):
        for flavor in group["flavors"]:
            names = [resource["name"] for resource in flavor["resources"]]
            told = f"{kind}: flavor {flavor['name']} must list the resources of coveredResources, in their order"
            require(names == group["coveredResources"], told, got=names)
    if kind == "ResourceFlavor" and spec.get("topologyName"):
        require(bool(spec.get("nodeLabels")), "ResourceFlavor: one with a topologyName needs at least one of nodeLabels", got="none")
    levels = [level["nodeLabel"] for level in spec.get("levels", [])]
    is_last = "kubernetes.io/hostname" not in levels[:-1]
    require(is_last, "Topology: kubernetes.io/hostname can only be the last level", got=levels)


def _walk(kind: str, path: str, node: Any, table: Any) -> None:
    if isinstance(table, Mapping):
        require(isinstance(node, Mapping), f"{kind} {path}: expected a mapping", got=type(node).__name__)
        for name, value in node.items():
            place = f"{path}.{name}".lstrip(".")
            if name not in table:
                raise SpecError(f"{kind} has no field {place}; at {path or 'the top'} there are {', '.join(table)}")
            _walk(kind, place, value, table[name])
    elif isinstance(table, list):
        require(isinstance(node, list), f"{kind} {path}: expected a list", got=type(node).__name__)
        for number, value in enumerate(node):
            _walk(kind, f"{path}[{number}]", value, table[0])
    else:
        require(isinstance(node, table), f"{kind} {path}: expected another kind of value", got=type(node).__name__)
