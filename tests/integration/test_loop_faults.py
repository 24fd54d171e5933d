"""Faults as a person meets them: the command ends with one clear sentence, nothing is lost, and the same command goes on.

The object store is a real SeaweedFS behind a line that is cut in the middle of the upload, MLflow is its real server, killed while
the policy trains, the disk is a small tmpfs.

Run: .venv/bin/python -m pytest tests/integration/test_loop_faults.py
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.adapters.mlflow.server import TrackingAddress, server_command
from components.adapters.storage.seaweedfs import LocalS3
from tests.integration.loop_runs import RUN, Home, kill_tree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("loop")]

ROOM = 2**26


class Line:
    """A TCP line to `target` that is cut when the client sends its `cut_at`-th PUT."""

    def __init__(self, target: str, port: int = 0, cut_at: int = 0) -> None:
        host, _, number = target.partition(":")
        self._target, self._cut_at, self._puts = (host, int(number)), cut_at, 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            self._open += [near, far]
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._puts += data.count(b"PUT /") if counts else 0
                if self._cut_at and self._puts >= self._cut_at:
                    self.cut()
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home on a disk of its own, as small as a test wants it; a plain folder where this user may not mount one."""
    root = tmp_path_factory.mktemp("faults")
    disk = root / "home"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    made = Home(root)
    yield made
    for left in made.processes():
        kill_tree(left.pid)
    if mounted:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def finished(home: Home) -> set[str]:
    return {path.parent.parent.name for path in (home.root / "home" / "store").glob("*/*/step.json")}


def told_once(done: subprocess.CompletedProcess[str], kind: str) -> str:
    """The sentence of our error: exit code 1, at the end, without a traceback."""
    assert done.returncode == 1, done.stderr[-3000:]
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    last = done.stderr.rstrip().splitlines()[-1]
    assert last.startswith(kind), done.stderr[-1500:]
    return last


@pytest.mark.soak  # short: test_data_faults does both to a stage
def test_a_store_that_goes_away_and_a_disk_that_is_full(home: Home, tmp_path: Path):
    server = LocalS3(tmp_path / "s3")
    endpoint = server.start()
    try:
        line = Line(endpoint.endpoint, cut_at=4)
        place = {
            "ACTWRIGHT_STORAGE": f"http://127.0.0.1:{line.port}",
            "ACTWRIGHT_S3_ACCESS_KEY": endpoint.access_key,
            "ACTWRIGHT_S3_SECRET_KEY": endpoint.secret_key,
        }
        cut = home.actwright(*RUN, timeout_s=300, **place)
        sentence = told_once(cut, "storage error")
        assert "upload of dataset stopped after" in sentence
        assert f"127.0.0.1:{line.port}" in sentence
        assert "run again" in sentence
        assert finished(home) == {"collect"}, "what was recorded is kept, the upload is not taken for finished"

        again = Line(endpoint.endpoint, port=line.port)
        if shutil.disk_usage(home.root / "home").total == ROOM:
            _leave(home.root / "home", 40_000)
            full = home.actwright(*RUN, timeout_s=300, **place)
            assert "is full" in told_once(full, "storage error")
            _leave(home.root / "home", ROOM)
        killed = home.actwright(*RUN, timeout_s=300, ACTWRIGHT_FAULT="annotate:begin", **place)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
        assert "collect demonstrations: finished earlier" in killed.stderr
        assert finished(home) == {"collect", "upload", "validate"}
        raw = [o.key for o in endpoint.store("actwright").list("raw/")]
        assert sum(key.endswith("_complete.json") for key in raw) == 1
        again.cut()
    finally:
        server.stop()


def _leave(disk: Path, free: int) -> None:
    """Give the tmpfs so many free bytes."""
    usage = shutil.disk_usage(disk)
    size = ROOM if free >= ROOM else usage.used + free
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's own server in a process group of its own, ready."""
    command = server_command(folder, port)
    with (folder / "server.log").open("ab") as log:
        environment = {**os.environ, **command.environment}
        process = subprocess.Popen(command.argv, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    try:
        limit = time.monotonic() + 240
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
            assert time.monotonic() < limit
            time.sleep(0.2)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.mark.soak  # short: test_tracking kills the server in the middle
def test_mlflow_killed_while_training_loses_no_record(home: Home, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = {"ACTWRIGHT_MLFLOW_URI": f"http://127.0.0.1:{port}"}
    with mlflow_server(tmp_path, port) as server:
        running = home.start(*RUN, **address)
        assert running.stderr is not None
        told: list[str] = []
        for text in running.stderr:
            told.append(text)
            if text.startswith("train the policy") and server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(10)
        running.wait(60)
    done = subprocess.CompletedProcess(RUN, running.returncode, "", "".join(told))
    sentence = told_once(done, "tracking error")
    assert f"http://127.0.0.1:{port}" in sentence
    assert "run again" in sentence
    assert "sent to" in done.stderr, "a person is told that records wait"
    assert {"train", "evaluate"} <= finished(home), "work goes on without its tracker"
    assert "gate" not in finished(home), "a model is never registered halfway"

    with mlflow_server(tmp_path, port):
        killed = home.actwright(*RUN, timeout_s=300, ACTWRIGHT_FAULT="package:begin", **address)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
        assert "evaluate in closed loop: finished earlier" in killed.stderr
        assert "gate" in finished(home)

        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=TrackingAddress(home=tmp_path, uri=f"http://127.0.0.1:{port}").tracking_uri)
        (trained,) = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.stage = 'train'")
        assert trained.info.status == "FINISHED"
        (path,) = (home.root / "home" / "store").glob("train/*/metrics.jsonl")
        steps = {json.loads(row)["step"] for row in path.read_text().splitlines()}
        assert {m.step for m in client.get_metric_history(trained.info.run_id, "train/loss")} == steps
