"""A training as a Kubernetes Job: submit, watch, read its last lines, delete. The only importer of the kubernetes client.

Whatever goes wrong on the cluster's side is a `JobError` with what, where and what to do, with the last lines of the
pods. A submission is repeatable: the same spec again finds the Job that is already there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from components.adapters.kubernetes_job_state import JobState, job_state, pod_trouble
from components.adapters.kubernetes_manifest import DIGEST_ANNOTATION, JOB_LABEL, render_manifests
from components.config.launch.cluster_job import JobSpec
from model_core.spec.errors import JobError

logger = logging.getLogger(__name__)

_IMAGE_TROUBLE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_CONFIG_TROUBLE = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_LAST_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for what, in seconds, before it is called a failure.

    pending: from submission until all pods run. image: for an image that cannot be pulled (registries have bad minutes).
    lost: for an API server that does not answer. look: between two looks at a quiet Job.
    """

    pending: float = 1800.0
    image: float = 120.0
    lost: float = 300.0
    look: float = 5.0


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
        self._batch: Any = client.BatchV1Api(api_client)
        self._core: Any = client.CoreV1Api(api_client)
        self._patience = patience

    def submit(self, spec: JobSpec) -> str:
        """Create Job and Service and return the Job's uid; a Job of the same spec that is already there is taken as it is."""
        job, service = render_manifests(spec)
        uid = self._create_job(spec, job)
        # owned by the Job: deleting the Job, by hand or by its time to live, deletes the Service
        service["metadata"]["ownerReferences"] = [
            {"apiVersion": "batch/v1", "kind": "Job", "name": spec.name, "uid": uid, "controller": True}
        ]
        with _explained(f"creating service {spec.name}", sends=True):
            try:
                self._core.create_namespaced_service(spec.namespace, service)
            except Exception as error:
                if _status(error) != 409:
                    raise
        logger.info("job.submitted name=%s namespace=%s nodes=%d uid=%s", spec.name, spec.namespace, spec.nodes, uid)
        return uid

    def state(self, spec: JobSpec) -> JobState:
        """One look at the Job and its pods."""
        with _explained(f"looking at job {spec.name}"):
            try:
                job = self._batch.read_namespaced_job(spec.name, spec.namespace)
            except Exception as error:
                if _status(error) == 404:
                    return JobState(phase="failed", reason="the job is gone: someone deleted it")
                raise
            pods = self._pods(spec)
        return job_state(job, pods)

    def wait(self, spec: JobSpec, on_change: Callable[[JobState], None] | None = None) -> JobState:
        """Wait until the Job has succeeded; `on_change` is called at every change. Raises `JobError` for every other ending."""
        began, last, answered = time.monotonic(), None, time.monotonic()
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
            last = state
            if state.phase == "succeeded":
                return state
            if state.phase == "failed":
                raise JobError(self._failure(spec, state.reason or "it failed"))
            self._check_trouble(spec, trouble_since, time.monotonic() - began, running=state.phase == "running")
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
        """Delete the Job with its pods and Service, and wait until it is gone; one that is not there is fine."""
        with _explained(f"deleting job {spec.name}"):
            for call in (self._batch.delete_namespaced_job, self._core.delete_namespaced_service):
                try:
                    call(spec.name, spec.namespace, propagation_policy="Foreground")
                except Exception as error:
                    if _status(error) != 404:
                        raise
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            try:
                self._batch.read_namespaced_job(spec.name, spec.namespace)
            except Exception as error:
                if _status(error) == 404:
                    return
            time.sleep(0.2)
        raise JobError(f"job {spec.name} in {spec.namespace} is still there {wait_s:.0f} s after it was deleted; look for finalizers on it")

    def _create_job(self, spec: JobSpec, job: dict[str, Any]) -> str:
        with _explained(f"submitting job {spec.name}", sends=True):
            try:
                return self._batch.create_namespaced_job(spec.namespace, job).metadata.uid
            except Exception as error:
                if _status(error) != 409:
                    raise
            present = self._batch.read_namespaced_job(spec.name, spec.namespace)
        theirs, ours = (present.metadata.annotations or {}).get(DIGEST_ANNOTATION, ""), job["metadata"]["annotations"][DIGEST_ANNOTATION]
        if theirs != ours:
            raise JobError(
                f"job {spec.name} in {spec.namespace} exists with another spec ({theirs or 'not ours'}, expected {ours}); "
                f"delete it (`kubectl -n {spec.namespace} delete job {spec.name}`) or take another name"
            )
        return present.metadata.uid

    def _pods(self, spec: JobSpec) -> list[Any]:
        pods = self._core.list_namespaced_pod(spec.namespace, label_selector=f"{JOB_LABEL}={spec.name}").items
        return sorted(pods, key=lambda pod: pod.metadata.name)

    def _until_change(self, spec: JobSpec) -> None:
        """Return when something happens to the pods or the Job, or after `look` seconds."""
        from kubernetes import watch

        selector = f"{JOB_LABEL}={spec.name}"
        seconds = max(1, round(self._patience.look))
        try:
            version = self._batch.list_namespaced_job(spec.namespace, label_selector=selector).metadata.resource_version
            stream = watch.Watch()
            for _ in stream.stream(
                self._batch.list_namespaced_job,
                spec.namespace,
                label_selector=selector,
                resource_version=version,
                timeout_seconds=seconds,
                _request_timeout=(5, seconds + 5),
            ):
                stream.stop()
        except Exception as error:
            logger.debug("job.watch_ended name=%s because=%s", spec.name, error)
            time.sleep(min(1.0, self._patience.look))  # the next look finds the cause

    def _check_trouble(self, spec: JobSpec, since: dict[str, float], waited: float, *, running: bool) -> None:
        """Raise for pods that will never run: evicted, image not available, bad configuration, pending too long."""
        now = time.monotonic()
        waiting: list[str] = []
        for pod in self._pods(spec):
            name, reason, message = pod.metadata.name, *pod_trouble(pod)
            if reason == "Evicted":
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
        if not running and waited > self._patience.pending:
            pods = "; ".join(waiting) or "no pod was made (is a queue holding it, or a quota?)"
            raise JobError(self._failure(spec, f"not all of {spec.nodes} pods ran after {waited:.0f} s: {pods}; free or add machines"))

    def _failure(self, spec: JobSpec, reason: str) -> str:
        report = f"job {spec.name} in namespace {spec.namespace}: {reason}"
        with contextlib.suppress(Exception):
            for name, text in self.logs(spec).items():
                report += f"\n  last lines of {name}:\n" + "\n".join(f"  | {line}" for line in text.splitlines()[-_LAST_LINES:])
        return report


@contextlib.contextmanager
def _explained(what: str, *, sends: bool = False) -> Iterator[None]:
    """Turn what the client raises into a `JobError`. sends: a manifest, which the client checks by types of its own before it is sent."""
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        if sends and isinstance(error, ValueError):
            raise JobError(
                f"{what}: the Kubernetes client refused the manifest, nothing was sent: {error}. Fix: correct the field that it names; "
                "quantities and values of variables are text ('1', not 1)"
            ) from error
        body = str(getattr(error, "body", "") or error)
        answer = _message_of(body)
        raise JobError(f"{what}: the cluster answered {_status(error) or type(error).__name__}: {answer}") from error


def _message_of(body: str) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(body).get("message", body))
    return (body.splitlines() or [""])[0][:300]


def _status(error: Exception) -> int:
    return int(getattr(error, "status", 0) or 0)
