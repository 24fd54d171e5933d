"""`actwright cluster`: the manifest is printed whole, wrong usage says what to do."""

import math

import pytest
import yaml
from typer.testing import CliRunner

from flows.commands.cluster.commands import cluster_app
from flows.platform.wiring import open_cluster
from model_core.network.checkpoints.layout import expected_shapes
from model_core.network.presets import molmoact_7b_d
from model_core.spec.errors import JobError

WEIGHTS = sum(math.prod(shape) for shape in expected_shapes(molmoact_7b_d()).values())


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / ".actwright"))
    return lambda *arguments: CliRunner().invoke(cluster_app, list(arguments))


def test_manifest_is_what_would_be_submitted(call, tmp_path):
    done = call("manifest", "loop", "--nodes", "2", "--image", "registry.example/a:1")
    assert done.exit_code == 0, done.output
    job, service = yaml.safe_load_all(done.stdout)
    assert job["metadata"]["name"] == service["metadata"]["name"] == "train-loop"
    assert job["spec"]["completions"] == 2
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/a:1"
    assert container["volumeMounts"][0]["mountPath"] == str(tmp_path)


TAGGED = "registry.example/a:1"


@pytest.mark.parametrize(
    "words",
    [
        ("cluster", "train", "loop"),
        ("cluster", "train", "loop", "--image", TAGGED),
        ("cluster", "evaluate", "metaworld_mt10", "champion", "--image", TAGGED),
        ("schedule", "loop", "--on-cluster", "--image", TAGGED),
        ("schedule", "loop", "--pool", "flows", "--image", TAGGED),
    ],
)
def test_a_job_whose_image_is_a_tag_is_refused_before_anything_is_made(tmp_path, monkeypatch, words):
    from flows.commands.main import command_line

    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / ".actwright"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none.yaml"))
    done = CliRunner().invoke(command_line(), list(words), env={"COLUMNS": "400"})
    told = " ".join(done.output.split())
    image = words[-1] if TAGGED in words else "actwright-worker:0.1.0"
    assert done.exit_code == 2, told
    assert f"--image {image} is a tag" in told
    assert f"crane digest {image}" in told
    assert "--allow-tag" in told
    assert not (tmp_path / ".actwright").exists()


def test_a_manifest_with_a_tag_is_rendered_and_tells_so(call):
    done = call("manifest", "loop", "--image", TAGGED)
    assert done.exit_code == 0, done.output
    assert f"the image {TAGGED} is a tag" in done.stderr
    assert "is a tag" not in call("manifest", "loop", "--image", TAGGED, "--allow-tag").stderr
    assert "is a tag" not in call("manifest", "loop", "--image", "registry.example/a@sha256:" + "a" * 64).stderr


def test_a_batch_that_cannot_be_shared_is_told_before_anything_is_asked(call):
    done = call("manifest", "loop", "--nodes", "7")
    assert done.exit_code == 2
    assert "not divisible" in done.output


def test_gpus_and_processes_must_fit(call):
    done = call("manifest", "loop", "--gpus", "8")
    assert done.exit_code == 2
    assert "set procs to 8" in done.output


def test_a_published_network_is_rendered_from_its_plan(call):
    done = call("manifest", "molmoact_finetune", "--procs", "8", "--gpus", "8", "--gpu", "a100")
    assert done.exit_code == 0, done.output
    job, _ = yaml.safe_load_all(done.stdout)
    assert job["spec"]["completions"] == 1, "eight processes of the recipe on one machine"
    [container] = job["spec"]["template"]["spec"]["containers"]
    # by hand: 4 bytes for each parameter of 7B-D, read by 8 processes and gathered once more; 8 GiB a process beside
    assert container["resources"]["requests"]["memory"] == f"{-(-(9 * 4 * WEIGHTS + 8 * 8 * 2**30) // 2**30)}Gi"
    assert "8 x a100, ZeRO stage 2" in done.stderr
    spread = call("manifest", "molmoact_finetune", "--set", "train.network=tiny-published", "--set", "train.world_size=2")
    job, _ = yaml.safe_load_all(spread.stdout)
    assert job["spec"]["completions"] == 2, "one process a machine, as many machines as the recipe has processes"
    assert job["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["memory"] == "16Gi"


def test_what_does_not_fit_on_the_gpus_is_not_rendered(call):
    asked = ("manifest", "molmoact_finetune", "--procs", "8", "--gpus", "8")
    whole = ("--set", "train.lora_rank=0", "--set", "train.zero_stage=1", "--set", "train.published.clip_by_part=false")
    done = call(*asked, *whole)
    assert done.exit_code == 2
    assert "expected at most" in done.output
    assert "train.zero_stage" in done.output
    assert done.stdout == ""
    uneven = call("manifest", "molmoact_finetune", "--procs", "3")
    assert "world_size is 8, which --procs 3 does not divide" in uneven.output


@pytest.mark.parametrize("command", ["manifest", "train", "logs", "delete"])
def test_help_teaches_by_example(call, command):
    done = call(command, "--help")
    assert done.exit_code == 0
    assert f"Example: actwright cluster {command}" in done.output


def test_no_cluster_is_one_clear_sentence(tmp_path):
    with pytest.raises(JobError, match=r"no cluster to talk to: .*nothing\.yaml cannot be used"):
        open_cluster(tmp_path / "nothing.yaml")
