"""Kinds that a cluster has only where somebody installed them, for the small API server: JobSet, Kubeflow's TrainJob, Kueue's queues.

Their controllers do what ours rely on: a JobSet makes an Indexed Job of each of its jobs and ends with them, a TrainJob makes the JobSet of
its runtime. Suspending goes down from owner to owned. `admit` and `preempt` play Kueue. Schemas are published as a cluster does, so far as
anything here reads them. Where kubeflow-trainer-api is installed its models check what is created.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from components.adapters.job_kinds.fields import QUEUE_KINDS, check_queue_object
from model_core.spec.errors import SpecError
from tests.fake_kube import FakeKube, Refusal

JOB_SET, TRAINER, KUEUE = "jobset.x-k8s.io", "trainer.kubeflow.org", "kueue.x-k8s.io"
_OF_GROUP: Mapping[str, Mapping[str, str]] = {
    JOB_SET: {"jobsets": "JobSet"},
    TRAINER: {"trainjobs": "TrainJob", "trainingruntimes": "TrainingRuntime"},
    KUEUE: {
        "localqueues": "LocalQueue",
        "clusterqueues": "ClusterQueue",
        "resourceflavors": "ResourceFlavor",
        "topologies": "Topology",
        "workloadpriorityclasses": "WorkloadPriorityClass",
    },
}
_SUCCEEDED = {"jobsets": "Completed", "trainjobs": "Complete"}
_OWNED = {"jobsets": ("batch/v1", "jobs"), "trainjobs": (f"{JOB_SET}/v1alpha2", "jobsets")}


class FakeCluster(FakeKube):
    """The server, with kinds that are installed by name. forbidden: plurals that this account may not read."""

    def __init__(self, **installed: str) -> None:
        """installed: versions by the group's first word, such as kueue="v1beta2"."""
        super().__init__()
        self._served = {group: installed[group.split(".")[0]] for group in _OF_GROUP if group.split(".")[0] in installed}
        for group, version in self._served.items():
            self.kinds |= {(f"{group}/{version}", plural): kind for plural, kind in _OF_GROUP[group].items()}
        self.forbidden: set[str] = set()
        self.trainer_status: dict[str, Any] = {"conditions": {}, "trainerStatus": {}}

    def put(self, api: str, plural: str, body: dict[str, Any], namespace: str = "") -> None:
        """An object that somebody else made, with its status."""
        status = body.pop("status", {})
        self.create(api, plural, namespace, {"apiVersion": api, "kind": self.kinds[api, plural], **body})
        if status:
            self.patch(api, plural, namespace, body["metadata"]["name"], {"status": status})

    def admit(self, plural: str, name: str, namespace: str = "actwright") -> None:
        """Kueue has room for it."""
        self._suspend(plural, namespace, name, False)

    def preempt(self, plural: str, name: str, namespace: str = "actwright") -> None:
        """Kueue gives its room to a job of a higher priority."""
        self._suspend(plural, namespace, name, True)

    def discover(self, path: str) -> Any:
        found = re.fullmatch(r"/apis/([\w.-]+)", path)
        if found and found[1] in self._served:
            version = self._served[found[1]]
            return {"kind": "APIGroup", "name": found[1], "versions": [{"groupVersion": f"{found[1]}/{version}", "version": version}]}
        if path == f"/openapi/v3/apis/{TRAINER}/{self._served.get(TRAINER)}":
            status = {"type": "object", "properties": self.trainer_status}
            schema = {"type": "object", "properties": {"spec": {"type": "object"}, "status": status}}
            return {"components": {"schemas": {"org.kubeflow.trainer.v1alpha1.TrainJob": schema}}}
        if re.fullmatch(r"/api/v1/namespaces/[\w-]+", path):
            return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": path.rsplit("/", 1)[1]}}
        return super().discover(path)

    def may(self, plural: str) -> None:
        if plural in self.forbidden:
            raise Refusal(403, "Forbidden", f"{plural} is forbidden")

    def _get(self, api: str, plural: str, namespace: str, name: str) -> dict[str, Any]:
        self.may(plural)
        return super()._get(api, plural, namespace, name)

    def list(self, api: str, plural: str, namespace: str, selector: str) -> dict[str, Any]:
        self.may(plural)
        return super().list(api, plural, namespace, selector)

    def _suspend(self, plural: str, namespace: str, name: str, held: bool) -> None:
        api = next(api for api, known in self.kinds if known == plural)
        self.patch(api, plural, namespace, name, {"spec": {"suspend": held}})

    def _validate_installed(self, plural: str, body: dict[str, Any]) -> None:
        try:
            if body["kind"] in QUEUE_KINDS:
                check_queue_object(body)
        except SpecError as error:
            raise Refusal(422, "Invalid", str(error)) from error
        for lost in lost_by_models(body):
            raise Refusal(400, "BadRequest", f'strict decoding error: unknown field "{lost}"')

    def _control(self, plural: str, namespace: str, name: str) -> None:
        super()._control(plural, namespace, name)
        if plural == "jobsets":
            self._control_job_set(namespace, name)
        elif plural == "trainjobs":
            self._control_train_job(namespace, name)

    def _control_job_set(self, namespace: str, name: str) -> None:
        made = self._get(f"{JOB_SET}/v1alpha2", "jobsets", namespace, name)
        for replicated in made["spec"]["replicatedJobs"]:
            template = copy.deepcopy(replicated["template"])
            child = f"{name}-{replicated['name']}-0"
            template["spec"]["suspend"] = made["spec"].get("suspend", False)
            template["spec"]["template"]["spec"]["subdomain"] = made["spec"]["network"]["subdomain"]
            self._owned_by(
                made, "jobs", namespace, {"kind": "Job", "metadata": {"name": child, **template["metadata"]}, "spec": template["spec"]}
            )

    def _control_train_job(self, namespace: str, name: str) -> None:
        made = self._get(f"{TRAINER}/v1alpha1", "trainjobs", namespace, name)
        runtime = self._get(f"{TRAINER}/v1alpha1", "trainingruntimes", namespace, made["spec"]["runtimeRef"]["name"])
        spec = copy.deepcopy(runtime["spec"]["template"]["spec"])
        for replicated in spec["replicatedJobs"]:
            replicated["template"]["spec"] |= dict.fromkeys(("completions", "parallelism"), made["spec"]["trainer"]["numNodes"])
        spec["suspend"] = made["spec"].get("suspend", False)
        self._owned_by(made, "jobsets", namespace, {"kind": "JobSet", "metadata": {"name": name}, "spec": spec})

    def _owned_by(self, owner: dict[str, Any], plural: str, namespace: str, body: dict[str, Any]) -> None:
        api = next(api for api, known in self.kinds if known == plural)
        name, identity = body["metadata"]["name"], owner["metadata"]
        if (api, plural, namespace, name) in self._objects:
            if self._get(api, plural, namespace, name)["spec"].get("suspend", False) != body["spec"]["suspend"]:
                self.patch(api, plural, namespace, name, {"spec": {"suspend": body["spec"]["suspend"]}})
            return
        reference = {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": identity["name"],
            "uid": identity["uid"],
            "controller": True,
        }
        body["metadata"]["ownerReferences"] = [reference]
        self.create(api, plural, namespace, {"apiVersion": api, **body})

    def _job_changed(self, namespace: str, job: dict[str, Any]) -> None:
        self._tell_owner("jobs", namespace, job)

    def _tell_owner(self, plural: str, namespace: str, owned: dict[str, Any]) -> None:
        """The owner ends as what it owns does."""
        kinds = [above for above, (_, below) in _OWNED.items() if below == plural]
        for reference in owned["metadata"].get("ownerReferences", []):
            above = kinds[0]
            api = next(api for api, known in self.kinds if known == above)
            owner = self._get(api, above, namespace, reference["name"])
            ends = {"Complete": _SUCCEEDED[above], "Completed": _SUCCEEDED[above], "Failed": "Failed"}
            owner["status"]["conditions"] = [
                {**one, "type": ends[one["type"]]} for one in owned["status"].get("conditions", []) if one["type"] in ends
            ]
            self._store(api, above, namespace, owner, "MODIFIED")
            self._tell_owner(above, namespace, owner)


def lost_by_models(document: Mapping[str, Any]) -> list[str]:
    """Fields that the models of kubeflow-trainer-api do not know, of its kinds; [] where it is not installed."""
    try:
        from kubeflow_trainer_api import models
    except ImportError:
        return []
    names = {"TrainJob": "TrainerV1alpha1TrainJob", "TrainingRuntime": "TrainerV1alpha1TrainingRuntime", "JobSet": "JobsetV1alpha2JobSet"}
    if document["kind"] not in names:
        return []
    return list(_lost("", document, getattr(models, names[document["kind"]]).from_dict(dict(document)).to_dict()))


def _lost(path: str, ours: Any, read: Any):
    if isinstance(ours, Mapping):
        for name, value in ours.items():
            if not isinstance(read, Mapping) or name not in read:
                yield f"{path}.{name}".lstrip(".")
            else:
                yield from _lost(f"{path}.{name}", value, read[name])
    elif isinstance(ours, list):
        for number, value in enumerate(ours):
            yield from _lost(f"{path}[{number}]", value, read[number])
