"""The whole way, real: a checkpoint becomes a Bento, BentoML serves it in its own process, two cells drive the simulator."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from websockets.sync.client import connect

from components.adapters.processes import free_port, stop_group
from components.artifacts.audit_files import read_audit
from components.config.recipe import PackageConfig, WorkcellsConfig
from components.config.records import Silent
from components.data.ingest import IngestOptions, ingest
from components.deployment.bento_service import ServiceAddress, fetch_status, running_service, service_command
from components.deployment.probe import probe
from components.deployment.service_address import ServiceCredentials
from components.deployment.simulated_cells import run_workcells
from components.release.package import package
from components.simulation.metaworld import embodiment
from model_core.spec.audit.format import Kind
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.errors import ContractError, JobError, NotReady
from model_core.spec.protocol.wire import decode_episode
from model_core.spec.types import StopReason
from serving.workcell.control.realtime_cell import RealtimeCell, RealtimeSettings
from serving.workcell.link.handshake import wait_until_up
from serving.workcell.link.link_types import LinkSettings
from serving.workcell.link.waiting_link import SimulatedClock, WaitingLink
from serving.workcell.link.websocket_link import AsyncLink
from serving.workcell.motion.limits import widest_limits
from serving.workcell.robot.interface import Robot, load_robot
from tests.loopback import wait_until
from tests.tiny_checkpoint import write_tiny_checkpoint

pytestmark = pytest.mark.xdist_group("service")
TASKS = ("coffee-button-v3", "drawer-close-v3")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """A Bento of an untrained tiny model for the Meta-World arm."""
    root = tmp_path_factory.mktemp("packed") / ".actwright"  # hidden, as the default home is
    root.mkdir()
    write_tiny_checkpoint(root / "checkpoint", embodiment=embodiment())
    return root, package(PackageConfig(golden_probes=2), root / "checkpoint", "actwright/7", root / "out")


def test_a_bento_holds_weights_contract_probes_code_lock_and_dockerfile(packed: tuple[Path, dict[str, object]]) -> None:
    root, record = packed
    bento = root / "out" / "bento"
    source = bento / "src"
    for name in (
        "bundle/bundle.json",
        "bundle/checkpoint/model.safetensors",
        "bundle/checkpoint/contract.json",
        "bundle/probes/00.observe",
    ):
        assert (source / name).is_file(), name
    for name in ("model_core/spec/protocol/wire.py", "serving/gateway/service.py", "requirements.lock"):
        assert (source / name).is_file(), name
    assert not list(source.rglob("*.pyc"))
    assert "FROM" in (bento / "env" / "docker" / "Dockerfile").read_text()
    assert "torch==" in (bento / "env" / "python" / "requirements.txt").read_text()
    assert record["tag"] == f"actwright-policy:{str(record['digest'])[:16]}"
    assert str(root) not in "".join(p.read_text(errors="ignore") for p in bento.rglob("*") if p.suffix in {".yaml", ".json", ".txt", ".md"})


@pytest.mark.soak  # short: the cells of the smallest loop (test_kill_resume)
def test_two_cells_drive_the_simulator_through_the_service(packed: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    root, _ = packed
    heard: list[str] = []

    class Listener:
        def update(self, done: int, total: int, message: str = "") -> None:
            heard.append(f"{done}/{total} {message}")

    cfg = WorkcellsConfig(episodes_per_cell=1, horizon_sim_steps=48, execute_horizon=4, deadline_ms=10_000)
    out = run_workcells(cfg, root / "out" / "bento", tmp_path, Listener(), tasks=TASKS)
    rows = out["undigested"]["rows"]
    assert [(r["cell"], r["task"], r["episodes"], r["refused_to_move"]) for r in rows] == [
        ("cell-01", TASKS[0], 1, ""),
        ("cell-02", TASKS[1], 1, ""),
    ]
    assert all(r["decisions"] >= 1 for r in rows)
    assert all(0 < r["p50_ms"] <= r["p99_ms"] for r in rows if r["refusals"] < r["decisions"])
    assert out["model_versions"] == ["actwright/7"]
    assert any(line.startswith("2/2") for line in heard)
    assert out["recordings"] == sorted(p.name for p in (tmp_path / "recordings").iterdir())
    for name in out["recordings"]:
        episode = decode_episode((tmp_path / "recordings" / name).read_bytes())
        assert episode.provenance.producer == "policy:actwright/7"
        assert len(episode) >= 1
        assert episode.images["front"].shape[1:] == (80, 80, 3)
        assert episode.depth_m["front"].shape[1:] == (80, 80)
        assert episode.executed_TA.shape == (len(episode), 4)
    ingested = ingest([tmp_path / "recordings"], tmp_path / "raw", Silent(), IngestOptions(embodiment=embodiment(), keep_failures=True))
    assert (ingested["episodes"], ingested["quarantined"]) == (2, {})
    for name in ("cell-01", "cell-02"):
        assert '"torch_loaded": false' in (tmp_path / "undigested" / f"{name}.json").read_text()
        # two records of one episode that know nothing of each other: what the audit says was sent is what was recorded as executed
        (file,) = (tmp_path / "undigested" / "audit" / name).glob("*.mcap")
        audit = read_audit(file)
        assert audit.is_proven, audit.problem
        episode = decode_episode(next((tmp_path / "recordings").glob(f"*-{name}-*")).read_bytes())
        sent_TA = np.array([record.body["sent_A"] for record in audit.of(Kind.EXECUTED)], np.float32)
        assert np.array_equal(sent_TA, episode.executed_TA)


@pytest.fixture(scope="module")
def served(
    packed: tuple[Path, dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServiceAddress, subprocess.Popen[bytes]]]:
    """A ready service, and the process that started it and waits."""
    work, port = tmp_path_factory.mktemp("serve"), free_port()
    bento, log = packed[0] / "out" / "bento", work / "service.log"
    code = f"""
import sys
from pathlib import Path
from components.deployment.bento_service import running_service
with running_service(Path({str(bento)!r}), home=Path({str(work / "home")!r}), log=Path({str(log)!r}), port={port}):
    sys.stdin.read()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    address = ServiceAddress(host="127.0.0.1", port=port)
    try:
        wait_until(lambda: (fetch_status(address) or {}).get("state") == "ready", timeout_s=120)
        yield address, parent
    finally:
        assert parent.stdin is not None
        parent.stdin.close()
        parent.wait(30)


@pytest.fixture(scope="module")
def running(served: tuple[ServiceAddress, subprocess.Popen[bytes]]) -> ServiceAddress:
    return served[0]


def test_probe_tells_who_answers(running: ServiceAddress, packed: tuple[Path, dict[str, object]]) -> None:
    told = probe(running.http).report()
    assert (told["model_version"], told["contract_id"], told["contract_is_whole"]) == ("actwright/7", packed[1]["contract_id"], True)
    assert told["answer"] in {"chunk", "refusal"}
    if told["answer"] == "chunk":
        assert told["depth_tokens"]
        assert {"queue", "model", "service"} <= told["timing_ms"].keys()
    with urllib.request.urlopen(f"{running.http}/metrics") as answer:
        assert b"actwright_ready" in answer.read()


def test_pictures_are_not_compressed_on_the_way(running: ServiceAddress) -> None:
    with connect(running.session, proxy=None) as willing:  # offers per-message deflate
        assert willing.response is not None
        assert "Sec-WebSocket-Extensions" not in willing.response.headers


@pytest.mark.soak  # short: a service without tokens, below; who may ask in test_gateway_identity
def test_a_bento_with_tokens_answers_nobody_without_one(packed: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    secret, address = "a-secret-of-this-test", ServiceAddress(host="127.0.0.1", port=free_port())
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({hashlib.sha256(secret.encode()).hexdigest(): {"subject": "test", "role": "observe"}}))

    def status(path: str, token: str = "") -> int:
        request = urllib.request.Request(f"{address.http}{path}", headers={"Authorization": f"Bearer {token}"} if token else {})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    command = service_command(packed[0] / "out" / "bento", home=tmp_path, address=address, tokens=tokens)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path)
        try:
            wait_until(lambda: status("/livez") == 200, timeout_s=60)
            for path in ("/v1/status", "/metrics", "/docs.json", "/"):  # ours and BentoML's own
                assert status(path) == 401, path
                assert status(path, "another") == 401, path
            assert status("/v1/status", secret) == status("/metrics", secret) == 200
        finally:
            stop_group(process)


@pytest.mark.soak  # short: the same refusal of the service's settings in test_gateway_settings
def test_a_bento_without_tokens_does_not_start_beyond_loopback(packed: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    address = ServiceAddress(host="0.0.0.0", port=free_port())
    command = service_command(packed[0] / "out" / "bento", home=tmp_path, address=address)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode != 0
    assert "reachable from other machines" in done.stdout + done.stderr


def other_body() -> EmbodimentSpec:
    return replace(embodiment(), control_hz=5.0)


def test_a_cell_of_another_body_does_not_move(running: ServiceAddress) -> None:
    link = AsyncLink(running.session, LinkSettings(cell="cell-x", embodiment=other_body()))
    link.start()
    with contextlib.closing(link), pytest.raises(ContractError, match="control_hz"):
        wait_until_up(link, 10.0)


def test_the_simulated_arm_is_a_robot() -> None:
    robot = load_robot("components.simulation.robot:make_robot")("drawer-close-v3", 950_000)
    assert isinstance(robot, Robot)
    robot.close()


def test_a_service_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="no service answers"):
        probe(f"http://127.0.0.1:{free_port()}", ServiceCredentials(timeout_s=2))


@pytest.mark.soak  # short: test_workcell reopens a cut connection with the next epoch
def test_a_restarted_service_is_held_through_and_met_again(packed: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    bento, port = packed[0] / "out" / "bento", free_port()
    robot = load_robot("components.simulation.robot:make_robot")(TASKS[0], 950_000)
    settings = LinkSettings(cell="c", embodiment=robot.embodiment, deadline_s=5.0, heartbeat_s=10.0, world_waits=True)
    link, world = AsyncLink(f"ws://127.0.0.1:{port}/v1/session", settings), SimulatedClock()
    link.start()
    try:
        with running_service(bento, home=tmp_path / "a", log=tmp_path / "a.log", port=port):
            wait_until_up(link, 10.0)
            made = RealtimeSettings(cell="c", strategy="sync", max_steps=6)
            limits = widest_limits(robot.embodiment)
            cell = RealtimeCell(robot, WaitingLink(link, world), made, limits, clock=world, sleep=world.sleep)
            assert cell.run_episode(950_000).holds == 0
        wait_until(lambda: not link.is_up)
        lost = cell.run_episode(950_001)
        assert (lost.stop_reason, lost.steps) == (StopReason.SERVICE_LOST, 0)
        with running_service(bento, home=tmp_path / "a", log=tmp_path / "b.log", port=port):
            wait_until_up(link, 10.0)
            again = cell.run_episode(950_002)
            assert (again.holds, again.refusals) == (0, 0)
            assert link.ready is not None
            assert link.ready.epoch > 1
    finally:
        link.close()
        robot.close()


@pytest.mark.soak  # short: test_bundle refuses the file, test_gateway tells what failed to load
def test_a_damaged_bundle_never_becomes_ready(packed: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    import shutil

    bento = tmp_path / "bento"
    shutil.copytree(packed[0] / "out" / "bento", bento)
    weights = bento / "src" / "bundle" / "checkpoint" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    log = tmp_path / "service.log"
    with pytest.raises(JobError, match="CheckpointError"), running_service(bento, home=tmp_path / "home", log=log):
        pass
    assert "model.safetensors is not what was packed" in log.read_text()


def test_the_service_dies_with_the_process_that_started_it(served: tuple[ServiceAddress, subprocess.Popen[bytes]]) -> None:
    address, parent = served  # the last test that needs it
    assert fetch_status(address) is not None
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    wait_until(lambda: fetch_status(address, timeout_s=0.5) is None, timeout_s=20)


def test_a_tied_process_ends_with_its_parent() -> None:
    code = """
import subprocess
from components.deployment.service_process import tied_to_us
child = subprocess.Popen(tied_to_us(["sleep", "60"]))
print(child.pid, flush=True)
child.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_until(lambda: Path(f"/proc/{child}/cmdline").read_text().startswith("sleep"))
    parent.kill()
    parent.wait(10)
    wait_until(lambda: not Path(f"/proc/{child}").exists() or Path(f"/proc/{child}/stat").read_text().split()[2] == "Z")
