"""What a training on several machines looks like to Kubernetes: a `JobSpec` in, manifests out. Pure; no cluster is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.documents import to_document
from components.train_job import torchrun_command
from model_core.spec.contract import digest_of
from model_core.spec.errors import SpecError, require

TEMPLATE = Path(__file__).parents[1] / "infra" / "k8s" / "train-job.yaml"
JOB_LABEL = "actwright.dev/job"
DIGEST_ANNOTATION = "actwright.dev/spec-digest"
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
# A pod has one network interface and it is called eth0; without the name gloo may take the loopback address of the host's name.
_POD_INTERFACE = "eth0"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One training on `nodes` machines.

    job: path of the job document as the pods see it (see `components.train_job`), below `mount`, where the claim is mounted.
    procs: processes a machine (one a GPU). cpu, memory, shared_memory: Kubernetes quantities, per machine. deadline_s: the
    cluster ends it after so long. suspend: a queue (Kueue) starts it.
    """

    name: str
    image: str
    job: str
    nodes: int = 1
    procs: int = 1
    gpus: int = 0
    cpu: str = "4"
    memory: str = "16Gi"
    shared_memory: str = "4Gi"
    claim: str = "actwright-store"
    mount: str = "/workspace"
    namespace: str = "actwright"
    service_account: str = "actwright-train"
    port: int = 29_400
    deadline_s: int = 7 * 24 * 3600
    suspend: bool = False
    python: str = "python"
    env: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()

    def __post_init__(self) -> None:
        fits = re.fullmatch(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?", self.name) is not None
        require(fits, "a job name is 1..50 of a-z, 0-9 and '-', begins with a letter and ends with no '-'", got=repr(self.name))
        require(self.nodes >= 1 and self.procs >= 1, "nodes and procs must be at least 1", got=(self.nodes, self.procs))
        require(self.gpus in (0, self.procs), f"with GPUs there is one process each: set procs to {self.gpus}", got=self.procs)
        require(
            self.job.startswith(self.mount.rstrip("/") + "/"), f"pods see only {self.mount}: the job document must lie below", got=self.job
        )

    @property
    def node_0(self) -> str:
        """The name under which pods find the first one (pod names of an Indexed Job, below its headless Service)."""
        return f"{self.name}-0.{self.name}"

    @property
    def command(self) -> list[str]:
        """What every pod runs. Kubernetes replaces $(JOB_COMPLETION_INDEX) by the pod's number."""
        return torchrun_command(
            self.job,
            nodes=self.nodes,
            procs=self.procs,
            rendezvous="static",
            address=self.node_0,
            port=self.port,
            node_rank="$(JOB_COMPLETION_INDEX)",
            python=self.python,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The pod's variables, by name; `env` wins."""
        ours = {"GLOO_SOCKET_IFNAME": _POD_INTERFACE, "NCCL_SOCKET_IFNAME": _POD_INTERFACE, "PYTHONUNBUFFERED": "1"}
        if not self.gpus:
            ours["DS_ACCELERATOR"] = "cpu"
        return dict(sorted({**ours, **self.env}.items()))


def render_manifests(spec: JobSpec, template: str | None = None) -> list[dict[str, Any]]:
    """The Job and its Service as documents, from infra/k8s/train-job.yaml. Raises `SpecError` for an unknown placeholder."""
    import yaml

    document = to_document(spec)
    values = {**document, "command": spec.command, "digest": digest_of(document)[:16], "gpus": str(spec.gpus) if spec.gpus else None}
    values["env"] = [{"name": name, "value": value} for name, value in spec.environment.items()]
    values["suspend"] = True if spec.suspend else None
    documents = yaml.safe_load_all(TEMPLATE.read_text(encoding="utf-8") if template is None else template)
    return [_filled(document, values) for document in documents if document]


def render_yaml(spec: JobSpec) -> str:
    """The manifests as one YAML text, for `kubectl apply -f -`."""
    import yaml

    return "---\n".join(yaml.safe_dump(document, sort_keys=False, width=140) for document in render_manifests(spec))


def _filled(node: Any, values: Mapping[str, Any]) -> Any:
    """Placeholders replaced; keys whose value is None or empty are left out."""
    if isinstance(node, Mapping):
        filled = {key: _filled(value, values) for key, value in node.items()}
        return {key: value for key, value in filled.items() if value is not None and value not in ({}, [])}
    if isinstance(node, list):
        return [_filled(value, values) for value in node]
    if not isinstance(node, str):
        return node
    whole = _PLACEHOLDER.fullmatch(node)
    if whole:
        return _value(whole.group(1), values)
    return _PLACEHOLDER.sub(lambda match: str(_value(match.group(1), values)), node)


def _value(name: str, values: Mapping[str, Any]) -> Any:
    if name not in values:
        raise SpecError(f"train-job.yaml: no value for ${{{name}}}; JobSpec offers {', '.join(sorted(values))}")
    return values[name]
