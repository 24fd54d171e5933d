"""What a cluster lacks for a job: kinds that are missing or too old, its queue and priority, machines, claim, accounts, secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.adapters.job_kinds.kinds import JOB_SET, KINDS, TRAIN_JOB
from components.adapters.job_kinds.offer import Answer, Get, is_trainer_new, quantity, served
from components.config.launch.cluster_job import TAG_RISK, JobSpec, how_to_pin
from model_core.spec.errors import JobError

KUEUE, KUEUE_VERSION = "kueue.x-k8s.io", "v1beta2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """One thing that is not as a job needs it. certain: not what this account may not see, nor what a cluster may add by itself."""

    what: str
    found: str
    fix: str
    certain: bool = True

    def line(self) -> str:
        """For a person."""
        return f"{'lacks' if self.certain else 'may lack'} {self.what}: {self.found}. Fix: {self.fix}"


def lacks_of(get: Get, spec: JobSpec) -> list[Lack]:
    """All that the cluster lacks for `spec`, most certain first."""
    found = [*_kind(get, spec), *_queue(get, spec), *_namespace(get, spec), *_machines(get, spec), *image_lacks(spec)]
    return sorted(found, key=lambda lack: not lack.certain)


def require_all(lacks: Sequence[Lack]) -> None:
    """Raise `JobError` with everything that is certainly lacking, so that it can be put right in one go."""
    certain = [lack.line() for lack in lacks if lack.certain]
    if certain:
        raise JobError("this cluster cannot run the job, nothing was submitted:\n  it " + "\n  it ".join(certain))


def unseen(what: str, answer: Answer) -> Lack:
    """For a place that could not be read."""
    return Lack(
        what=what, found=f"the cluster answered {answer.status} to a look at it", fix="look with an account that may read it", certain=False
    )


def _kind(get: Get, spec: JobSpec) -> Iterator[Lack]:
    kind = KINDS.get(spec.placement.kind)
    for one, program in ((TRAIN_JOB, "Kubeflow Trainer 2.2 or newer"), (JOB_SET, "JobSet")):
        if kind not in (one, TRAIN_JOB):
            continue
        versions = served(get, one.group)
        if one.version not in versions:
            found = f"it serves {', '.join(versions)}" if versions else "it is not installed"
            yield Lack(what=f"{one.name} of {one.api}", found=found, fix=f"install {program}, or take --kind job")
        elif one == TRAIN_JOB and not is_trainer_new(get):
            found = "its TrainJob has no status.trainerStatus, so it is older than 2.2, and a job that Kueue admitted would not start"
            yield Lack(what="a Trainer that is new enough", found=found, fix="upgrade Kubeflow Trainer to 2.2 or newer, or take --kind job")


def _queue(get: Get, spec: JobSpec) -> Iterator[Lack]:
    name, base = spec.placement.queue, f"/apis/{KUEUE}/{KUEUE_VERSION}"
    if not name:
        return
    versions = served(get, KUEUE)
    if KUEUE_VERSION not in versions:
        found = f"it serves only {', '.join(versions)}" if versions else "Kueue is not installed"
        yield Lack(what=f"queues of {KUEUE}/{KUEUE_VERSION}", found=found, fix="install Kueue 0.20 or newer, or leave --queue out")
        return
    queue, there = get(f"{base}/namespaces/{spec.namespace}/localqueues/{name}"), f"in namespace {spec.namespace}"
    if queue.status == 404:
        yield Lack(what=f"LocalQueue {name}", found=f"there is none {there}", fix="name one of `kubectl get localqueues`, or make it")
    elif not queue.is_there:
        yield unseen(f"LocalQueue {name}", queue)
    else:
        yield from _inactive(f"LocalQueue {name}", queue.document)
        yield from _cluster_queue(get, spec, base, str(queue.document["spec"].get("clusterQueue", "")))
    if spec.placement.priority:
        answer = get(f"{base}/workloadpriorityclasses/{spec.placement.priority}")
        what = f"WorkloadPriorityClass {spec.placement.priority}"
        if answer.status == 404:
            yield Lack(what=what, found="there is none", fix="name one of `kubectl get workloadpriorityclasses`, or make it")
        elif not answer.is_there:
            yield unseen(what, answer)


def _cluster_queue(get: Get, spec: JobSpec, base: str, name: str) -> Iterator[Lack]:
    answer, what = get(f"{base}/clusterqueues/{name}"), f"ClusterQueue {name}"
    if not answer.is_there:
        yield unseen(what, answer)
        return
    yield from _inactive(what, answer.document)
    given = answer.document["spec"]
    quota: dict[str, float] = {}
    flavors: list[str] = []
    for group in given.get("resourceGroups", []):
        for flavor in group["flavors"]:
            flavors.append(flavor["name"])
            for resource in flavor["resources"]:
                quota[resource["name"]] = quota.get(resource["name"], 0.0) + quantity(resource["nominalQuota"])
    for resource, amount in _asked(spec).items():
        whole = amount * spec.nodes
        if resource not in quota:
            yield Lack(what=f"{resource} in {what}", found="it covers no such resource and never admits the job", fix=f"add it to {what}")
        elif quota[resource] < whole and not given.get("cohortName"):
            found = f"its quota is {quota[resource]:g} and the job needs {whole:g}, so it never admits the job"
            yield Lack(what=f"enough {resource} in {what}", found=found, fix="raise the quota, or take fewer or smaller machines")
    if spec.placement.topology:
        yield from _topology(get, spec.placement.topology, base, flavors)


def _topology(get: Get, label: str, base: str, flavors: Sequence[str]) -> Iterator[Lack]:
    levels: set[str] = set()
    for flavor in flavors:
        answer = get(f"{base}/resourceflavors/{flavor}")
        if not answer.is_there:
            yield unseen(f"ResourceFlavor {flavor}", answer)
            return
        topology = answer.document["spec"].get("topologyName")
        found = get(f"{base}/topologies/{topology}") if topology else None
        if found is not None and found.is_there:
            levels |= {level["nodeLabel"] for level in found.document["spec"]["levels"]}
    if label not in levels:
        told = f"its levels are {', '.join(sorted(levels))}" if levels else "none of the queue's flavors has a topology"
        yield Lack(what=f"topology level {label}", found=told, fix="name such a level, or give the flavor a Topology (infra/k8s/README.md)")


def _inactive(what: str, document: Mapping[str, Any]) -> Iterator[Lack]:
    for condition in document.get("status", {}).get("conditions", []):
        if condition["type"] == "Active" and condition["status"] != "True":
            found = f"{condition.get('reason', '')}: {condition.get('message', '')}"
            yield Lack(what=f"an active {what}", found=found, fix=f"put right what it names (`kubectl describe {what.split()[0].lower()}`)")


def _namespace(get: Get, spec: JobSpec) -> Iterator[Lack]:
    base = f"/api/v1/namespaces/{spec.namespace}"
    claims = [(spec.claim, spec.nodes > 1)]
    if spec.data and spec.data.cache_claim:
        claims.append((spec.data.cache_claim, False))
    for name, is_shared in claims:
        answer, what = get(f"{base}/persistentvolumeclaims/{name}"), f"claim {name} in namespace {spec.namespace}"
        if answer.status == 404:
            yield Lack(what=what, found="there is none", fix="apply an overlay of infra/k8s, or name another with --claim")
        elif not answer.is_there:
            yield unseen(what, answer)
        elif is_shared and "ReadWriteMany" not in (modes := answer.document["spec"]["accessModes"]):
            told = f"its modes are {', '.join(modes)}, and {spec.nodes} machines mount it"
            yield Lack(what=f"ReadWriteMany of {what}", found=told, fix="make it with a storage class that can (infra/k8s/README.md)")
    answer = get(f"{base}/serviceaccounts/{spec.service_account}")
    if answer.status == 404:
        yield Lack(what=f"service account {spec.service_account}", found="there is none", fix="apply an overlay of infra/k8s")
    if spec.data:
        yield from secret_lacks(get, spec.namespace, "actwright-s3", ("access-key", "secret-key"))


def secret_lacks(get: Get, namespace: str, name: str, keys: Sequence[str]) -> Iterator[Lack]:
    """What of a secret is missing; its values are not looked at."""
    answer, what = get(f"/api/v1/namespaces/{namespace}/secrets/{name}"), f"secret {name} in namespace {namespace}"
    fix = "make it (infra/k8s/README.md, `Before the first apply`)"
    if answer.status == 404:
        yield Lack(what=what, found="there is none", fix=fix)
    elif not answer.is_there:
        yield unseen(what, answer)
    else:
        known = answer.document.get("data", {})
        if missing := [key for key in keys if key not in known]:
            yield Lack(what=f"{', '.join(missing)} in {what}", found=f"it has {', '.join(known) or 'no key'}", fix=fix)


def image_lacks(spec: JobSpec) -> list[Lack]:
    """Of an image that is named by a tag: its digest, which the job needs where the tag was not allowed."""
    if spec.is_image_pinned:
        return []
    told = f"it {TAG_RISK}"
    what = f"a digest of the job's image {spec.image}"
    return [Lack(what=what, found=told, fix=how_to_pin(spec.image), certain=not spec.allow_tag)]


def _asked(spec: JobSpec) -> dict[str, float]:
    """What one machine of the job asks for."""
    asked = {"cpu": quantity(spec.cpu), "memory": quantity(spec.memory)}
    if spec.gpus:
        asked["nvidia.com/gpu"] = float(spec.gpus)
    if spec.placement.rdma:
        asked[spec.placement.rdma_resource] = float(spec.placement.rdma)
    return asked


def _machines(get: Get, spec: JobSpec) -> Iterator[Lack]:
    """Machines that are large enough; whether they are free is the scheduler's to say."""
    answer = get("/api/v1/nodes")
    if not answer.is_there:
        yield unseen("machines", answer)
        return
    nodes = [
        one["status"].get("allocatable", {}) for one in answer.document["items"] if not one.get("spec", {}).get("unschedulable", False)
    ]
    for resource, amount in _asked(spec).items():
        large = sum(quantity(node.get(resource, "0")) >= amount for node in nodes)
        if large < spec.nodes:
            most = max((quantity(node.get(resource, "0")) for node in nodes), default=0.0)
            found = f"of {len(nodes)} machines {large} have {amount:g} (the most on one is {most:g}), the job needs {spec.nodes}"
            fix = "add machines or their device plugin, ask for less, or go on where the cluster adds machines by itself"
            yield Lack(what=f"machines with enough {resource}", found=found, fix=fix, certain=False)
