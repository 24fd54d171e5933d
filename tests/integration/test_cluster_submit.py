"""Submitting, watching and ending a training through the real client, against a small API server."""

import json
import threading
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from components.adapters.kubernetes import KubernetesCluster, Patience
from components.adapters.kubernetes_manifest import render_manifests
from components.config.launch.cluster_job import JobSpec
from model_core.spec.errors import JobError
from tests.fake_kube import IMAGE, FakeKube

SPEC = JobSpec(name="train-abc", image=IMAGE, job="/workspace/job.json", nodes=2)
QUICK = Patience(pending=1.0, image=0.3, lost=1.0, look=1.0, queued=1.0)


@pytest.fixture
def kube():
    with FakeKube() as server:
        yield server


@pytest.fixture
def client(kube):
    from kubernetes import client

    configuration = client.Configuration(host=kube.url)
    configuration.retries = False
    return client.ApiClient(configuration)


@pytest.fixture
def cluster(client):
    return KubernetesCluster(client, patience=QUICK)


class Waiting:
    """`cluster.wait` in a thread, with what it saw and how it ended."""

    def __init__(self, cluster, spec=SPEC):
        self.seen, self.error, self.state = [], None, None
        self._thread = threading.Thread(target=self._run, args=(cluster, spec))
        self._thread.start()

    def _run(self, cluster, spec):
        try:
            self.state = cluster.wait(spec, self.seen.append)
        except JobError as error:
            self.error = str(error)

    def end(self):
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self


def test_a_job_runs_from_submission_to_success(kube, cluster, client):
    from kubernetes import client as api

    uid = cluster.submit(SPEC)
    first, second = kube.wait_for_pods(2)
    service = api.CoreV1Api(client).read_namespaced_service(SPEC.name, SPEC.namespace)
    assert service.spec.cluster_ip == "None"
    assert service.metadata.owner_references[0].uid == uid
    pod = api.CoreV1Api(client).read_namespaced_pod(second, SPEC.namespace)
    assert f"{pod.spec.hostname}.{pod.spec.subdomain}" == "train-abc-1.train-abc"
    assert {e.name: e.value for e in pod.spec.containers[0].env}["JOB_COMPLETION_INDEX"] == "1"
    waiting = Waiting(cluster)
    for name in (first, second):
        kube.run_pod(name)
    for name in (first, second):
        kube.end_pod(name)
    ended = waiting.end()
    assert ended.error is None
    assert ended.state.phase == "succeeded"
    assert ended.state.succeeded == 2
    assert ended.seen[-1] == ended.state


def test_submitting_twice_is_once_and_another_spec_is_refused(kube, cluster):
    assert cluster.submit(SPEC) == cluster.submit(SPEC)
    assert len(kube.pods()) == 2
    with pytest.raises(JobError, match=r"exists with another spec.*delete it"):
        cluster.submit(replace(SPEC, image=IMAGE.replace("a" * 64, "b" * 64)))


def test_an_image_by_tag_is_refused_with_what_to_type_unless_it_is_allowed(kube, cluster):
    tagged = replace(SPEC, image="registry.example/actwright:1")
    with pytest.raises(JobError, match="nothing was submitted") as refused:
        cluster.submit(tagged)
    assert "it lacks a digest of the job's image registry.example/actwright:1" in str(refused.value)
    assert "--image NAME@sha256:" in str(refused.value)
    assert "crane digest registry.example/actwright:1" in str(refused.value)
    assert "--allow-tag" in str(refused.value)
    assert not [request for request in kube.requests if request.startswith("POST")]
    cluster.submit(replace(tagged, allow_tag=True))
    name = kube.wait_for_pods(2)[0]
    assert kube.get("v1", "pods", SPEC.namespace, name)["spec"]["containers"][0]["image"] == tagged.image


def test_what_the_client_itself_refuses_is_named_and_nothing_is_sent(kube, cluster):
    wrong = replace(SPEC, env={"THREADS": 4})  # pyright: ignore[reportArgumentType] (what a caller without a type checker writes)
    with pytest.raises(
        JobError, match=r"submitting job train-abc: the Kubernetes client refused the manifest, nothing was sent"
    ) as refused:
        cluster.submit(wrong)
    assert "text ('1', not 1)" in str(refused.value)
    assert not [request for request in kube.requests if request.startswith("POST")]


def test_a_failed_pod_ends_it_with_its_last_lines(kube, cluster):
    cluster.submit(SPEC)
    first, second = kube.wait_for_pods(2)
    kube.logs[second] = "\n".join(["step 1", *(f"line {i}" for i in range(40)), "RuntimeError: out of memory"])
    for name in (first, second):
        kube.run_pod(name)
    kube.end_pod(second, 137, "OOMKilled")
    error = Waiting(cluster).end().error
    assert f"{second} ended with exit code 137 (OOMKilled)" in error
    assert "BackoffLimitExceeded" in error
    assert "| RuntimeError: out of memory" in error
    assert "| step 1" not in error


def test_an_evicted_pod_is_said_so(kube, cluster):
    cluster.submit(SPEC)
    name = kube.wait_for_pods(2)[0]
    kube.set_pod(name, {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."})
    error = Waiting(cluster).end().error
    assert "Evicted" in error
    assert "low on resource: memory" in error


def test_an_image_that_cannot_be_had_ends_it_after_a_while_only(kube, cluster):
    cluster.submit(SPEC)
    name = kube.wait_for_pods(2)[0]
    waiting = {"reason": "ImagePullBackOff", "message": "manifest unknown"}
    container = {"name": "train", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": {"waiting": waiting}}
    kube.set_pod(name, {"phase": "Pending", "containerStatuses": [container]})
    error = Waiting(cluster).end().error
    assert f"cannot get image {IMAGE} (ImagePullBackOff: manifest unknown)" in error
    assert "push it or correct the name" in error


def test_pending_for_ever_is_not_waited_for_for_ever(kube, cluster):
    cluster.submit(SPEC)
    for name in kube.wait_for_pods(2):
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes: insufficient nvidia.com/gpu",
        }
        kube.set_pod(name, {"phase": "Pending", "conditions": [condition]})
    error = Waiting(cluster).end().error
    assert "not all of 2 pods ran after" in error
    assert "insufficient nvidia.com/gpu" in error


def test_half_a_gang_counts_as_pending(kube, cluster):
    cluster.submit(SPEC)
    kube.run_pod(kube.wait_for_pods(2)[0])
    assert cluster.state(SPEC).phase == "pending"
    assert "not all of 2 pods ran" in Waiting(cluster).end().error


def test_a_suspended_job_waits_for_its_queue(kube, cluster):
    cluster.submit(replace(SPEC, suspend=True))
    assert kube.pods() == []
    assert "no pod was made (is a queue holding it" in Waiting(cluster, replace(SPEC, suspend=True)).end().error


def test_a_job_that_was_deleted_by_someone_is_said_so(kube, cluster):
    cluster.submit(SPEC)
    kube.wait_for_pods(2)
    waiting = Waiting(cluster)
    kube.delete("batch/v1", "jobs", SPEC.namespace, SPEC.name)
    assert "someone deleted it" in waiting.end().error


def test_an_api_server_that_is_away_for_a_moment_ends_nothing(kube, cluster):
    cluster.submit(SPEC)
    pods = kube.wait_for_pods(2)
    waiting = Waiting(cluster)
    kube.broken = True
    threading.Event().wait(0.4)
    kube.broken = False
    for name in pods:
        kube.end_pod(name)
    assert waiting.end().state.phase == "succeeded"


def test_an_api_server_that_stays_away_is_an_error(kube, cluster):
    cluster.submit(SPEC)
    kube.broken = True
    assert "the cluster answered 503" in Waiting(cluster).end().error


def test_deleting_takes_pods_and_service_along_and_twice_is_fine(kube, cluster, client):
    from kubernetes import client as api

    cluster.submit(SPEC)
    kube.wait_for_pods(2)
    cluster.delete(SPEC)
    assert kube.pods() == []
    with pytest.raises(api.ApiException) as gone:
        api.CoreV1Api(client).read_namespaced_service(SPEC.name, SPEC.namespace)
    assert gone.value.status == 404
    cluster.delete(SPEC)


def test_logs_are_of_every_pod_that_has_some(kube, cluster):
    cluster.submit(SPEC)
    first, _ = kube.wait_for_pods(2)
    kube.logs[first] = "a\nb\nc\n"
    assert cluster.logs(SPEC, lines=2) == {first: "b\nc"}


# --- the fake itself, so that what passes against it means something --------------------------------------------------


def test_the_fake_refuses_what_a_cluster_refuses(kube, client):
    from kubernetes import client as api

    batch = api.BatchV1Api(client)
    job, _ = render_manifests(SPEC)
    misspelt = {**job, "spec": {**job["spec"], "backofLimit": 1}}
    # past the client, which would refuse it itself
    url = f"{kube.url}/apis/batch/v1/namespaces/{SPEC.namespace}/jobs"
    with pytest.raises(urllib.error.HTTPError) as invalid:
        urllib.request.urlopen(urllib.request.Request(url, data=json.dumps(misspelt).encode(), method="POST"))
    assert invalid.value.code == 422
    assert "backofLimit" in invalid.value.read().decode()
    made = batch.create_namespaced_job(SPEC.namespace, job)
    with pytest.raises(api.ApiException) as twice:
        batch.create_namespaced_job(SPEC.namespace, job)
    assert twice.value.status == 409
    stale = {**job, "metadata": {**job["metadata"], "resourceVersion": "1"}}
    batch.patch_namespaced_job(SPEC.name, SPEC.namespace, {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(api.ApiException) as conflict:
        batch.replace_namespaced_job(SPEC.name, SPEC.namespace, stale)
    assert conflict.value.status == 409
    with pytest.raises(api.ApiException) as missing:
        batch.read_namespaced_job("other", SPEC.namespace)
    assert missing.value.status == 404
    assert batch.read_namespaced_job(SPEC.name, SPEC.namespace).metadata.uid == made.metadata.uid


def test_the_fake_honours_the_propagation_policy_and_tells_how_a_job_ends(kube, client):
    from kubernetes import client as api

    batch = api.BatchV1Api(client)
    for policy, left in (("", 2), ("Orphan", 4), ("Background", 4), ("Foreground", 4)):
        name = f"job{policy.lower()}"
        job, _ = render_manifests(replace(SPEC, name=name))
        batch.create_namespaced_job(SPEC.namespace, job)
        batch.delete_namespaced_job(name, SPEC.namespace, **({"propagation_policy": policy} if policy else {}))
        assert len(kube.pods()) == left, policy or "none: a Job without a policy leaves its pods behind"
    job, _ = render_manifests(SPEC)
    batch.create_namespaced_job(SPEC.namespace, job)
    for name in (one for one in kube.pods() if one.startswith(f"{SPEC.name}-")):
        kube.end_pod(name)
    status = batch.read_namespaced_job(SPEC.name, SPEC.namespace).status
    assert [one.type for one in status.conditions] == ["SuccessCriteriaMet", "Complete"]
    assert status.succeeded == 2


def test_the_fake_selects_and_watches_as_a_cluster_does(kube, client):
    from kubernetes import client as api
    from kubernetes import watch

    core = api.CoreV1Api(client)
    for name, labels in (("one", {"a": "1"}), ("two", {"a": "2"}), ("three", {})):
        core.create_namespaced_config_map(
            "actwright", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}
        )

    def chosen(selector):
        return sorted(i.metadata.name for i in core.list_namespaced_config_map("actwright", label_selector=selector).items)

    assert chosen("a=1") == ["one"]
    assert chosen("a!=1") == ["three", "two"]
    assert chosen("a") == ["one", "two"]
    assert chosen("!a") == ["three"]
    assert chosen("a in (1, 2)") == ["one", "two"]
    version = core.list_namespaced_config_map("actwright").metadata.resource_version
    core.patch_namespaced_config_map("two", "actwright", {"data": {"x": "y"}})
    core.delete_namespaced_config_map("one", "actwright")
    events = watch.Watch().stream(core.list_namespaced_config_map, "actwright", resource_version=version, timeout_seconds=1)
    assert [(e["type"], e["object"].metadata.name) for e in events] == [("MODIFIED", "two"), ("DELETED", "one")]


def test_the_fake_forgets_old_versions(client):
    from kubernetes import client as api
    from kubernetes import watch

    with FakeKube(keep_events=2) as small:
        core = api.CoreV1Api(api.ApiClient(api.Configuration(host=small.url)))
        for name in "abcd":
            core.create_namespaced_config_map("actwright", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
        stream = watch.Watch().stream(core.list_namespaced_config_map, "actwright", resource_version="1", timeout_seconds=1)
        with pytest.raises(api.ApiException) as expired:
            list(stream)
        assert expired.value.status == 410
