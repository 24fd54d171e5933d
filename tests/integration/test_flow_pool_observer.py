"""What watches the runs of a pool: the observer within Prefect's Kubernetes worker, and `actwright schedule --pool`.

Prefect's server and worker with its observer are the real ones, as are the command and the flow; the API server is the small one of tests.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.adapters.http import NoAnswerError, get
from components.adapters.http import request as http
from flows.platform.flow_runs import FlowRuns
from flows.platform.settings import Settings
from model_core.spec.errors import NotReady
from tests.fake_kube import IMAGE, FakeKube
from tests.integration.loop_runs import ROOT, Home, eventually, kill_tree
from tests.integration.test_flow_pool import TEMPLATE, ran, recipe_file
from tests.integration.test_rollout_requests import Prefect
from tests.kubelets import kubeconfig

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(3000)]  # short: tests/unit/test_flow_runs.py, test_flow_pool.py

NO_POD = "No active or succeeded pods found for any job"  # what the observer alone tells


class Pool:
    """A home, Prefect's server, its Kubernetes worker as infra/k8s/components/flow-pool starts it, and `actwright schedule --pool`."""

    def __init__(self, folder: Path, kube: FakeKube) -> None:
        self.home, self.kube, self.recipe = Home(folder), kube, recipe_file(folder)
        self.prefect = Prefect(settings=Settings(home=folder / "prefect-home"))  # pyright: ignore[reportCallIssue]
        self.at = {"PREFECT_API_URL": self.prefect.api, "KUBECONFIG": str(kubeconfig(folder, kube.url))}
        self.at |= {"PREFECT_HOME": str(folder / "worker-home"), "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES": "actwright"}
        self.runs = FlowRuns(api=self.prefect.api, deployment="retrain/retrain")
        self.started: list[subprocess.Popen[Any]] = []
        self._log = (folder / "worker.log").open("w")

    def start_worker(self) -> subprocess.Popen[Any]:
        words = ("worker", "start", "--pool", "flows", "--type", "kubernetes", "--limit", "1", "--base-job-template", str(TEMPLATE))
        environment = {**self.home.environment, **self.at, "PREFECT_WORKER_QUERY_SECONDS": "2"}
        command = [sys.executable, "-m", "prefect", *words]
        worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=self._log, stderr=self._log, start_new_session=True)
        self.started.append(worker)
        return worker

    def start_schedule(self) -> subprocess.Popen[Any]:
        words = ("schedule", self.recipe, "--cron", "0 0 1 1 *", "--pool", "flows", "--image", IMAGE)
        command = self.home.start(*words, ACTWRIGHT_PREFECT_API_URL=self.prefect.api)
        self.started.append(command)
        assert command.stdout is not None
        assert command.stdout.readline(), command.communicate()[1]
        return command

    def has_pool(self) -> bool:
        try:
            return get(f"{self.prefect.api}/work_pools/flows", timeout_s=20).ok
        except NoAnswerError:
            return False

    def make_run(self) -> bool:
        """Whether Prefect took it: before the command has registered the deployment it does not."""
        try:
            self.runs.make("now", {"recipe": self.recipe}, key="now")
        except NotReady:
            return False
        return True

    def run(self) -> dict[str, Any]:
        return next((one for one in self.prefect.runs() if one["name"] == "now"), {})

    def states(self) -> list[tuple[str, str]]:
        """(name, message) of each state of the run, the first one first."""
        found = get(f"{self.prefect.api}/flow_run_states/?flow_run_id={self.run()['id']}", timeout_s=60).json()
        return [(one["name"], one["message"] or "") for one in sorted(found, key=lambda one: one["timestamp"])]

    def next_pod(self, seen: set[str]) -> str:
        """The pod that the worker had made for the run since; it runs, as its flow tells Prefect."""
        (pod,) = eventually(lambda: set(self.kube.pods()) - seen, timeout_s=600)  # type: ignore[misc]
        seen.add(pod)
        self.kube.run_pod(pod)
        return pod

    def tell_running(self) -> None:
        """What the flow of a pod does first; a run that was put back by some seconds is told to wait, and asks again."""
        body = b'{"state": {"type": "RUNNING"}}'
        where = f"{self.prefect.api}/flow_runs/{self.run()['id']}/set_state"

        def is_accepted() -> bool:
            told = http("POST", where, timeout_s=60, headers={"Content-Type": "application/json"}, body=body)
            status = told.json()["status"]
            assert status in ("ACCEPT", "WAIT"), told.body
            return status == "ACCEPT"

        eventually(is_accepted, timeout_s=120)

    def stop(self) -> None:
        for one in self.started:
            kill_tree(one.pid)
            one.communicate()
        for left in self.home.processes():
            kill_tree(left.pid)
        self.prefect.kill()
        self._log.close()


def test_a_run_whose_job_is_lost_is_seen_by_the_observer_and_run_again(tmp_path: Path) -> None:
    """First a pod is killed; then the next one while worker, observer, command and Prefect are away. The third ends the same run."""
    pytest.importorskip("prefect_kubernetes", reason="prefect-kubernetes is not installed (make setup-all)")
    seen: set[str] = set()
    with FakeKube() as kube:
        pool = Pool(tmp_path, kube)
        try:
            pool.prefect.start()
            worker = pool.start_worker()
            eventually(pool.has_pool, timeout_s=600)
            command = pool.start_schedule()
            eventually(pool.make_run, timeout_s=600)

            first = pool.next_pod(seen)
            pool.tell_running()
            kube.end_pod(first, 137, "OOMKilled")
            second = pool.next_pod(seen)
            assert pool.states()[-1][0] != "Running", "a run that was put back waits for its pod's flow"
            assert [told for told in pool.states() if told[0] == "Crashed"] == [("Crashed", NO_POD)]

            pool.tell_running()
            for one in (command, worker):
                kill_tree(one.pid)
            pool.prefect.kill()
            kube.end_pod(second, 137, "OOMKilled")
            pool.prefect.start()
            assert pool.run()["state_type"] != "CRASHED", "nobody saw it"
            pool.start_worker()
            eventually(lambda: pool.run().get("state_type") == "CRASHED", timeout_s=600)  # the observer looks at the Jobs that are there
            assert set(kube.pods()) == {first, second}, "only the command lets it run again"
            pool.start_schedule()

            third = pool.next_pod(seen)
            [container] = kube.get("v1", "pods", "actwright", third)["spec"]["containers"]
            variables = {entry["name"]: entry["value"] for entry in container["env"]}
            assert variables["PREFECT__FLOW_RUN_ID"] == pool.run()["id"]
            done = ran({**pool.home.settings, **pool.at, **variables}, "-m", *container["args"])
            assert done.returncode == 0, done.stderr
            kube.end_pod(third)
            assert pool.run()["state_type"] == "COMPLETED"
            assert [told for told in pool.states() if told[0] == "Crashed"] == [("Crashed", NO_POD)] * 2
            assert len(list((tmp_path / "home" / "proposals").glob("*.json"))) == 1
        finally:
            pool.stop()
