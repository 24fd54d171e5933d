"""A labelling on Kubernetes: rendered, strict to the last field, queued by Kueue, and ended with its cluster."""

from __future__ import annotations

import shlex
from dataclasses import fields

import pytest
from typer.testing import CliRunner

from components.adapters.ray_cluster.fields import check_ray_job
from components.adapters.ray_cluster.manifest import RAY_VERSION, RayPods, labelling_yaml, render_labelling
from components.config.paths import INFRA
from components.data.labelling.on_ray.guards import check_actors, check_environment
from flows.commands.cluster.labelling import LabelManifestOptions
from flows.commands.main import command_line
from model_core.spec.errors import SpecError

PODS = RayPods(workers=4, cpus=8, gpus=2, queue="labelling", changes=("annotate.batch_size=8",))


def job(pods: RayPods = PODS) -> dict:
    [_, found] = render_labelling(pods)
    return found


def test_its_pods_and_its_policy_pass_strict_schemas() -> None:
    import kubernetes_validate

    policy, ray_job = render_labelling(PODS)
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(policy, version, strict=True)
    templates = check_ray_job(ray_job)
    assert len(templates) == 3
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", **template["metadata"]}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, version, strict=True)
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        [container] = template["spec"]["containers"]
        told = {entry["name"]: entry.get("value", "from a secret") for entry in container["env"]}
        check_environment(told, has_token=False)
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True


def test_it_waits_in_the_queue_and_its_cluster_ends_with_it() -> None:
    queued, free = job(), job(RayPods())
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "labelling"
    assert queued["spec"]["suspend"] is True
    assert "suspend" not in free["spec"]
    assert "kueue.x-k8s.io/queue-name" not in free["metadata"]["labels"]
    assert queued["spec"]["shutdownAfterJobFinishes"] is True
    [workers] = queued["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 4
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"


def test_the_head_runs_a_command_that_exists_with_as_many_actors_as_fit() -> None:
    words = shlex.split(job()["spec"]["entrypoint"])
    assert words[:4] == ["actwright", "cluster", "label", "loop"]
    assert words[-2:] == ["--set", "annotate.batch_size=8"]
    assert PODS.actors == 8
    for pods in (PODS, RayPods(), RayPods(workers=1, cpus=2), RayPods(workers=1, cpus=2, gpus=8)):
        check_actors(pods.actors, 2.0 + pods.workers * pods.cpus)  # the head has two
    assert job()["spec"]["rayClusterSpec"]["rayVersion"] == RAY_VERSION
    for text in ((INFRA / "docker" / "ray.Dockerfile").read_text(), (INFRA.parent / "pyproject.toml").read_text()):
        assert f"]=={RAY_VERSION}" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one["spec"].update(shutdownAfterJobFinish=True), "has no field spec.shutdownAfterJobFinish; at spec there are"),
        (lambda one: one["spec"].update(shutdownAfterJobFinishes=False), "shutdownAfterJobFinishes must be true"),
        (lambda one: one["spec"].update(backoffLimit="3"), "spec.backoffLimit: expected int.*got 'str'|spec.backoffLimit: expected int"),
        (lambda one: one["spec"].update(clusterSelector={"a": "b"}), "clusterSelector is refused by Kueue"),
        (lambda one: one["spec"].pop("entrypoint"), "spec.entrypoint is missing"),
        (lambda one: one["spec"]["rayClusterSpec"].update(enableInTreeAutoscaling=True), "enableInTreeAutoscaling is refused by Kueue"),
        (
            lambda one: one["spec"]["rayClusterSpec"].update(workerGroupSpecs=8 * job()["spec"]["rayClusterSpec"]["workerGroupSpecs"]),
            "at most 7",
        ),
        (lambda one: one["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("maxReplicas"), "'maxReplicas'.* is missing"),
        (lambda one: one.update(apiVersion="ray.io/v1alpha1"), "expected a RayJob of ray.io/v1"),
    ],
)
def test_what_kuberay_would_drop_or_kueue_refuse_is_refused_here(change, message) -> None:
    wrong = job()
    change(wrong)
    with pytest.raises(SpecError, match=message):
        check_ray_job(wrong)


def test_the_command_prints_what_is_rendered() -> None:
    done = CliRunner().invoke(command_line(), ["cluster", "label-manifest", "loop", "--workers", "3", "--queue", "q"])
    assert done.exit_code == 0, done.output
    assert done.stdout == labelling_yaml(RayPods(workers=3, queue="q"))
    assert {one.name for one in fields(LabelManifestOptions)} - {"change"} <= {one.name for one in fields(RayPods)}
    refused = CliRunner().invoke(command_line(), ["cluster", "label-manifest", "loop", "--cpus", "1"])
    assert refused.exit_code == 2
