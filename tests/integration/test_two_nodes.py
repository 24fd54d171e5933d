"""The training stage submits itself and the very command of its manifest runs as two nodes: two namespaces joined by a cable (in soak).

Names, addresses and interfaces exist only inside the namespaces that the test makes. Skips where they cannot be made.
"""

import json
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from components.adapters.kubernetes import KubernetesCluster, Patience
from components.adapters.storage.frozen_data import send_frozen
from components.adapters.storage.object_store import FolderStore
from components.config.launch.cluster_job import JobSpec
from components.config.launch.placement import Placement
from components.config.launch.stored_data import StoredData
from components.config.records import Silent
from components.config.train_config import TrainConfig
from components.training.job import JobFiles, TrainingTask
from components.training.on_cluster import train_on_cluster
from components.training.supervision.relay import events_of
from model_core.spec.errors import ActwrightError, SpecError
from tests.fake_kube import IMAGE, FakeKube
from tests.fake_kube_kinds import FakeCluster
from tests.kubelets import Kubelets
from tests.namespaces import needs_namespaces, two_hosts
from tests.toy_model import toy_task
from tests.training_rank import train_as_a_rank

pytestmark = pytest.mark.xdist_group("ranks")

CONFIG = TrainConfig(
    steps=20,
    global_batch=8,
    micro_batch=4,
    warmup_steps=4,
    checkpoint_every=10,
    log_every=5,
    precision="fp32",
    threads=1,
    world_size=2,
    zero_stage=2,
)


class ForkedPods(threading.Thread):
    """Two machines of a cluster whose pods do what their commands would, in forks of a process that has loaded everything."""

    def __init__(self, kube, ranks, job):
        super().__init__(daemon=True)
        self._kube, self._ranks, self._job = kube, ranks, job

    def run(self):
        while len(pods := self._kube.pods()) < 2:
            time.sleep(0.05)
        for name in pods:
            [container] = self._kube.get("v1", "pods", "actwright", name)["spec"]["containers"]
            assert container["command"][-1] == str(self._job)
            self._kube.run_pod(name)
        done = self._ranks.run("call", "tests.training_rank:be_ranks", str(self._job), "2", under=self._job.parent)
        for name in pods:
            self._kube.logs[name] = done.told
            self._kube.end_pod(name, done.code)


def curve(out):
    return [point["loss"] for line in JobFiles(out).metrics.read_text().splitlines() if "loss" in (point := json.loads(line))]


@pytest.fixture
def cluster():
    from kubernetes import client

    with FakeKube() as kube:
        yield kube, KubernetesCluster(client.ApiClient(client.Configuration(host=kube.url)), patience=Patience(look=0.5))


def check_as_one_machine(ranks, record, frozen, out):
    """Two processes gave the curve of one."""
    assert record["steps"] == CONFIG.steps
    alone = out.parent / "alone"
    train_as_a_rank(ranks, toy_task(replace(CONFIG, world_size=1, zero_stage=0), frozen, alone))
    assert len(curve(alone)) == CONFIG.steps
    assert curve(out) == pytest.approx(curve(alone), rel=1e-4)
    assert (JobFiles(out).checkpoint / "model.safetensors").exists()
    libraries = json.loads((JobFiles(out).checkpoint / "libraries.json").read_text())
    assert "torch._inductor.compile_fx" not in libraries  # no step is compiled


def test_two_ranks_of_a_job_train_as_one_machine_does(cluster, ranks, tmp_path):
    kube, adapter = cluster
    frozen, out = tmp_path / "frozen", tmp_path / "cluster"
    frozen.mkdir()
    (frozen / "toy.json").write_text("{}")
    spec = JobSpec(name="train-two", image=IMAGE, job=f"{tmp_path}/set-later", nodes=2, mount=str(tmp_path), python=sys.executable)
    ForkedPods(kube, ranks, JobFiles(out).job).start()
    record = train_on_cluster(toy_task(CONFIG, frozen, out), None, Silent(), cluster=adapter, spec=spec)
    assert kube.pods() == []
    check_as_one_machine(ranks, record, frozen, out)


@pytest.mark.soak  # short: the same ranks above, without torchrun and without a network between the nodes
def test_two_nodes_train_as_one_machine_does(cluster, ranks, tmp_path):
    needs_namespaces()
    kube, adapter = cluster
    frozen = tmp_path / "frozen"
    frozen.mkdir()
    (frozen / "toy.json").write_text("{}")
    spec = JobSpec(name="train-two", image=IMAGE, job=f"{tmp_path}/set-later", nodes=2, mount=str(tmp_path), python=sys.executable)
    with two_hosts([spec.node_0, f"{spec.name}-1.{spec.name}"]) as spaces:
        kubelets = Kubelets(kube, spaces, tmp_path)
        kubelets.start()
        try:
            record = train_on_cluster(toy_task(CONFIG, frozen, tmp_path / "cluster"), None, Silent(), cluster=adapter, spec=spec)
        finally:
            kubelets.stop()
    assert kube.pods() == []
    check_as_one_machine(ranks, record, frozen, tmp_path / "cluster")


@pytest.mark.soak  # short: test_local_s3 fetches a data set, test_cluster renders the pods, the ranks above train
def test_two_nodes_train_on_data_that_each_fetched(cluster, ranks, tmp_path, monkeypatch):
    """They share the output alone: the data set is gone from the launcher's side before they begin."""
    needs_namespaces()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # the first container's `actwright`
    kube, adapter = cluster
    frozen, kept, cache, work = tmp_path / "frozen", tmp_path / "kept", tmp_path / "cache", tmp_path / "work"
    for folder in (frozen, cache, work):
        folder.mkdir()
    (frozen / "toy.json").write_text("{}")
    digest = send_frozen(FolderStore(tmp_path / "store"), frozen, Silent())
    frozen.rename(kept)
    data = StoredData(storage=f"folder:{tmp_path / 'store'}", digest=digest, cache=str(cache))
    spec = JobSpec(name="train-two", image=IMAGE, job=f"{work}/set-later", nodes=2, mount=str(work), python=sys.executable, data=data)
    with two_hosts([spec.node_0, f"{spec.name}-1.{spec.name}"]) as spaces:
        kubelets = Kubelets(kube, spaces, tmp_path)
        kubelets.start()
        try:
            record = train_on_cluster(toy_task(CONFIG, frozen, work / "cluster"), None, Silent(), cluster=adapter, spec=spec)
        finally:
            kubelets.stop()
    for node in range(2):
        assert (tmp_path / f"machine-{node}" / "data" / digest / "toy.json").is_file()
    assert not any(cache.iterdir())
    check_as_one_machine(ranks, record, kept, work / "cluster")


@pytest.mark.soak  # short: test_cluster_kinds holds jobs back without ranks, the ranks above train
def test_a_train_job_that_kueue_holds_back_in_mid_training_goes_on_and_costs_no_restart(ranks, tmp_path):
    """A TrainJob of a queue: admitted, killed by a preemption after a checkpoint, admitted again; the curve is that of one machine."""
    from kubernetes import client

    needs_namespaces()
    config = replace(CONFIG, steps=400, checkpoint_every=20, restarts=0)
    frozen, out = tmp_path / "frozen", tmp_path / "cluster"
    frozen.mkdir()
    (frozen / "toy.json").write_text("{}")
    placement = Placement(kind="trainjob", queue="research")
    spec = JobSpec(
        name="train-two",
        image=IMAGE,
        job=f"{tmp_path}/set-later",
        nodes=2,
        mount=str(tmp_path),
        python=sys.executable,
        placement=placement,
    )
    held = []

    def preempt(kube):
        while not (kube.requests and ("trainjobs", spec.name) in {(key[1], key[3]) for key in list(kube._objects)}):
            time.sleep(0.05)
        kube.admit("trainjobs", spec.name)
        while not list(JobFiles(out).checkpoints.glob("*/manifest.json")):
            time.sleep(0.02)
        kube.preempt("trainjobs", spec.name)
        held.append(len(curve(out)))
        time.sleep(2.0)
        kube.admit("trainjobs", spec.name)

    with FakeCluster(jobset="v1alpha2", trainer="v1alpha1", kueue="v1beta2") as kube:
        adapter = KubernetesCluster(client.ApiClient(client.Configuration(host=kube.url)), patience=Patience(look=0.5))
        with two_hosts([spec.node_0, f"{spec.name}-node-0-1.{spec.name}"]) as spaces:
            kubelets = Kubelets(kube, spaces, tmp_path)
            kubelets.start()
            threading.Thread(target=preempt, args=(kube,), daemon=True).start()
            try:
                record = train_on_cluster(toy_task(config, frozen, out), None, Silent(), cluster=adapter, spec=spec)
            finally:
                kubelets.stop()
    assert record["steps"] == config.steps
    starts = [event["step"] for event in events_of(JobFiles(out)) if event["event"] == "start"]
    assert len(starts) == 2
    assert starts[1] >= config.checkpoint_every  # from its checkpoint
    assert held[0] < config.steps // config.log_every  # it was not over when it was held back
    assert len([request for request in kube.requests if request.startswith("POST") and request.endswith("/trainjobs")]) == 1
    alone = tmp_path / "alone"
    train_as_a_rank(ranks, toy_task(replace(config, world_size=1, zero_stage=0), frozen, alone))
    assert curve(out) == pytest.approx(curve(alone), rel=1e-4)


@pytest.mark.soak  # short: test_train tells a failure of a rank by its own words
def test_a_worker_that_fails_is_told_in_its_own_words(cluster, tmp_path):
    needs_namespaces()
    kube, adapter = cluster
    (tmp_path / "frozen").mkdir()  # and no toy.json in it: the workers cannot open their data
    spec = JobSpec(name="train-bad", image=IMAGE, job=f"{tmp_path}/set-later", nodes=2, mount=str(tmp_path), python=sys.executable)
    with two_hosts([spec.node_0, f"{spec.name}-1.{spec.name}"]) as spaces:
        kubelets = Kubelets(kube, spaces, tmp_path)
        kubelets.start()
        try:
            with pytest.raises(ActwrightError, match=r"toy\.json"):
                train_on_cluster(
                    toy_task(CONFIG, tmp_path / "frozen", tmp_path / "out"),
                    None,
                    Silent(),
                    cluster=adapter,
                    spec=spec,
                )
        finally:
            kubelets.stop()
    assert kube.pods() == []


def test_what_pods_cannot_see_or_be_is_refused_before_anything_is_submitted(cluster, tmp_path):
    kube, adapter = cluster
    spec = JobSpec(name="train-two", image=IMAGE, job="/workspace/j", nodes=2)
    with pytest.raises(SpecError, match="pods see only /workspace"):
        train_on_cluster(toy_task(CONFIG, tmp_path, tmp_path / "out"), None, Silent(), cluster=adapter, spec=spec)
    with pytest.raises(SpecError, match="3 nodes x 1 processes"):
        train_on_cluster(
            TrainingTask(config=CONFIG, frozen=tmp_path, out=tmp_path), None, Silent(), cluster=adapter, spec=replace(spec, nodes=3)
        )
    assert kube.requests == []
