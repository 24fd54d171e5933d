"""A training as a JobSet, as Kubeflow's TrainJob, and in a queue of Kueue: the real client against a small API server with these kinds."""

import json
import threading
import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from components.adapters.job_kinds.kinds import KINDS
from components.adapters.job_kinds.platform import SECRETS
from components.adapters.kubernetes import KubernetesCluster, Patience
from components.adapters.kubernetes_manifest import render_manifests
from components.config.launch.cluster_job import JobSpec
from components.config.launch.placement import Placement
from components.config.records import Silent
from components.config.train_config import TrainConfig
from components.training import on_cluster
from flows.commands.cluster.commands import cluster_app
from model_core.spec.errors import JobError, SpecError
from tests.fake_kube import IMAGE
from tests.fake_kube_kinds import FakeCluster, lost_by_models
from tests.integration.loop_runs import eventually
from tests.kubelets import kubeconfig
from tests.toy_model import toy_task

QUEUE = Placement(queue="research", priority="production")
SPEC = JobSpec(name="train-abc", image=IMAGE, job="/workspace/job.json", nodes=2, placement=QUEUE)
KUEUE = "kueue.x-k8s.io/v1beta2"


def open_fake(kube):
    from kubernetes import client

    configuration = client.Configuration(host=kube.url)
    configuration.retries = False
    return KubernetesCluster(client.ApiClient(configuration), patience=Patience(pending=20, queued=20, look=0.5))


def furnish(kube, *, quota="64", modes=("ReadWriteMany",), active="True"):
    """What a job of SPEC needs, made by an administrator."""
    condition = [{"type": "Active", "status": active, "reason": "FlavorNotFound", "message": "no flavor h200"}]
    kube.put("v1", "persistentvolumeclaims", {"metadata": {"name": SPEC.claim}, "spec": {"accessModes": list(modes)}}, "actwright")
    kube.put("v1", "serviceaccounts", {"metadata": {"name": SPEC.service_account}}, "actwright")
    queue = {"metadata": {"name": "research"}, "spec": {"clusterQueue": "gpus"}, "status": {"conditions": condition}}
    kube.put(KUEUE, "localqueues", queue, "actwright")
    kube.put(KUEUE, "workloadpriorityclasses", {"metadata": {"name": "production"}, "value": 1000})
    amounts = {"cpu": quota, "memory": "1Ti", "nvidia.com/gpu": "16"}
    resources = [{"name": name, "nominalQuota": amount} for name, amount in amounts.items()]
    group = {"coveredResources": list(amounts), "flavors": [{"name": "h200", "resources": resources}]}
    kube.put(KUEUE, "clusterqueues", {"metadata": {"name": "gpus"}, "spec": {"namespaceSelector": {}, "resourceGroups": [group]}})
    kube.put(KUEUE, "resourceflavors", {"metadata": {"name": "h200"}, "spec": {"nodeLabels": {"a": "b"}, "topologyName": "racks"}})
    levels = [{"nodeLabel": "example.com/rack"}, {"nodeLabel": "kubernetes.io/hostname"}]
    kube.put(KUEUE, "topologies", {"metadata": {"name": "racks"}, "spec": {"levels": levels}})
    for name in ("a", "b"):
        room = {"cpu": "32", "memory": "256Gi", "nvidia.com/gpu": "8"}
        kube.put("v1", "nodes", {"metadata": {"name": name}, "status": {"allocatable": room}})


@pytest.fixture
def kube():
    with FakeCluster(jobset="v1alpha2", trainer="v1alpha1", kueue="v1beta2") as server:
        furnish(server)
        yield server


def wait_apart(cluster, spec):
    ended, seen = [], []
    thread = threading.Thread(target=lambda: ended.append(cluster.wait(spec, lambda state: seen.append(state.phase))), daemon=True)
    thread.start()
    return thread, ended, seen


@pytest.mark.parametrize("kind", ["job", "jobset", "trainjob"])
def test_a_job_of_each_kind_waits_is_admitted_preempted_and_succeeds(kube, kind):
    cluster = open_fake(kube)
    spec = cluster.fitted(replace(SPEC, placement=replace(QUEUE, kind=kind)))
    uid, plural = cluster.submit(spec), KINDS[kind].plural
    assert cluster.submit(spec) == uid
    assert cluster.state(spec).phase == "queued"
    assert kube.pods() == []
    thread, ended, seen = wait_apart(cluster, spec)
    kube.admit(plural, spec.name)
    for name in kube.wait_for_pods(2):
        pod = kube.get("v1", "pods", "actwright", name)
        assert pod["spec"]["subdomain"] == spec.node_0.split(".")[1]
        if pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == "0":
            assert pod["spec"]["hostname"] == spec.node_0.split(".")[0]
        kube.run_pod(name)
    eventually(lambda: "running" in seen, 20)
    kube.preempt(plural, spec.name)
    kube.wait_for_pods(0)
    eventually(lambda: seen[-1] == "queued", 20)
    kube.admit(plural, spec.name)
    for name in kube.wait_for_pods(2):
        kube.run_pod(name)
        kube.end_pod(name)
    thread.join(20)
    assert ended[0].phase == "succeeded"
    assert ended[0].succeeded == 2
    cluster.delete(spec)
    left = {key[1] for key in kube._objects} & {"jobs", "jobsets", "trainjobs", "trainingruntimes", "pods", "services"}
    assert left == set()


def test_the_last_kind_that_a_cluster_serves_is_taken():
    for installed, expected in (({}, "job"), ({"jobset": "v1alpha2"}, "jobset"), ({"trainer": "v1alpha1"}, "job")):
        with FakeCluster(**installed) as kube:
            assert open_fake(kube).lacks(JobSpec(name="a", image="x", job="/workspace/j"))[0] == expected
    with FakeCluster(jobset="v1alpha2", trainer="v1alpha1") as kube:
        assert open_fake(kube).lacks(SPEC)[0] == "trainjob"
        del kube.trainer_status["trainerStatus"]  # an older Trainer, whose jobs Kueue does not resume
        kind, lacks = open_fake(kube).lacks(SPEC)
        assert kind == "jobset"
        with pytest.raises(JobError, match=r"a Trainer that is new enough.*older than 2\.2.*upgrade Kubeflow Trainer"):
            open_fake(kube).fitted(replace(SPEC, placement=replace(QUEUE, kind="trainjob")))
        assert "lacks queues of kueue.x-k8s.io/v1beta2: Kueue is not installed" in "".join(lack.line() for lack in lacks)


def lines(kube, spec):
    return "\n".join(lack.line() for lack in open_fake(kube).lacks(spec)[1])


@pytest.mark.parametrize(
    ("version", "said"),
    [("v1beta1", "it serves only v1beta1. Fix: install Kueue 0.20 or newer"), (None, "Kueue is not installed")],
)
def test_a_kueue_that_is_missing_or_too_old_is_named(version, said):
    with FakeCluster(**({"kueue": version} if version else {})) as kube:
        assert f"lacks queues of kueue.x-k8s.io/v1beta2: {said}" in lines(kube, SPEC)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"placement": replace(QUEUE, queue="other")}, "lacks LocalQueue other: there is none in namespace actwright"),
        ({"placement": replace(QUEUE, priority="first")}, "lacks WorkloadPriorityClass first: there is none"),
        ({"cpu": "40"}, "lacks enough cpu in ClusterQueue gpus: its quota is 64 and the job needs 80"),
        ({"cpu": "40"}, "may lack machines with enough cpu: of 2 machines 0 have 40 (the most on one is 32), the job needs 2"),
        ({"procs": 8, "gpus": 8, "nodes": 3}, "lacks enough nvidia.com/gpu in ClusterQueue gpus: its quota is 16 and the job needs 24"),
        ({"placement": replace(QUEUE, rdma=2)}, "lacks rdma/rdma_shared_device_a in ClusterQueue gpus: it covers no such resource"),
        (
            {"placement": replace(QUEUE, topology="example.com/block")},
            "lacks topology level example.com/block: its levels are",
        ),
        ({"claim": "other"}, "lacks claim other in namespace actwright: there is none"),
        ({"service_account": "nobody"}, "lacks service account nobody"),
        ({"image": "registry.example/worker:1"}, "lacks a digest of the job's image registry.example/worker:1: it is a tag"),
    ],
)
def test_what_a_job_needs_and_the_cluster_lacks_is_named_and_nothing_is_submitted(kube, changes, said):
    spec = replace(SPEC, **changes)
    assert said in lines(kube, spec)
    if said.startswith("lacks"):
        with pytest.raises(JobError, match="this cluster cannot run the job, nothing was submitted"):
            open_fake(kube).fitted(spec)
    assert not [request for request in kube.requests if request.startswith("POST")]


def test_a_job_that_fits_lacks_nothing_and_what_may_not_be_read_stops_nothing(kube):
    placement = replace(QUEUE, topology="example.com/rack", topology_preferred=True)
    spec = replace(SPEC, placement=placement, procs=8, gpus=8)
    assert open_fake(kube).fitted(spec).placement.kind == "trainjob"
    kube.forbidden = {"nodes", "clusterqueues", "secrets"}
    assert open_fake(kube).fitted(spec).placement.kind == "trainjob"
    assert "may lack machines: the cluster answered 403" in lines(kube, spec)
    assert "job's image" not in lines(kube, spec)
    assert "may lack a digest of the job's image worker:1: it is a tag" in lines(kube, replace(spec, image="worker:1", allow_tag=True))


def test_an_inactive_queue_and_a_claim_of_one_machine_are_named():
    with FakeCluster(kueue="v1beta2") as kube:
        furnish(kube, modes=("ReadWriteOnce",), active="False")
        told = lines(kube, SPEC)
        assert "lacks an active LocalQueue research: FlavorNotFound: no flavor h200" in told
        assert "lacks ReadWriteMany of claim actwright-store in namespace actwright: its modes are ReadWriteOnce, and 2 machines" in told


def test_the_platforms_secrets_and_images_by_tag_are_named(kube):
    kube.put("v1", "secrets", {"metadata": {"name": "actwright-s3"}, "data": {"access-key": "YQ=="}}, "actwright")
    pod = {"containers": [{"name": "server", "image": "registry.example/worker:1"}]}
    labels = {"app": "mlflow"}
    template = {"metadata": {"labels": labels}, "spec": pod}
    body = {"metadata": {"name": "mlflow"}, "spec": {"selector": {"matchLabels": labels}, "template": template}}
    kube.put("apps/v1", "deployments", {**body, "status": {"readyReplicas": 0}}, "actwright")
    running = {"name": "server", "image": "x", "imageID": "registry.example/worker@sha256:" + "a" * 64, "ready": True, "restartCount": 0}
    kube.put("v1", "pods", {"metadata": {"name": "m"}, "spec": pod, "status": {"containerStatuses": [running]}}, "actwright")
    told = lines(kube, SPEC)
    assert "lacks secret-key in secret actwright-s3 in namespace actwright: it has access-key" in told
    assert "lacks secret console-tls in namespace actwright: there is none" in told
    assert "may lack 1 ready pods of mlflow: 0 are ready" in told
    assert "may lack a digest of the image registry.example/worker:1 of mlflow: it is a tag" in told
    assert "Fix: pin registry.example/worker@sha256:" + "a" * 64 in told


def test_a_training_that_its_queue_held_back_for_long_is_not_called_hung(kube, tmp_path, monkeypatch):
    monkeypatch.setattr(on_cluster, "_HANG_S", 1.0)
    frozen = tmp_path / "frozen"
    frozen.mkdir()
    config = TrainConfig(steps=20, global_batch=8, micro_batch=4, warmup_steps=4, precision="fp32", threads=1, world_size=2, zero_stage=2)
    spec = replace(SPEC, mount=str(tmp_path), job=f"{tmp_path}/later", placement=replace(QUEUE, kind="job"))
    ended = []

    def train():
        try:
            on_cluster.train_on_cluster(toy_task(config, frozen, tmp_path / "out"), None, Silent(), cluster=open_fake(kube), spec=spec)
        except JobError as error:
            ended.append(str(error))

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    eventually(lambda: ("POST", "jobs") in {(r.split(" ")[0], r.rsplit("/", 1)[1]) for r in list(kube.requests)}, 20)
    kube.admit("jobs", spec.name)
    for name in kube.wait_for_pods(2):
        kube.run_pod(name)
    time.sleep(0.6)  # all run, so ranks are looked for; the patience for one that does nothing has not passed
    kube.preempt("jobs", spec.name)
    time.sleep(3.0)  # three times that patience
    assert not ended, ended
    kube.delete("batch/v1", "jobs", "actwright", spec.name, "Foreground")
    thread.join(20)
    assert "someone deleted it" in ended[0]


def test_manifests_of_each_kind_hold_only_fields_that_the_models_of_its_publisher_know(kube):
    pytest.importorskip("kubeflow_trainer_api", reason="kubeflow-trainer-api is not installed (make setup-all)")
    placement = replace(QUEUE, rdma=8, topology="example.com/rack")
    whole = replace(SPEC, procs=8, gpus=8, env={"NCCL_DEBUG": "WARN"}, placement=placement)
    for kind in ("jobset", "trainjob"):
        for document in render_manifests(replace(whole, placement=replace(placement, kind=kind))):
            assert lost_by_models(document) == [], document["kind"]
    [job_set] = render_manifests(replace(whole, placement=replace(placement, kind="jobset")))
    job_set["spec"]["netwrok"] = {}
    assert lost_by_models(job_set) == ["spec.netwrok"]


@pytest.mark.parametrize("kind", ["jobset", "trainjob"])
def test_the_job_inside_fits_the_strict_schema_of_a_job(kind):
    import kubernetes_validate

    *_, document = render_manifests(replace(SPEC, placement=replace(QUEUE, kind=kind, rdma=1)))
    spec = render_manifests(replace(SPEC, placement=replace(QUEUE, kind=kind, rdma=1)))[0]["spec"]
    [inner] = (spec["template"]["spec"] if kind == "trainjob" else spec)["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, **{"spec": inner["template"]["spec"]}}
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    assert document["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert document["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "production"
    assert document["spec"]["suspend"] is True
    assert len(inner["name"]) <= 20


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Placement(priority="high"), "read by Kueue alone. Fix: name the queue too"),
        (lambda: Placement(queue="A B"), "placement.queue is no name"),
        (lambda: Placement(rdma=-1), "placement.rdma"),
        (lambda: Placement(queue="q", topology_preferred=True), "needs topology"),
        (lambda: replace(SPEC, name="x" * 41, placement=Placement(kind="jobset")), "a jobset has at most 40"),
        (lambda: replace(SPEC, image="a@sha256:12"), "an image by digest is"),
    ],
)
def test_what_no_cluster_can_run_is_refused(make, said):
    with pytest.raises(SpecError, match=said):
        make()


def test_doctor_names_what_is_lacking_and_its_exit_code_says_so(kube, tmp_path, monkeypatch):
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / ".actwright"))
    words = ["doctor", "loop", "--kubeconfig", str(kubeconfig(tmp_path, kube.url)), "--queue", "research"]
    words += ["--image", "registry.example/worker@sha256:" + "a" * 64]
    done = CliRunner().invoke(cluster_app, words)
    assert done.exit_code == 1, done.output
    assert "would be submitted as a trainjob in namespace actwright" in done.output
    assert "job's image" not in done.output
    tagged = CliRunner().invoke(cluster_app, [*words[:-1], "registry.example/worker:1"])
    assert "it lacks a digest of the job's image registry.example/worker:1: it is a tag" in tagged.output
    assert "crane digest registry.example/worker:1" in tagged.output
    assert "it lacks secret actwright-postgres in namespace actwright: there is none. Fix:" in done.output
    for name, keys in SECRETS.items():
        kube.put("v1", "secrets", {"metadata": {"name": name}, "data": dict.fromkeys(keys, "YQ==")}, "actwright")
    done = CliRunner().invoke(cluster_app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.strip().splitlines()[-1]) == {"kind": "trainjob", "lacks": [], "may_lack": []}
    assert "nothing is certainly lacking" in done.output
