"""The very command of the manifest, run as two nodes: two network namespaces that see each other over one cable.

Names, addresses and interfaces exist only inside the namespaces that the test makes. Skips where they cannot be made.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from components.job_manifest import JobSpec, render_manifests
from components.recipe import TrainConfig
from components.records import Silent
from components.train import train
from components.train_job import JobFiles, TrainJob, save_job

ROOT = Path(__file__).parents[2]
TOY = "tests.toy_trainee:make"
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


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def two_hosts(names):
    """Two namespaces joined by a veth pair whose ends are called eth0, as in pods; each knows both hosts by name."""
    tag = f"aw{os.getpid()}"
    spaces = [f"{tag}n{i}" for i in range(2)]
    hosts = [Path("/etc/netns", space) for space in spaces]
    try:
        for space in spaces:
            ip("netns", "add", space)
        ip("-n", spaces[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", spaces[1])
        for i, space in enumerate(spaces):
            ip("-n", space, "addr", "add", f"10.99.0.{i + 1}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")
            hosts[i].mkdir(parents=True)
            lines = ["127.0.0.1 localhost", *(f"10.99.0.{j + 1} {name}" for j, name in enumerate(names))]
            (hosts[i] / "hosts").write_text("\n".join(lines) + "\n")
        yield spaces
    finally:
        for space, folder in zip(spaces, hosts, strict=True):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
            shutil.rmtree(folder, ignore_errors=True)


def needs_namespaces():
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    probe = f"aw{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")


def as_the_kubelet_would(spec, index):
    """(command, environment) of pod `index`, read from the manifest, with $(VAR) replaced."""
    job, _ = render_manifests(spec)
    [container] = job["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]} | {"JOB_COMPLETION_INDEX": str(index)}
    command = list(container["command"])
    for name, value in environment.items():
        command = [word.replace(f"$({name})", value) for word in command]
    return command, environment


def start(space, command, environment, log):
    full = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        return subprocess.Popen(
            ["ip", "netns", "exec", space, "nice", "-n", "15", *command],
            env=full,
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def kill(process):
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def curve(out):
    return [json.loads(line) for line in JobFiles(out).metrics.read_text().splitlines()]


@pytest.fixture
def spec(tmp_path):
    frozen = tmp_path / "frozen"
    frozen.mkdir()
    (frozen / "toy.json").write_text("{}")
    out = tmp_path / "cluster"
    job = TrainJob(config=CONFIG, frozen=str(frozen), out=str(out), trainee=TOY)
    path = save_job(job, JobFiles(out).job)
    return JobSpec(name="train-two", image="none", job=str(path), nodes=2, mount=str(tmp_path), python=sys.executable)


def run_two_nodes(spec, tmp_path, attempt=0):
    """Run both pods to their end; returns their exit codes and logs."""
    with two_hosts([spec.node_0, f"{spec.name}-1.{spec.name}"]) as spaces:
        logs = [tmp_path / f"node{attempt}-{i}.log" for i in range(2)]
        nodes = [start(space, *as_the_kubelet_would(spec, i), logs[i]) for i, space in enumerate(spaces)]
        try:
            deadline = time.monotonic() + 150
            codes = [node.wait(max(1.0, deadline - time.monotonic())) for node in nodes]
        finally:
            for node in nodes:
                kill(node)
    return codes, [log.read_text()[-3000:] for log in logs]


def test_two_nodes_train_as_one_machine_does(spec, tmp_path):
    needs_namespaces()
    codes, logs = run_two_nodes(spec, tmp_path)
    assert codes == [0, 0], "\n---\n".join(logs)
    alone = tmp_path / "alone"
    train(replace(CONFIG, world_size=1, zero_stage=0), tmp_path / "frozen", alone, None, Silent(), trainee=TOY, policy="")
    together = [point["loss"] for point in curve(tmp_path / "cluster") if "loss" in point]
    expected = [point["loss"] for point in curve(alone) if "loss" in point]
    assert len(together) == CONFIG.steps
    assert together == pytest.approx(expected, rel=1e-4)
    assert (JobFiles(tmp_path / "cluster").checkpoint / "model.safetensors").exists()
