"""Groups, versions and conditions of the kinds of objects that run a job: a Job, a JobSet, a TrainJob of Kubeflow's Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind. succeeded, failed: its conditions that mean so. has_service: its pods are named by a Service of our own."""

    group: str
    version: str
    plural: str
    name: str
    succeeded: str
    failed: tuple[str, ...] = ("Failed",)

    @property
    def api(self) -> str:
        """As manifests name it."""
        return f"{self.group}/{self.version}"


JOB = Kind(group="batch", version="v1", plural="jobs", name="Job", succeeded="Complete", failed=("Failed", "FailureTarget"))
JOB_SET = Kind(group="jobset.x-k8s.io", version="v1alpha2", plural="jobsets", name="JobSet", succeeded="Completed")
TRAIN_JOB = Kind(group="trainer.kubeflow.org", version="v1alpha1", plural="trainjobs", name="TrainJob", succeeded="Complete")
RUNTIME = Kind(group="trainer.kubeflow.org", version="v1alpha1", plural="trainingruntimes", name="TrainingRuntime", succeeded="")
KINDS: Mapping[str, Kind] = {"job": JOB, "jobset": JOB_SET, "trainjob": TRAIN_JOB}


class JobObjects:
    """Objects of these kinds in one cluster, as plain documents. batch, custom: the client's `BatchV1Api` and `CustomObjectsApi`."""

    def __init__(self, batch: Any, custom: Any) -> None:
        self._batch, self._custom = batch, custom

    def create(self, kind: Kind, namespace: str, document: Mapping[str, Any]) -> str:
        """Make it; returns its uid. A Job goes through the client's own types, which refuse what a cluster would drop."""
        if kind == JOB:
            return self._batch.create_namespaced_job(namespace, document).metadata.uid
        return self._custom.create_namespaced_custom_object(kind.group, kind.version, namespace, kind.plural, document)["metadata"]["uid"]

    def read(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        """The object as it is."""
        return self._custom.get_namespaced_custom_object(kind.group, kind.version, namespace, kind.plural, name)

    def own(self, kind: Kind, namespace: str, name: str, owner: Mapping[str, Any]) -> None:
        """Let it go with `owner`."""
        change = {"metadata": {"ownerReferences": [owner]}}
        self._custom.patch_namespaced_custom_object(kind.group, kind.version, namespace, kind.plural, name, change)

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete it with all that it owns: without the policy the pods of a Job stay."""
        self._custom.delete_namespaced_custom_object(
            kind.group, kind.version, namespace, kind.plural, name, propagation_policy="Foreground"
        )

    def watch(self, stream: Any, kind: Kind, namespace: str, selector: str, seconds: int) -> None:
        """Return at the first change after now, or after `seconds`. stream: a `Watch` of the client."""
        place = (kind.group, kind.version, namespace, kind.plural)
        version = self._custom.list_namespaced_custom_object(*place, label_selector=selector)["metadata"]["resourceVersion"]
        found = stream.stream(
            self._custom.list_namespaced_custom_object,
            *place,
            label_selector=selector,
            resource_version=version,
            timeout_seconds=seconds,
            _request_timeout=(5, seconds + 5),
        )
        for _ in found:
            stream.stop()
