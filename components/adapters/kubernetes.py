"""A training as a job of Kubernetes: submit, watch, read its last lines, delete. The only importer of the kubernetes client.

Whatever goes wrong on the cluster's side is a `JobError` with what, where and what to do, with the last lines of the
pods. A submission is repeatable: the same spec again finds the Job that is already there.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from components.adapters.job_kinds.errors import explained, status_of, unless_missing
from components.adapters.job_kinds.kinds import JOB, KINDS, RUNTIME, JobObjects, Kind
from components.adapters.job_kinds.needs import Lack, image_lacks, lacks_of, require_all
from components.adapters.job_kinds.offer import Answer, served_kind
from components.adapters.job_kinds.patience import Patience
from components.adapters.job_kinds.platform import platform_lacks
from components.adapters.kubernetes_job_state import JobState, job_state, pod_trouble
from components.adapters.kubernetes_manifest import DIGEST_ANNOTATION, JOB_LABEL, render_manifests
from components.config.launch.cluster_job import JobSpec
from components.config.launch.placement import JobKind
from model_core.spec.errors import JobError

logger = logging.getLogger(__name__)

_IMAGE_TROUBLE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_CONFIG_TROUBLE = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_LAST_LINES = 20


class KubernetesCluster:
    """Jobs in one cluster, through the official client. See `components.config.ports.Cluster`."""

    def __init__(self, api_client: Any = None, *, kubeconfig: str = "", in_cluster: bool = False, patience: Patience = Patience()) -> None:
        """api_client: a ready `kubernetes.client.ApiClient`; else the kubeconfig ("": its usual place), or the pod's own account."""
        from kubernetes import client, config

        if api_client is None:
            try:
                if in_cluster:
                    config.load_incluster_config()
                    api_client = client.ApiClient()
                else:
                    api_client = config.new_client_from_config(config_file=kubeconfig or None)
            except Exception as error:
                where = "this pod's account" if in_cluster else kubeconfig or "the usual kubeconfig"
                raise JobError(f"no cluster to talk to: {where} cannot be used ({error}); name one with --kubeconfig") from error
        self._client = api_client
        self._objects = JobObjects(client.BatchV1Api(api_client), client.CustomObjectsApi(api_client))
        self._core: Any = client.CoreV1Api(api_client)
        self._patience = patience

    def get(self, path: str) -> Answer:
        """What the API server answers to a read of `path`, whatever that is; raises `JobError` where it does not answer."""
        words = self._client.param_serialize("GET", path, header_params={"Accept": "application/json"}, auth_settings=["BearerToken"])
        with explained(f"asking for {path}"):
            answer = self._client.call_api(*words, _request_timeout=(5, 30))
            return Answer(status=answer.status, body=answer.read())

    def fitted(self, spec: JobSpec) -> JobSpec:
        """The job as the kind that this cluster serves. Raises `JobError` with all that the cluster lacks for it."""
        spec = self._of_kind(spec)
        require_all(lacks_of(self.get, spec))
        return spec

    def lacks(self, spec: JobSpec) -> tuple[JobKind, list[Lack]]:
        """As what the job would be submitted, and what the cluster lacks for it and for the platform, as far as this account may look."""
        spec = self._of_kind(spec)
        found = [*platform_lacks(self.get, spec.namespace), *lacks_of(self.get, spec)]
        return spec.placement.kind, sorted({lack.what: lack for lack in found}.values(), key=lambda lack: not lack.certain)

    def _of_kind(self, spec: JobSpec) -> JobSpec:
        kind = served_kind(self.get) if spec.placement.kind == "auto" else spec.placement.kind
        return replace(spec, placement=replace(spec.placement, kind=kind))

    def submit(self, spec: JobSpec) -> str:
        """Create the job and what belongs to it, and return its uid; one of the same spec that is already there is taken as it is.

        Raises `JobError` for an image that is named by a tag, unless spec.allow_tag.
        """
        require_all(image_lacks(spec))
        documents = {document["kind"]: document for document in render_manifests(spec)}
        kind = _kind(spec)
        if RUNTIME.name in documents:
            self._create(RUNTIME, spec, documents[RUNTIME.name])
        uid = self._create(kind, spec, documents[kind.name])
        # owned by the job: deleting it, by hand or by its time to live, deletes them
        owner = {"apiVersion": kind.api, "kind": kind.name, "name": spec.name, "uid": uid}
        with explained(f"creating what belongs to job {spec.name}", sends=True):
            if RUNTIME.name in documents:
                self._objects.own(RUNTIME, spec.namespace, spec.name, owner)
            if "Service" in documents:
                self._create_service(spec, documents["Service"], {**owner, "controller": True})
        logger.info("job.submitted name=%s kind=%s namespace=%s nodes=%d uid=%s", spec.name, kind.name, spec.namespace, spec.nodes, uid)
        return uid

    def state(self, spec: JobSpec) -> JobState:
        """One look at the job and its pods."""
        with explained(f"looking at job {spec.name}"):
            try:
                job = self._objects.read(_kind(spec), spec.namespace, spec.name)
            except Exception as error:
                if status_of(error) == 404:
                    return JobState(phase="failed", reason="the job is gone: someone deleted it")
                raise
            pods = self._pods(spec)
        return job_state(_kind(spec), spec, job, pods)

    def wait(self, spec: JobSpec, on_change: Callable[[JobState], None] | None = None) -> JobState:
        """Wait until the job has succeeded; `on_change` is called at every change. Raises `JobError` for every other ending."""
        since, last, answered = time.monotonic(), None, time.monotonic()
        trouble_since: dict[str, float] = {}
        while True:
            try:
                state = self.state(spec)
                answered = time.monotonic()
            except JobError:
                if time.monotonic() - answered > self._patience.lost:
                    raise
                time.sleep(min(1.0, self._patience.look))
                continue
            if state != last and on_change is not None:
                on_change(state)
            if last is None or state.phase != last.phase:  # a queue may hold it back again after hours of work
                since = answered
            last = state
            if state.phase == "succeeded":
                return state
            if state.phase == "failed":
                raise JobError(self._failure(spec, state.reason or "it failed"))
            self._check_trouble(spec, trouble_since, time.monotonic() - since, phase=state.phase)
            self._until_change(spec)

    def logs(self, spec: JobSpec, lines: int = _LAST_LINES) -> dict[str, str]:
        """The last lines of every pod that has any, by pod name."""
        found: dict[str, str] = {}
        for pod in self._pods(spec):
            name = pod.metadata.name
            with contextlib.suppress(Exception):  # a pod that never started has no log; its state has the reason
                text = self._core.read_namespaced_pod_log(name, spec.namespace, tail_lines=lines)
                if text:
                    found[name] = text.rstrip("\n")
        return found

    def delete(self, spec: JobSpec, *, wait_s: float = 60.0) -> None:
        """Delete the job, of whatever kind it is, with its pods and what belongs to it, and wait until it is gone; none is fine."""
        kinds = list(KINDS.values()) if spec.placement.kind == "auto" else [_kind(spec)]
        with explained(f"deleting job {spec.name}"):
            for call in (
                *(functools.partial(self._objects.delete, kind, spec.namespace, spec.name) for kind in kinds),
                lambda: self._core.delete_namespaced_service(spec.name, spec.namespace),
            ):
                unless_missing(call)
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            if not any(self._is_there(kind, spec) for kind in kinds):
                return
            time.sleep(0.2)
        raise JobError(f"job {spec.name} in {spec.namespace} is still there {wait_s:.0f} s after it was deleted; look for finalizers on it")

    def _is_there(self, kind: Kind, spec: JobSpec) -> bool:
        try:
            self._objects.read(kind, spec.namespace, spec.name)
        except Exception as error:
            return status_of(error) != 404
        return True

    def _create_service(self, spec: JobSpec, service: dict[str, Any], owner: dict[str, Any]) -> None:
        service["metadata"]["ownerReferences"] = [owner]
        try:
            self._core.create_namespaced_service(spec.namespace, service)
        except Exception as error:
            if status_of(error) != 409:
                raise

    def _create(self, kind: Kind, spec: JobSpec, document: dict[str, Any]) -> str:
        with explained(f"submitting job {spec.name}", sends=True):
            try:
                return self._objects.create(kind, spec.namespace, document)
            except Exception as error:
                if status_of(error) != 409:
                    raise
            present = self._objects.read(kind, spec.namespace, spec.name)["metadata"]
        theirs, ours = present.get("annotations", {}).get(DIGEST_ANNOTATION, ""), document["metadata"]["annotations"][DIGEST_ANNOTATION]
        if theirs != ours:
            what = kind.plural.removesuffix("s")
            raise JobError(
                f"{what} {spec.name} in {spec.namespace} exists with another spec ({theirs or 'not ours'}, expected {ours}); "
                f"delete it (`kubectl -n {spec.namespace} delete {what} {spec.name}`) or take another name"
            )
        return present["uid"]

    def _pods(self, spec: JobSpec) -> list[Any]:
        pods = self._core.list_namespaced_pod(spec.namespace, label_selector=f"{JOB_LABEL}={spec.name}").items
        return sorted(pods, key=lambda pod: pod.metadata.name)

    def _until_change(self, spec: JobSpec) -> None:
        """Return when something happens to the job, or after `look` seconds."""
        from kubernetes import watch

        try:
            self._objects.watch(watch.Watch(), _kind(spec), spec.namespace, f"{JOB_LABEL}={spec.name}", max(1, round(self._patience.look)))
        except Exception as error:
            logger.debug("job.watch_ended name=%s because=%s", spec.name, error)
            time.sleep(min(1.0, self._patience.look))  # the next look finds the cause

    def _check_trouble(self, spec: JobSpec, since: dict[str, float], waited: float, *, phase: str) -> None:
        """Raise for pods that will never run: evicted, image not available, bad configuration, pending too long."""
        now = time.monotonic()
        waiting: list[str] = []
        for pod in self._pods(spec):
            name, reason, message = pod.metadata.name, *pod_trouble(pod)
            if reason == "Evicted" and spec.is_gang:
                raise JobError(
                    self._failure(spec, f"pod {name} was evicted: {message}; request the memory and disk that it needs and run again")
                )
            if reason in _IMAGE_TROUBLE and now - since.setdefault(name, now) >= self._patience.image:
                raise JobError(
                    self._failure(spec, f"pod {name} cannot get image {spec.image} ({reason}: {message}); push it or correct the name")
                )
            if reason in _CONFIG_TROUBLE and now - since.setdefault(name, now) >= self._patience.image:
                raise JobError(self._failure(spec, f"pod {name} cannot be made ({reason}: {message}); correct the manifest"))
            if pod.status.phase == "Pending":
                waiting.append(f"{name}: {reason or 'Pending'}{f' ({message})' if message else ''}")
        if phase != "running" and waited > (self._patience.queued if phase == "queued" else self._patience.pending):
            pods = "; ".join(waiting) or "no pod was made (is a queue holding it, or a quota?)"
            raise JobError(self._failure(spec, f"not all of {spec.nodes} pods ran after {waited:.0f} s: {pods}; free or add machines"))

    def _failure(self, spec: JobSpec, reason: str) -> str:
        report = f"job {spec.name} in namespace {spec.namespace}: {reason}"
        with contextlib.suppress(Exception):
            for name, text in self.logs(spec).items():
                report += f"\n  last lines of {name}:\n" + "\n".join(f"  | {line}" for line in text.splitlines()[-_LAST_LINES:])
        return report


def _kind(spec: JobSpec) -> Kind:
    return KINDS.get(spec.placement.kind, JOB)
