"""A rendered Job as a JobSet or a TrainJob, with the queue, network devices and topology that its placement asks for. Pure.

All kinds run the same pods with the same torchrun line: an Indexed Job is inside each of them. Field sources: `fields.py` beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from components.adapters.job_kinds.kinds import JOB_SET, RUNTIME, TRAIN_JOB
from components.config.launch.cluster_job import NODE, JobSpec

QUEUE_LABEL, PRIORITY_LABEL = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
REQUIRED_TOPOLOGY, PREFERRED_TOPOLOGY = "kueue.x-k8s.io/podset-required-topology", "kueue.x-k8s.io/podset-preferred-topology"
# by it the Trainer knows which of a runtime's jobs trains
_STEP_LABEL = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}


def placed(spec: JobSpec, job: Mapping[str, Any], *services: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The documents to create, in order; the object that runs the job is the first but for a TrainJob, whose runtime comes before it."""
    job = copy.deepcopy(dict(job))
    _place_pods(spec, job["spec"]["template"])
    labels = {QUEUE_LABEL: spec.placement.queue, PRIORITY_LABEL: spec.placement.priority}
    job["metadata"]["labels"] = {**job["metadata"]["labels"], **{name: value for name, value in labels.items() if value}}
    if spec.placement.kind == "jobset":
        return [_job_set(spec, job)]
    if spec.placement.kind == "trainjob":
        return _train_job(spec, job)
    return [job, *map(dict, services)]


def _place_pods(spec: JobSpec, template: dict[str, Any]) -> None:
    placement = spec.placement
    if placement.topology:
        name = PREFERRED_TOPOLOGY if placement.topology_preferred else REQUIRED_TOPOLOGY
        template["metadata"]["annotations"] = {name: placement.topology}
    if placement.rdma:
        resources = template["spec"]["containers"][0]["resources"]
        for part in ("requests", "limits"):
            resources[part][placement.rdma_resource] = str(placement.rdma)


def _job_set(spec: JobSpec, job: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": JOB_SET.api, "kind": JOB_SET.name, "metadata": job["metadata"], "spec": _job_set_spec(spec, job, {})}


def _job_set_spec(spec: JobSpec, job: Mapping[str, Any], step_labels: Mapping[str, str]) -> dict[str, Any]:
    inner = {name: value for name, value in job["spec"].items() if name not in ("suspend", "ttlSecondsAfterFinished")}
    del inner["template"]["spec"]["subdomain"]  # a JobSet names its pods itself
    whole = {name: job["spec"][name] for name in ("suspend", "ttlSecondsAfterFinished") if name in job["spec"]}
    labels = {**job["spec"]["template"]["metadata"]["labels"], **step_labels}
    return {
        **whole,
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True, "subdomain": spec.name},
        # as with a Job, nothing restarts in place: a new attempt goes on from the last whole checkpoint
        "failurePolicy": {"maxRestarts": 0},
        "successPolicy": {"operator": "All"},
        "replicatedJobs": [{"name": NODE, "replicas": 1, "template": {"metadata": {"labels": labels}, "spec": inner}}],
    }


def _train_job(spec: JobSpec, job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A TrainJob and the runtime that says what its pods are: our torchrun line needs none of the Trainer's own."""
    inner = _job_set_spec(spec, job, _STEP_LABEL)
    inner.pop("suspend", None)
    inner["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["name"] = NODE
    plain = {**job["metadata"], "labels": {k: v for k, v in job["metadata"]["labels"].items() if not k.startswith("kueue.")}}
    runtime = {
        "apiVersion": RUNTIME.api,
        "kind": RUNTIME.name,
        "metadata": plain,
        "spec": {"mlPolicy": {"numNodes": spec.nodes}, "template": {"spec": inner}},
    }
    asked: dict[str, Any] = {
        "runtimeRef": {"apiGroup": RUNTIME.group, "kind": RUNTIME.name, "name": spec.name},
        "trainer": {"numNodes": spec.nodes},
        "activeDeadlineSeconds": spec.deadline_s,
    }
    if spec.is_suspended:
        asked["suspend"] = True
    return [runtime, {"apiVersion": TRAIN_JOB.api, "kind": TRAIN_JOB.name, "metadata": job["metadata"], "spec": asked}]
