"""What infra/ declares: strict schemas, nothing that points nowhere, images that hold what they start."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from components.adapters.job_kinds.fields import QUEUE_KINDS, check_queue_object
from components.adapters.job_kinds.kinds import KINDS
from components.adapters.kubernetes import KubernetesCluster
from components.adapters.mlflow.server import server_command
from components.adapters.storage.s3 import S3Address, S3Store
from components.adapters.storage.seaweedfs_process import PORTS, free_ports, weed
from components.config.launch.cluster_job import JobSpec
from components.config.launch.placement import Placement
from components.release.package import LIBRARIES, SERVICE
from flows.platform.settings import Settings
from model_core.spec.errors import StorageError
from tests.fake_bento import make_bento
from tests.fake_kube import IMAGE, selects
from tests.fake_kube_kinds import FakeCluster
from tests.integration.loop_runs import eventually

ROOT = Path(__file__).parents[2]
K8S = ROOT / "infra" / "k8s"
DOCKERFILES = sorted((ROOT / "infra" / "docker").glob("*.Dockerfile"))


@pytest.fixture(scope="module", params=["base", "overlays/k3s", "overlays/gpu", "overlays/cloud"])
def documents(request):
    return rendered(request.param)


def rendered(folder):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", K8S / folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(documents, kind):
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def pod_specs(documents):
    return {
        name: document["spec"]["template"] for kind in ("Deployment", "StatefulSet") for name, document in of_kind(documents, kind).items()
    }


def test_output_passes_strict_schemas(documents):
    import kubernetes_validate

    assert len(documents) > 15
    for document in documents:
        if document["apiVersion"].startswith("kueue."):
            check_queue_object(document)
            continue
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_everything_is_in_the_namespace_of_the_jobs(documents):
    [namespace] = of_kind(documents, "Namespace")
    assert namespace == JobSpec(name="a", image="x", job="/workspace/j").namespace
    of_cluster = ("Namespace", *(kind for kind in QUEUE_KINDS if kind != "LocalQueue"))
    assert {d["metadata"].get("namespace") for d in documents if d["kind"] not in of_cluster} == {namespace}
    assert {d["metadata"].get("namespace") for d in documents if d["kind"] in of_cluster} == {None}


def test_every_service_budget_and_policy_finds_pods(documents):
    pods = [{"metadata": template["metadata"]} for template in pod_specs(documents).values()]

    def found(labels):
        return [pod for pod in pods if selects(",".join(f"{k}={v}" for k, v in labels.items()), pod)]

    for service in of_kind(documents, "Service").values():
        if service["spec"].get("type") == "ExternalName":
            continue
        assert len(found(service["spec"]["selector"])) == 1
    for budget in of_kind(documents, "PodDisruptionBudget").values():
        assert len(found(budget["spec"]["selector"]["matchLabels"])) == 1
    for policy in of_kind(documents, "NetworkPolicy").values():
        assert found(policy["spec"]["podSelector"].get("matchLabels", {}))


def containers_of(spec):
    return [*spec.get("initContainers", []), *spec["containers"]]


def test_the_policy_service_reads_what_its_init_container_writes(documents, tmp_path, monkeypatch):
    """The manifest's own command, against a finished package: the bundle lies where the service is told to read it."""
    from typer.testing import CliRunner

    from flows.commands.main import command_line
    from flows.commands.operations import up

    spec = pod_specs(documents)["policy-service"]["spec"]
    [init], [service] = spec["initContainers"], spec["containers"]
    told = {entry["name"]: entry.get("value") for entry in service["env"]}
    program, *words = init["command"]
    assert program == "actwright"
    target = words[words.index("--to") + 1]
    assert told["ACTWRIGHT_BUNDLE"] == f"{target}/bundle"
    for container in (init, service):
        assert [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "workspace"] == ["/workspace"]

    packed = make_bento(tmp_path / "package" / "bento")
    monkeypatch.setattr(
        up, "champion_package", lambda platform, recipe: (SimpleNamespace(path=packed.parent) if recipe.name == "loop" else None, None)
    )
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / "home"))
    words[words.index("--to") + 1] = str(tmp_path / "champion")
    done = CliRunner().invoke(command_line(), words)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "champion/bundle/checkpoint/model.safetensors").is_file()


def test_a_pod_that_is_to_go_drains_first_and_is_given_the_time(documents):
    from serving.gateway.http.drain import _parser

    spec = pod_specs(documents)["policy-service"]["spec"]
    [service] = spec["containers"]
    python, flag, module, *words = service["lifecycle"]["preStop"]["exec"]["command"]
    assert (python, flag, module) == ("python", "-m", "serving.gateway.http.drain")
    args = _parser().parse_args(words)
    assert args.wait_s + 15 < spec["terminationGracePeriodSeconds"]
    assert str(args.token_file.parent) in {mount["mountPath"] for mount in service["volumeMounts"]}


def test_the_console_is_started_with_what_is_mounted_and_listens_where_it_is_asked(documents):
    """The manifest's own command, as the program reads it."""
    import typer

    from flows.commands.main import command_line

    spec = pod_specs(documents)["console"]["spec"]
    [container] = spec["containers"]
    program, name, *words = container["command"]
    assert program == "actwright"
    options = {option.opts[0]: option for option in typer.main.get_command(command_line(name)).commands[name].params}
    given = dict(word.split("=", 1) for word in words)
    assert set(given) <= set(options)
    secrets = {volume["name"]: volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
    mounted = {mount["mountPath"]: secrets[mount["name"]] for mount in container["volumeMounts"] if mount["name"] in secrets}
    assert mounted == {"/etc/actwright/tokens": "console-tokens", "/etc/actwright/tls": "console-tls"}
    assert {str(Path(given[name]).parent) for name in ("--tokens", "--cert", "--key")} == set(mounted)
    [port] = container["ports"]
    [service_port] = of_kind(documents, "Service")["console"]["spec"]["ports"]
    [rule] = of_kind(documents, "NetworkPolicy")["people-to-console"]["spec"]["ingress"]
    assert int(given["--port"]) == port["containerPort"] == service_port["port"] == rule["ports"][0]["port"]
    assert all(container[f"{kind}Probe"]["httpGet"]["scheme"] == "HTTPS" for kind in ("startup", "readiness", "liveness"))


def test_claims_config_and_accounts_that_pods_name_exist(documents):
    claims, maps, accounts = (set(of_kind(documents, k)) for k in ("PersistentVolumeClaim", "ConfigMap", "ServiceAccount"))
    for name, template in pod_specs(documents).items():
        spec = template["spec"]
        stateful = of_kind(documents, "StatefulSet").get(name)
        made = {claim["metadata"]["name"] for claim in stateful["spec"]["volumeClaimTemplates"]} if stateful else set()
        assert {v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v} <= claims
        assert spec.get("serviceAccountName", "actwright-worker") in accounts
        for container in containers_of(spec):
            assert {e["configMapRef"]["name"] for e in container.get("envFrom", [])} <= maps
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in spec["volumes"]} | made
    job = JobSpec(name="a", image="x", job="/workspace/j")
    assert job.claim in claims
    assert job.service_account in accounts


def test_the_object_store_of_the_base_starts_with_the_keys_of_the_secret_and_keeps_what_it_is_given(tmp_path):
    """The manifest's own commands, with folders and ports of this machine."""
    spec = pod_specs(rendered("base"))["object-store"]["spec"]
    [init], [container] = spec["initContainers"], spec["containers"]
    named = {entry["name"] for entry in init["env"]}
    assert named == {"ACTWRIGHT_S3_ACCESS_KEY", "ACTWRIGHT_S3_SECRET_KEY"}
    for folder in ("data", "config"):
        (tmp_path / folder).mkdir()
    program, flag, code = init["command"]
    assert (program, flag) == ("python", "-c")
    keys = {"ACTWRIGHT_S3_ACCESS_KEY": "aw123", "ACTWRIGHT_S3_SECRET_KEY": "s" * 30}
    subprocess.run([sys.executable, "-c", code.replace("/config/", f"{tmp_path}/config/")], env={**os.environ, **keys}, check=True)
    ports = free_ports(len(PORTS))
    words = [word.replace("/data", f"{tmp_path}/data").replace("/config", f"{tmp_path}/config") for word in container["args"]]
    words = [word.replace("0.0.0.0", "127.0.0.1") for word in words if not word.startswith("-s3.port=")]
    command = [weed(), *container["command"][1:], "-ip=127.0.0.1", *words]
    command += [f"-{name}={port}" for name, port in zip(PORTS, ports, strict=True)]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path) as server:
        try:
            address = S3Address(endpoint=f"127.0.0.1:{ports[PORTS.index('s3.port')]}", access_key="aw123", secret_key="s" * 30)
            eventually(lambda: kept(address, tmp_path), 90)
            with pytest.raises(StorageError):
                S3Store(replace(address, secret_key="t" * 30), "actwright").ensure_bucket()
        finally:
            server.terminate()


def kept(address, folder):
    (folder / "kept").write_bytes(b"kept")
    try:
        store = S3Store(address, "actwright")
        store.put("a/b", folder / "kept")
        found = store.info("a/b")
    except StorageError:
        return False
    return found is not None and found.size == 4


def test_probes_ask_ports_that_exist(documents):
    for template in pod_specs(documents).values():
        for container in template["spec"]["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            probes = [container[p] for p in ("startupProbe", "readinessProbe", "livenessProbe") if p in container]
            asked = [probe.get("httpGet") or probe.get("tcpSocket") for probe in probes if "exec" not in probe]
            assert all(one["port"] in ports for one in asked)


def test_pods_fit_the_restricted_profile_that_the_namespace_enforces(documents):
    for template in pod_specs(documents).values():
        security = template["spec"]["securityContext"]
        assert security["runAsNonRoot"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers_of(template["spec"]):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_addresses_are_settings_that_are_read_and_services_that_exist(documents):
    [config] = [one for name, one in of_kind(documents, "ConfigMap").items() if name.startswith("actwright-addresses")]
    known = {f"ACTWRIGHT_{name.upper()}" for name in Settings.model_fields}
    assert set(config["data"]) <= known
    services = of_kind(documents, "Service")
    for name, port in re.findall(r"http://([\w-]+):(\d+)", " ".join(config["data"].values())):
        assert int(port) in {p["port"] for p in services[name]["spec"]["ports"]}


def test_mlflow_runs_as_it_does_on_a_laptop(documents):
    [container] = pod_specs(documents)["mlflow"]["spec"]["containers"]
    there = {e["name"]: e.get("value") for e in container["env"]}
    here = server_command(Path("/data"), 5000)
    assert here.environment.items() <= there.items()
    flags = {argument.split("=")[0] for argument in container["args"]}
    assert flags == {word for word in here.argv if word.startswith("--")}


def test_the_worker_has_the_rights_that_submitting_takes_and_no_more(documents):
    from kubernetes import client

    used: set[tuple[str, str]] = set()
    for kind in ("job", "jobset", "trainjob"):
        used |= rights_used(client, JobSpec(name="a", image=IMAGE, job="/workspace/j", placement=Placement(kind=kind, queue="q")))
    role = of_kind(documents, "Role")["actwright-worker"]
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert {right for right in used if right not in READ_BY_PERSONS} <= granted
    assert granted - used <= {(plural, "watch") for plural in ("jobs", "jobsets", "trainjobs", "pods")} | {("pods", "get")}


# the look before a job is submitted passes them over where the account may not read them
READ_BY_PERSONS = {("clusterqueues", "get"), ("nodes", "list")}


def rights_used(client, spec):
    """Of one job from the look for what it needs to its deletion."""
    plural = KINDS[spec.placement.kind].plural
    with FakeCluster(jobset="v1alpha2", trainer="v1alpha1", kueue="v1beta2") as kube:
        kube.put(
            "v1", "persistentvolumeclaims", {"metadata": {"name": spec.claim}, "spec": {"accessModes": ["ReadWriteMany"]}}, "actwright"
        )
        kube.put("v1", "serviceaccounts", {"metadata": {"name": spec.service_account}}, "actwright")
        kube.put("kueue.x-k8s.io/v1beta2", "localqueues", {"metadata": {"name": "q"}, "spec": {"clusterQueue": "all"}}, "actwright")
        cluster = KubernetesCluster(client.ApiClient(client.Configuration(host=kube.url)))
        cluster.submit(cluster.fitted(spec))
        cluster.submit(spec)
        kube.admit(plural, spec.name)
        for name in kube.wait_for_pods(1):
            kube.logs[name] = "hello"
            kube.run_pod(name)
        cluster.logs(spec)
        ended = kube.pods()[0]

        def end_once_it_is_watched() -> None:
            eventually(lambda: (plural, "list") in rights_of(kube), 30)
            kube.end_pod(ended)

        threading.Thread(target=end_once_it_is_watched, daemon=True).start()
        cluster.wait(spec)
        cluster.delete(spec)
        return rights_of(kube)


def rights_of(kube):
    """(resource, verb) of each request so far for an object, or for objects of a kind."""
    found = set()
    for request in list(kube.requests):
        method, path = request.split(" ")
        place = re.fullmatch(r"/(?:api|apis/[\w.-]+)/v\w+(?:/namespaces/[\w-]+)?/([a-z]+)(?:/([\w.-]+))?(?:/([a-z]+))?", path)
        if place:
            resource = "/".join(filter(None, (place[1], place[3])))
            reads = "get" if place[2] else "list"
            found.add((resource, {"POST": "create", "DELETE": "delete", "PATCH": "patch", "GET": reads}[method]))
    return found


# --- images ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_an_image_copies_is_there(path):
    for line in path.read_text().splitlines():
        if line.startswith("COPY "):
            *sources, _ = line.split()[1:]
            assert all((ROOT / source).exists() for source in sources), line


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_do_not_run_as_root_and_run_as_the_pods_do(path):
    assert re.search(r"^USER 10001$", path.read_text(), re.M)


def test_the_service_image_starts_what_a_bento_starts():
    text = (ROOT / "infra/docker/serve.Dockerfile").read_text()
    assert f'"{SERVICE}"' in text
    assert importlib.util.find_spec(SERVICE.split(":")[0]) is not None
    installed = set(re.search(r"requirements\.lock \\\n(.*)", text)[1].split())
    assert installed == set(LIBRARIES)


def test_the_workcell_image_holds_enough_to_start_and_no_torch(tmp_path):
    """The image's files alone, in an empty place, say their help."""
    text = (ROOT / "infra/docker/workcell.Dockerfile").read_text()
    assert "torch" not in re.sub(r"#.*", "", text)
    for line in text.splitlines():
        if line.startswith("COPY ") and "requirements" not in line:
            *sources, target = line.split()[1:]
            for source in sources:
                place = tmp_path / target / Path(source).name if target.endswith("/") else tmp_path / target
                place.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, place)
    start = shlex.split(re.search(r"ENTRYPOINT \[(.*)\]", text)[1].replace(",", " "))
    code = f"import sys, runpy; sys.argv = ['x', '--help']; sys.path.insert(0, {str(tmp_path)!r})\n"
    code += f"try:\n    runpy.run_module({start[-1]!r}, run_name='__main__')\nfinally:\n    assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "--robot" in done.stdout
