"""`actwright cluster`: the manifest is printed whole, wrong usage says what to do."""

import pytest
import yaml
from typer.testing import CliRunner

from flows.commands.cluster.commands import cluster_app
from flows.platform.wiring import open_cluster
from model_core.spec.errors import JobError


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


def test_a_batch_that_cannot_be_shared_is_told_before_anything_is_asked(call):
    done = call("manifest", "loop", "--nodes", "7")
    assert done.exit_code == 2
    assert "not divisible" in done.output


def test_gpus_and_processes_must_fit(call):
    done = call("manifest", "loop", "--gpus", "8")
    assert done.exit_code == 2
    assert "set procs to 8" in done.output


@pytest.mark.parametrize("command", ["manifest", "train", "logs", "delete"])
def test_help_teaches_by_example(call, command):
    done = call(command, "--help")
    assert done.exit_code == 0
    assert f"Example: actwright cluster {command}" in done.output


def test_no_cluster_is_one_clear_sentence(tmp_path):
    with pytest.raises(JobError, match=r"no cluster to talk to: .*nothing\.yaml cannot be used"):
        open_cluster(tmp_path / "nothing.yaml")
