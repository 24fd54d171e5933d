"""What a training on several machines looks like to Kubernetes: a `JobSpec` in, manifests out. Pure; no cluster is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from components.adapters.job_kinds.manifests import placed
from components.config.launch.cluster_job import JobSpec
from components.config.launch.stored_data import StoredData
from components.config.paths import INFRA
from model_core.spec.contract import digest_of
from model_core.spec.documents import to_document
from model_core.spec.errors import SpecError

TEMPLATE = INFRA / "k8s" / "train-job.yaml"
_DATA_TEMPLATE = INFRA / "k8s" / "train-data.yaml"
JOB_LABEL = "actwright.dev/job"
DIGEST_ANNOTATION = "actwright.dev/spec-digest"
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


def render_manifests(spec: JobSpec, template: str | None = None) -> list[dict[str, Any]]:
    """The documents of a job, from its template in infra/k8s: a Job and its Service, or what its placement names in place of them.

    Raises `SpecError` for an unknown placeholder.
    """
    document = to_document(spec)
    del document["allow_tag"]  # whether it may be submitted, not what runs
    if spec.data is None:
        del document["data"]  # the digest of a job that has none is that of versions before it
    if spec.placement.is_default:
        del document["placement"]
    values = {**document, "command": spec.command, "digest": digest_of(document)[:16], "gpus": str(spec.gpus) if spec.gpus else None}
    values["env"] = [{"name": name, "value": value} for name, value in spec.environment.items()]
    values["suspend"] = True if spec.is_suspended else None
    text = (INFRA / "k8s" / spec.template).read_text(encoding="utf-8") if template is None else template
    manifests = fill_template(text, values)
    if spec.data is not None:
        _add_data(manifests[0]["spec"]["template"]["spec"], spec.data, spec.image)
    return manifests if template is not None else placed(spec, *manifests)


def render_yaml(spec: JobSpec) -> str:
    """The manifests as one YAML text, for `kubectl apply -f -`."""
    import yaml

    return "---\n".join(yaml.safe_dump(document, sort_keys=False, width=140) for document in render_manifests(spec))


def fill_template(text: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The documents of a template with its placeholders ${name} replaced. Raises `SpecError` for one that has no value."""
    import yaml

    return [_filled(document, values) for document in yaml.safe_load_all(text) if document]


def _add_data(pod: dict[str, Any], data: StoredData, image: str) -> None:
    """Let the pod begin with a fetch of the data set, and its training see what was fetched."""
    claim = {"claimName": data.cache_claim} if data.cache_claim else None
    values = {
        **to_document(data),
        "digest": data.digest or "DIGEST",
        "image": image,
        "claim": claim,
        "own": None if claim else {"medium": ""},
    }
    [added] = fill_template(_DATA_TEMPLATE.read_text(encoding="utf-8"), values)
    pod["initContainers"] = added["initContainers"]
    pod["containers"][0]["volumeMounts"] += added["volumeMounts"]
    pod["volumes"] += added["volumes"]


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
        raise SpecError(f"the template has no value for ${{{name}}}; there are {', '.join(sorted(values))}")
    return values[name]
