"""What a job and its pods report about themselves, as one state and its causes. Pure: it reads what the cluster answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.adapters.job_kinds.kinds import Kind
from components.config.launch.cluster_job import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """The state of a job. phase: "queued" (held back by its queue, also after it ran), "pending", "running", "succeeded" or "failed".

    pods: name -> what it is doing.
    """

    phase: str
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    reason: str = ""
    pods: Mapping[str, str] | None = None


def job_state(kind: Kind, spec: JobSpec, job: Mapping[str, Any], pods: list[Any]) -> JobState:
    """The state of the object that runs a job, with the causes that its pods give."""
    conditions = {c["type"]: c for c in job.get("status", {}).get("conditions") or [] if c["status"] == "True"}
    phases = {pod.metadata.name: pod_trouble(pod)[0] or pod.status.phase or "Unknown" for pod in pods}
    plain = [pod.status.phase for pod in pods]
    counts: dict[str, Any] = {
        "active": sum(phase in ("Pending", "Running") for phase in plain),
        "succeeded": plain.count("Succeeded"),
        "failed": plain.count("Failed"),
    }
    if kind.succeeded in conditions:
        return JobState(phase="succeeded", pods=phases, **counts)
    ended = next((conditions[name] for name in kind.failed if name in conditions), None)
    if ended is not None:
        causes = "; ".join(filter(None, (_pod_ending(pod) for pod in pods)))
        reason = f"{ended.get('reason') or 'failed'}: {ended.get('message') or 'no message'}" + (f" ({causes})" if causes else "")
        return JobState(phase="failed", reason=reason, pods=phases, **counts)
    if job["spec"].get("suspend"):
        return JobState(phase="queued", pods=phases, **counts)
    all_up = sum(phase in ("Running", "Succeeded") for phase in plain) >= (spec.nodes if spec.is_gang else 1)
    return JobState(phase="running" if all_up else "pending", pods=phases, **counts)


def pod_trouble(pod: Any) -> tuple[str, str]:
    """(reason, message) of a pod that does not run, ("", "") where there is none."""
    if pod.status.reason:
        return pod.status.reason, pod.status.message or ""
    for container in pod.status.container_statuses or []:
        waiting = container.state.waiting if container.state else None
        if waiting is not None and waiting.reason and waiting.reason != "ContainerCreating":
            return waiting.reason, waiting.message or ""
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return condition.reason or "Unschedulable", condition.message or ""
    return "", ""


def _pod_ending(pod: Any) -> str:
    """How a failed pod ended, such as "train-1 ended with exit code 137 (OOMKilled)"."""
    name = pod.metadata.name
    if pod.status.reason:
        return f"{name}: {pod.status.reason} {pod.status.message or ''}".strip()
    for container in pod.status.container_statuses or []:
        ended = container.state.terminated if container.state else None
        if ended is not None and ended.exit_code != 0:
            return f"{name} ended with exit code {ended.exit_code}" + (f" ({ended.reason})" if ended.reason else "")
    return ""
