"""A suite's cases by the pods of an Indexed Job: the same report as on one machine, also where a pod fails and the launcher is stopped."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import kubernetes_validate
import pytest

from components.adapters.kubernetes import KubernetesCluster, Patience
from components.adapters.kubernetes_manifest import render_manifests
from components.config.data_config import CollectConfig
from components.config.launch.evaluation_job import EvaluationSpec
from components.config.launch.placement import Placement
from components.config.recipe import EvalConfig
from components.config.records import Silent
from components.evaluation.evaluate import evaluate
from components.evaluation.spread.document import load_spread, share_of
from components.evaluation.spread.launch import spread_groups
from components.evaluation.spread.pod import run_share
from components.evaluation.suite import open_suite
from components.simulation.metaworld import embodiment
from model_core.spec.errors import JobError, SpecError
from tests.fake_kube import IMAGE, FakeKube
from tests.integration.loop_runs import Home
from tests.kubelets import kubeconfig
from tests.tiny_checkpoint import write_tiny_checkpoint

pytestmark = pytest.mark.xdist_group("evaluate")
CFG = EvalConfig(
    suite="metaworld_loop",
    seeds_per_task=1,
    batch=1,
    workers=1,
    image_swap_frames=0,
    min_image_swap_change=0.0,
    films_per_task=0,
    reasoning="action",
)


def spec_of(mount: Path, **changes) -> EvaluationSpec:
    return EvaluationSpec(name="evaluate-a", image=IMAGE, job=f"{mount}/later", nodes=2, mount=str(mount), python=sys.executable, **changes)


class Machines(threading.Thread):
    """Runs the command of each pod of a job, one at a time; the first pod of index `fails` (-1: none) ends before it does anything."""

    def __init__(self, kube: FakeKube, fails: int = -1, always: bool = False):
        super().__init__(daemon=True)
        self.kube, self.fails, self.always, self.over, self.ran = kube, fails, always, threading.Event(), []

    def run(self):
        while not self.over.wait(0.1):
            for name in self.kube.pods():
                pod = self.kube.get("v1", "pods", "actwright", name)
                if pod["status"]["phase"] == "Pending":
                    self.do(name, pod)

    def do(self, name, pod):
        [container] = pod["spec"]["containers"]
        variables = {entry["name"]: entry["value"] for entry in container["env"]}
        index = int(variables["JOB_COMPLETION_INDEX"])
        self.kube.run_pod(name)
        if index == self.fails and (self.always or index not in self.ran):
            self.ran.append(index)
            self.kube.logs[name] = "killed"
            self.kube.end_pod(name, 137, "OOMKilled")
            return
        self.ran.append(index)
        command = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in container["command"]]
        done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
        self.kube.logs[name] = done.stderr
        self.kube.end_pod(name, done.returncode)


@pytest.fixture
def cluster():
    from kubernetes import client

    with FakeKube() as kube:
        yield kube, KubernetesCluster(client.ApiClient(client.Configuration(host=kube.url)), patience=Patience(look=0.5))


def test_pods_give_the_report_of_one_machine_though_one_of_them_failed(cluster, tmp_path):
    kube, adapter = cluster
    checkpoint = tmp_path / "policy"
    write_tiny_checkpoint(checkpoint, embodiment=embodiment())
    suite = open_suite(CFG, CollectConfig())
    alone = evaluate(CFG, checkpoint, tmp_path / "alone", Silent(), suite=suite)
    machines = Machines(kube, fails=1)
    machines.start()
    out = tmp_path / "spread"
    try:
        spread_groups(adapter, spec_of(tmp_path, retries=1), CFG, checkpoint, out, Silent())
    finally:
        machines.over.set()
    assert sorted(machines.ran) == [0, 1, 1]
    assert kube.pods() == []
    left = {file.name: file.stat().st_mtime_ns for file in (out / "scratch" / "groups").iterdir()}
    together = evaluate(CFG, checkpoint, out, Silent(), suite=suite)
    assert {key: value for key, value in together.items() if key != "undigested"} == {k: v for k, v in alone.items() if k != "undigested"}
    assert json.loads((out / "report.json").read_text()) == json.loads((tmp_path / "alone" / "report.json").read_text())
    assert {file.name: file.stat().st_mtime_ns for file in (out / "scratch" / "groups").iterdir()} == left  # nothing was run again
    posted = len([request for request in kube.requests if request.startswith("POST")])
    spread_groups(adapter, spec_of(tmp_path), CFG, checkpoint, out, Silent())
    assert len([request for request in kube.requests if request.startswith("POST")]) == posted  # all is there: no job
    document = load_spread(out / "scratch" / "groups" / "spread.json")
    with pytest.raises(SpecError, match="expected 0 to 1, got 2"):
        run_share(out / "scratch" / "groups" / "spread.json", 2, 2)
    groups = document.groups()
    shares = [share_of(groups, index, 3) for index in range(3)]
    assert sorted(group.name for share in shares for group in share) == sorted(group.name for group in groups)


def test_a_share_that_fails_as_often_as_it_may_ends_it_with_its_last_lines(cluster, tmp_path):
    kube, adapter = cluster
    write_tiny_checkpoint(tmp_path / "policy", embodiment=embodiment())
    machines = Machines(kube, fails=0, always=True)
    machines.start()
    began = time.monotonic()
    try:
        with pytest.raises(JobError, match=r"MaxFailedIndexesExceeded.*exit code 137 \(OOMKilled\)(?s:.*)killed"):
            spread_groups(adapter, spec_of(tmp_path, retries=2), CFG, tmp_path / "policy", tmp_path / "out", Silent())
    finally:
        machines.over.set()
    assert machines.ran.count(0) == 3
    assert time.monotonic() - began < 60
    with pytest.raises(SpecError, match="the policy must be below it"):
        spread_groups(adapter, spec_of(tmp_path / "other"), CFG, tmp_path / "policy", tmp_path / "out", Silent())


@pytest.mark.parametrize("placement", [Placement(kind="job"), Placement(kind="job", queue="robots", priority="research")])
def test_the_job_fits_the_strict_schema(tmp_path, placement):
    [job] = render_manifests(replace(spec_of(tmp_path), placement=placement))
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    assert job["spec"]["backoffLimitPerIndex"] == 3
    assert job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == (placement.queue or None)


def test_an_evaluation_is_no_gang_and_no_other_kind(tmp_path):
    with pytest.raises(SpecError, match="an evaluation is an Indexed Job"):
        spec_of(tmp_path, placement=Placement(kind="jobset"))


@pytest.mark.soak  # short: the same pods and the same report by functions, above
def test_the_command_gives_the_result_of_suite_run(cluster, tmp_path, monkeypatch):
    kube, _ = cluster
    kube.furnish()
    write_tiny_checkpoint(tmp_path / "policy", embodiment=embodiment())
    home = Home(tmp_path)
    words = ["metaworld_loop", str(tmp_path / "policy"), "--cases", "1", "--batch", "1", "--reasoning", "action", "--workers", "1"]
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # the manifest's command is `python`
    machines = Machines(kube)
    machines.start()
    there = ["--pods", "2", "--mount", str(tmp_path), "--kubeconfig", str(kubeconfig(tmp_path, kube.url)), "--image", IMAGE]
    try:
        done = home.actwright("cluster", "evaluate", *words, *there)
    finally:
        machines.over.set()
    assert done.returncode == 0, done.stderr
    assert sorted(machines.ran) == [0, 1]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    again = home.actwright("suite", "run", *words)  # the same step of the store: nothing is run again
    assert again.returncode == 0, again.stderr
    here = json.loads(again.stdout.strip().splitlines()[-1])
    assert (told["successes"], told["trials"], told["interval"]) == (here["successes"], here["trials"], here["interval"])
    assert told["trials"] == 2
