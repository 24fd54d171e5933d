"""A release on a cluster: rendered, strictly valid, drained, scaled by our queue, and taken by the API server."""

from __future__ import annotations

import pytest

from components.adapters.kubernetes_release import ReleasePods, render_release
from components.config.paths import INFRA
from model_core.spec.errors import SpecError
from serving.gateway.http.drain import _parser
from serving.gateway.operations.metrics import Metrics
from tests.fake_kube import FakeKube

DIGEST = "0123456789abcdef" * 4


def of(kind: str) -> dict:
    [found] = [one for one in render_release(ReleasePods(digest=DIGEST, replicas=2, most_replicas=4)) if one["kind"] == kind]
    return found


def test_every_object_passes_strict_schemas_and_is_named_by_the_release() -> None:
    import kubernetes_validate

    documents = render_release(ReleasePods(digest=DIGEST))
    assert [one["kind"] for one in documents] == ["Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"]
    for document in documents:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        assert document["metadata"]["name"] == "policy-0123456789abcdef"
    labels = of("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert of("Service")["spec"]["selector"] == of("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    with pytest.raises(SpecError, match="64 hex digits"):
        ReleasePods(digest="0123")


def test_a_pod_serves_what_its_first_container_fetches_and_drains_before_it_goes() -> None:
    spec = of("Deployment")["spec"]["template"]["spec"]
    [first], [service] = spec["initContainers"], spec["containers"]
    assert first["command"][:5] == ["actwright", "fleet", "release", "fetch", DIGEST]
    cache = first["command"][first["command"].index("--to") + 1]
    [bundle] = [one["value"] for one in service["env"] if one["name"] == "ACTWRIGHT_BUNDLE"]
    assert bundle == f"{cache}/releases/{DIGEST}/bundle"
    args = _parser().parse_args(service["lifecycle"]["preStop"]["exec"]["command"][3:])
    assert args.wait_s + 15 < spec["terminationGracePeriodSeconds"]
    for container in (first, service):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in spec["volumes"]}


def test_it_is_scaled_by_metrics_that_a_service_has() -> None:
    scaler = of("HorizontalPodAutoscaler")["spec"]
    names = {metric["pods"]["metric"]["name"] for metric in scaler["metrics"]}
    assert names <= {family.name for family in Metrics().registry.collect()}
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 4)
    assert scaler["scaleTargetRef"]["name"] == of("Deployment")["metadata"]["name"]


def test_the_api_server_takes_the_objects() -> None:
    from kubernetes import client

    with FakeKube() as kube:
        api = client.ApiClient(client.Configuration(host=kube.url))
        calls = {
            "Deployment": client.AppsV1Api(api).create_namespaced_deployment,
            "Service": client.CoreV1Api(api).create_namespaced_service,
            "HorizontalPodAutoscaler": client.AutoscalingV2Api(api).create_namespaced_horizontal_pod_autoscaler,
            "PodDisruptionBudget": client.PolicyV1Api(api).create_namespaced_pod_disruption_budget,
        }
        for document in render_release(ReleasePods(digest=DIGEST)):
            calls[document["kind"]]("actwright", document, _preload_content=False)
        again = render_release(ReleasePods(digest="f" * 64))[0]  # a Deployment for each release, beside each other
        calls["Deployment"]("actwright", again)
        found = client.AppsV1Api(api).list_namespaced_deployment("actwright", label_selector="app=policy-release").items
        assert [one.metadata.name for one in found] == [f"policy-{DIGEST[:16]}", "policy-ffffffffffffffff"]


def test_the_agent_of_an_edge_node_is_valid_and_never_replaced_by_a_rollout() -> None:
    import kubernetes_validate
    import yaml

    from serving.fleet.agent.__main__ import _parser as agent_parser

    document = yaml.safe_load((INFRA / "k8s" / "edge" / "agent.yaml").read_text())
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    assert document["spec"]["updateStrategy"] == {"type": "OnDelete"}
    spec = document["spec"]["template"]["spec"]
    [agent] = spec["containers"]
    python, flag, module, *words = agent["command"]
    assert (python, flag, module) == ("python", "-m", "serving.fleet.agent")
    assert str(agent_parser().parse_args(words).config).startswith(agent["volumeMounts"][0]["mountPath"])
    assert {mount["name"] for mount in agent["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
