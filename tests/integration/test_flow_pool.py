"""Flows as Jobs: Prefect's own Kubernetes worker, its real server, our template of a Job and our flow, against a small API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.adapters.http import get
from flows.commands.operations.schedule import Worker
from flows.platform.flow_runs import FlowRuns
from flows.platform.prefect_server import start_prefect_server
from flows.platform.settings import Settings, environment_of
from model_core.spec.errors import JobError
from tests.fake_kube import FakeKube
from tests.kubelets import kubeconfig

TEMPLATE = Path(__file__).parents[2] / "infra/k8s/components/flow-pool/flow-job.json"
ROOT = Path(__file__).parents[2]


def ran(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )


@pytest.mark.soak  # short: the manifest of the template is checked below; a server and four processes of Prefect take half a minute
@pytest.mark.timeout(600)
def test_a_scheduled_flow_is_a_job_whose_command_runs_it(tmp_path: Path) -> None:
    pytest.importorskip("prefect_kubernetes", reason="prefect-kubernetes is not installed (make setup-all)")
    settings = Settings(home=tmp_path / "home", runs=tmp_path / "runs", data=tmp_path / "data", storage=f"folder:{tmp_path}/raw")  # pyright: ignore[reportCallIssue]
    settings.prefect_home.mkdir(parents=True)
    server = start_prefect_server(settings)
    try:
        with FakeKube() as kube:
            server.wait_ready()
            api = server.ready_url.removesuffix("/health")
            place = {**environment_of(settings), "PREFECT_API_URL": api, "KUBECONFIG": str(kubeconfig(tmp_path, kube.url))}
            place |= {"ACTWRIGHT_STORAGE": settings.storage, "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_ENABLED": "false"}
            told = json.dumps({"recipe": "miniature", "cron": "0 3 1 1 *", "automatic": False, "pool": {"name": "flows", "variables": {}}})
            early = ran(place, "-m", "flows.pipeline.retrain", told)
            assert early.returncode != 0
            assert "Prefect has no work pool 'flows'. Fix: start its worker" in early.stderr
            start = ("-m", "prefect", "worker", "start", "--pool", "flows", "--type", "kubernetes", "--run-once")
            made = ran(place, *start, "--base-job-template", str(TEMPLATE))
            assert made.returncode == 0, made.stderr
            image = {"image": "registry.example/worker@sha256:" + "a" * 64}
            told = json.dumps({**json.loads(told), "recipe": recipe_file(tmp_path), "pool": {"name": "flows", "variables": image}})
            registered = ran(place, "-m", "flows.pipeline.retrain", told)
            assert registered.returncode == 0, registered.stderr
            runs = FlowRuns(api=api, deployment="retrain/retrain")
            runs.make("now", {"recipe": recipe_file(tmp_path)}, key="now")
            worked = ran(place, *start)
            assert worked.returncode == 0, worked.stderr
            [pod_name] = kube.wait_for_pods(1, seconds=30)  # the API server held the Job to the strict schema
            pod = kube.get("v1", "pods", "actwright", pod_name)
            [container] = pod["spec"]["containers"]
            assert container["image"] == image["image"]
            variables = {entry["name"]: entry["value"] for entry in container["env"]}
            [run] = [one for one in runs.all() if one["name"] == "now"]
            assert run["state_type"] in ("PENDING", "SCHEDULED")
            assert variables["PREFECT__FLOW_RUN_ID"] == run["id"]
            done = ran({**place, **variables}, "-m", *container["args"]) if container["args"][0] == "prefect" else None
            assert done is not None, container["args"]
            assert done.returncode == 0, done.stderr
            ended = get(f"{api}/flow_runs/{run['id']}", timeout_s=20).json()
            assert ended["state_type"] == "COMPLETED", ended["state"]
    finally:
        server.stop()


def recipe_file(folder: Path) -> str:
    from flows.pipeline.recipes import get_recipe

    path = folder / "recipe.json"
    path.write_text(json.dumps(get_recipe("miniature").to_json()))
    return str(path)


def test_the_template_makes_a_job_of_the_strict_schema_that_names_what_the_base_has() -> None:
    import kubernetes_validate

    template = json.loads(TEMPLATE.read_text())
    defaults = {name: one.get("default") for name, one in template["variables"]["properties"].items()}
    text = json.dumps(template["job_configuration"]["job_manifest"])
    filled = {"annotations": {}, "labels": {}, "name": "retrain", "command": ["prefect"], "env": [], "finished_job_ttl": 86400}
    for name, value in {**defaults, **filled}.items():
        text = text.replace(f'"{{{{ {name} }}}}"', json.dumps(value)).replace(f"{{{{ {name} }}}}", str(value))
    assert "{{" not in text
    job = json.loads(text)
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    pod = job["spec"]["template"]["spec"]
    base = "".join(path.read_text() for path in (ROOT / "infra/k8s/base").glob("*.yaml"))
    named = {pod["serviceAccountName"], pod["volumes"][0]["persistentVolumeClaim"]["claimName"]}
    named.add(pod["containers"][0]["envFrom"][0]["configMapRef"]["name"])
    assert all(f"name: {name}" in base for name in named)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["containers"][0]["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_the_deployment_of_a_pool_is_registered_once_and_what_stops_that_is_told(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")  # pyright: ignore[reportCallIssue]
    settings.prefect_home.mkdir(parents=True)
    one = Worker(settings, {}, is_in_pool=True)
    one._command = [sys.executable, "-c", f"open({str(tmp_path / 'began')!r}, 'a').write('once ')"]
    for _ in range(40):  # what it started ends within these looks
        assert one.keep() is False
        time.sleep(0.05)
    assert (tmp_path / "began").read_text() == "once "
    other = Worker(settings, {}, is_in_pool=True)
    other._command = [sys.executable, "-c", "raise SystemExit('Prefect has no work pool')"]
    told = ""
    for _ in range(200):
        try:
            other.keep()
        except JobError as error:
            told = str(error)
            break
        time.sleep(0.05)
    assert told.startswith("the deployment was not registered:")
    assert "Prefect has no work pool" in told
