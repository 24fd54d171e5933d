"""From a job spec to its manifests: a golden form, strict schemas, clear refusals."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from components.adapters.kubernetes_manifest import TEMPLATE, render_manifests, render_yaml
from components.config.launch.cluster_job import JobSpec
from components.config.launch.stored_data import StoredData
from components.config.launch.torchrun import Rendezvous, torchrun_command
from model_core.spec.errors import SpecError

GOLDEN = Path(__file__).parents[1] / "golden" / "train_job.yaml"
SPEC = JobSpec(
    name="train-abc",
    image="registry.example/actwright:1",
    job="/workspace/store/train/abc.partial/scratch/job.json",
    nodes=4,
    procs=8,
    gpus=8,
    cpu="96",
    memory="900Gi",
    shared_memory="64Gi",
    env={"NCCL_DEBUG": "WARN"},
    node_selector={"nvidia.com/gpu.product": "NVIDIA-H200"},
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
)


def test_manifest_equals_the_golden_one():
    assert render_yaml(SPEC) == GOLDEN.read_text()


STORED = StoredData(storage="s3://store:8333", digest="a" * 64)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        JobSpec(name="small", image="x:1", job="/workspace/job.json"),
        replace(SPEC, data=STORED),
        replace(SPEC, data=replace(STORED, cache_claim="node-cache")),
    ],
)
def test_manifests_fit_the_strict_schemas(spec):
    import kubernetes_validate

    for document in render_manifests(spec):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_misspelt_field_would_be_seen():
    import kubernetes_validate

    document = render_manifests(SPEC)[0]
    document["spec"]["backofLimit"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="backofLimit"):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_machine_fetches_the_data_set_before_it_trains():
    """Without one the job's document is what it was, its digest too (the golden form)."""
    for claim in ("", "node-cache"):
        pod = render_manifests(replace(SPEC, data=replace(STORED, cache_claim=claim)))[0]["spec"]["template"]["spec"]
        [first], [train] = pod["initContainers"], pod["containers"]
        assert first["command"] == ["actwright", "cluster", "fetch-data", "a" * 64, "--to", "/cache"]
        assert train["volumeMounts"][-1] == {"name": "data", "mountPath": "/cache", "readOnly": True}
        volume = next(volume for volume in pod["volumes"] if volume["name"] == "data")
        assert volume.get("persistentVolumeClaim", {}).get("claimName", "") == claim
    assert "secret" not in render_yaml(replace(SPEC, data=STORED)).replace("secretKeyRef", "").replace("secret-key", "")
    with pytest.raises(SpecError, match="embedded object store"):
        StoredData(storage="embedded")


def test_every_pod_runs_the_very_command_of_a_laptop_with_its_rank():
    job, service = render_manifests(SPEC)
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == torchrun_command(
        SPEC.job,
        nodes=4,
        procs=8,
        rendezvous=Rendezvous(kind="static", address="train-abc-0.train-abc", node_rank="$(JOB_COMPLETION_INDEX)"),
    )
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 4


def test_without_gpus_none_is_asked_for_and_the_processor_is_used():
    job, _ = render_manifests(JobSpec(name="small", image="x:1", job="/workspace/job.json"))
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"memory": "16Gi"}}
    assert {"name": "DS_ACCELERATOR", "value": "cpu"} in container["env"]
    assert "nodeSelector" not in job["spec"]["template"]["spec"]
    assert "suspend" not in job["spec"]


def test_equal_specs_have_equal_digests_and_others_not():
    def digest(**changes):
        spec = JobSpec(**{"name": "a", "image": "x:1", "job": "/workspace/job.json", **changes})
        return render_manifests(spec)[0]["metadata"]["annotations"]["actwright.dev/spec-digest"]

    assert digest() == digest()
    assert digest() != digest(image="x:2")
    assert digest() == digest(allow_tag=True), "whether it may be submitted is not what runs"


def test_an_unknown_placeholder_is_named():
    with pytest.raises(SpecError, match=r"no value for \$\{nodez\}"):
        render_manifests(SPEC, "spec: {completions: '${nodez}'}")


def test_placeholders_keep_their_type_and_fill_text():
    [document] = render_manifests(SPEC, "a: ${nodes}\nb: x-${nodes}-${name}\nc: ${suspend}\n")
    assert document == {"a": 4, "b": "x-4-train-abc"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Train_1"}, "job name"),
        ({"name": "x" * 51}, "job name"),
        ({"nodes": 0}, "at least 1"),
        ({"gpus": 4}, "set procs to 4"),
        ({"job": "/elsewhere/job.json"}, "must be below"),
    ],
)
def test_specs_that_cannot_run_are_refused(changes, said):
    with pytest.raises(SpecError, match=said):
        JobSpec(**{"name": "a", "image": "x:1", "job": "/workspace/job.json", **changes})


def test_rendering_needs_no_client_and_no_torch():
    code = (
        "import sys, components.adapters.kubernetes_manifest as m; m.render_manifests(m.JobSpec(name='a', image='x', job='/workspace/j'))\n"
    )
    code += "assert not {'torch', 'kubernetes'} & set(sys.modules), 'too much was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_template_is_plain_yaml():
    assert [document["kind"] for document in yaml.safe_load_all(TEMPLATE.read_text())] == ["Job", "Service"]
