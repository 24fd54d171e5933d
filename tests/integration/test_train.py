"""Training with real torchrun, gloo and DeepSpeed on a toy: killed and taken up, the curve is the same to the last bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from components.config.ports import Metric
from components.config.records import Silent
from components.config.train_config import TrainConfig
from components.training.job import JobFiles
from components.training.launcher import train
from model_core.spec.documents import to_document
from model_core.spec.errors import CheckpointError, JobError
from tests.faults.fork_server import ForkServer
from tests.toy_model import toy_task
from tests.tracking_twins import NullTracker
from tests.training_rank import train_as_a_rank

pytestmark = pytest.mark.xdist_group("ranks")

ROOT = Path(__file__).parents[2]
CONFIG = TrainConfig(steps=40, global_batch=8, micro_batch=4, warmup_steps=4, checkpoint_every=10, log_every=5, precision="fp32", threads=1)
ONCE = replace(CONFIG, restarts=0)
ZERO_2 = replace(CONFIG, world_size=2, zero_stage=2)


class Recorder(NullTracker):
    """Keeps what it is given; fails while `broken`."""

    def __init__(self, *, broken: bool) -> None:
        self.broken, self.metrics = broken, list[Metric]()

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        if self.broken:
            raise ConnectionError("no tracking server")
        self.metrics += metrics


class Watcher:
    """A progress that calls `act` once `step` is reached."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.step, self.act, self.fired = step, act, False

    def update(self, done: int, total: int, message: str = "") -> None:
        if done >= self.step and not self.fired:
            self.fired = True
            self.act()


def frozen(folder: Path, **plan: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.json").write_text(json.dumps(plan))
    return folder


def pids(out: Path) -> list[int]:
    events = [json.loads(line) for line in JobFiles(out).progress.read_text().splitlines()]
    return next(e["pids"] for e in reversed(events) if e["event"] == "start")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(claim: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if claim():
            return True
        time.sleep(0.1)
    return claim()


def result(out: Path) -> tuple[bytes, bytes]:
    files = JobFiles(out)
    return files.metrics.read_bytes(), (files.checkpoint / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(ranks: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, ZeRO 0, from the first step to the last."""
    folder = tmp_path_factory.mktemp("undisturbed")
    record = train_as_a_rank(ranks, toy_task(CONFIG, frozen(folder / "frozen"), folder / "out"))
    assert record["steps"] == 40
    assert record["metrics"]["validation_loss"] < 1.3
    return folder / "out"


def test_curve_holds_every_step_and_no_times(undisturbed: Path) -> None:
    points = [json.loads(line) for line in JobFiles(undisturbed).metrics.read_text().splitlines()]
    assert [p["step"] for p in points if "loss" in p] == list(range(1, 41))
    assert [p["step"] for p in points if "validation_loss" in p] == [10, 20, 30, 40]
    assert set(points[0]) == {"step", "loss", "loss_first", "grad_norm", "lr"}
    assert len(list(JobFiles(undisturbed).checkpoints.iterdir())) == 2


def test_killed_worker_is_told_and_the_next_run_gives_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    data, out, broken = frozen(tmp_path / "frozen", sleep_s=0.01), tmp_path / "out", Recorder(broken=True)  # a tracker that never answers
    with pytest.raises(JobError, match="run again to resume from the last checkpoint"):
        train(toy_task(ONCE, data, out), broken, Watcher(25, lambda: os.kill(pids(out)[0], signal.SIGKILL)))
    # What a kill in the middle of a save leaves, newer than everything whole.
    torn = JobFiles(out).checkpoints / "step_00000039"
    torn.mkdir()
    (torn / "mp_rank_00_model_states.pt").write_bytes(b"half a checkpoint")
    tracker = Recorder(broken=False)
    record = train(toy_task(CONFIG, data, out), tracker, Silent())
    assert record["steps"] == 40
    assert 10 <= record["undigested"]["began_at_step"] < 40
    assert not torn.exists()
    assert result(out) == result(undisturbed)
    assert {"train/loss", "validation/loss", "speed/samples_per_s"} <= {m.key for m in tracker.metrics}
    assert json.loads((JobFiles(out).checkpoint / "libraries.json").read_text()) == ["deepspeed", "torch"]  # a rank loads no tracker


@pytest.mark.soak  # short: test_two_nodes trains with two ranks, a stop request saves below
def test_two_processes_zero_2_survive_the_death_of_their_launcher(tmp_path: Path) -> None:
    data, out, calm = frozen(tmp_path / "frozen"), tmp_path / "out", tmp_path / "calm"
    slow = frozen(tmp_path / "slow", sleep_s=0.01)
    train(toy_task(ZERO_2, data, calm), None, Silent())
    script = f"""
import json, sys
from pathlib import Path
from model_core.spec.documents import from_document
from components.config.recipe import TrainConfig
from components.config.records import Silent
from components.training.job import TrainingTask
from components.training.launcher import train
config = from_document(TrainConfig, json.loads(sys.argv[1]))
train(TrainingTask(config=config, frozen=Path({str(slow)!r}), out=Path({str(out)!r}), model="tests.toy_model:make"), None, Silent())
"""
    launcher = subprocess.Popen([sys.executable, "-c", script, json.dumps(to_document(ZERO_2))], cwd=ROOT)
    try:
        assert wait_until(lambda: JobFiles(out).metrics.exists() and JobFiles(out).metrics.read_text().count("loss_first") > 13, 60)
        workers = pids(out)
        assert len(workers) == 2
    finally:
        launcher.kill()
        launcher.wait()
    assert wait_until(lambda: not any(alive(pid) for pid in workers), 30), "workers outlived their launcher"
    steps = json.loads(JobFiles(out).metrics.read_text().splitlines()[-1])["step"]
    if steps < 40:  # they saved before they left: at most the step in flight is done again
        record = train(toy_task(ZERO_2, slow, out), None, Silent())
        assert record["undigested"]["began_at_step"] >= 10
    assert result(out) == result(calm)


@pytest.mark.soak  # short: test_training_supervision finds the rank by its files; above a kill, and in test_two_nodes two ranks
@pytest.mark.timeout(900)
def test_a_hung_and_a_killed_rank_cost_an_attempt_each_and_no_bit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    slow, out, calm = frozen(tmp_path / "frozen", sleep_s=0.02), tmp_path / "out", tmp_path / "calm"
    train(toy_task(ZERO_2, slow, calm), None, Silent())

    class Troubles:
        """Stops one rank after step 13, as a machine that hangs does, and kills the other after step 25."""

        def __init__(self) -> None:
            self.acts = [(13, 1, signal.SIGSTOP), (25, 0, signal.SIGKILL)]

        def update(self, done: int, total: int, message: str = "") -> None:
            if self.acts and done >= self.acts[0][0]:
                _, rank, sent = self.acts.pop(0)
                os.kill(pids(out)[rank], sent)

    troubles = Troubles()
    record = train(toy_task(ZERO_2, slow, out), None, troubles)
    assert not troubles.acts
    assert [text for text in caplog.messages if "hangs, rank 1 has not run for" in text]
    assert record["undigested"]["began_at_step"] >= 20
    assert 0.0 < record["undigested"]["goodput"] < 0.5, "a minute of it was a hang"
    assert result(out) == result(calm)
    events = [json.loads(line) for line in JobFiles(out).progress.read_text().splitlines()]
    assert not any(alive(pid) for event in events if event["event"] == "start" for pid in event["pids"])


def test_other_data_is_refused(ranks: ForkServer, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"began on data set dddd.*now it is given eeee"):
        train_as_a_rank(ranks, toy_task(CONFIG, frozen(tmp_path / "frozen", digest="e" * 64), tmp_path / "out"))


def test_nan_loss_ends_the_run_with_its_step(ranks: ForkServer, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"loss became nan at step 13 .*the last checkpoint is kept"):
        train_as_a_rank(ranks, toy_task(CONFIG, frozen(tmp_path / "frozen", nan_at=12), tmp_path / "out"))
    assert [p.name for p in JobFiles(tmp_path / "out").checkpoints.iterdir()] == ["step_00000010"]


def test_a_stop_request_saves_and_the_next_run_gives_the_same_bits(ranks: ForkServer, undisturbed: Path, tmp_path: Path) -> None:
    data, out = frozen(tmp_path / "frozen", stop_at=3), tmp_path / "out"
    with pytest.raises(JobError, match="asked to stop and saved a checkpoint; run again to resume"):
        train_as_a_rank(ranks, toy_task(CONFIG, data, out))
    assert [p.name for p in JobFiles(out).checkpoints.iterdir()] == ["step_00000004"]
    record = train_as_a_rank(ranks, toy_task(CONFIG, frozen(tmp_path / "later"), out))
    assert record["undigested"]["began_at_step"] == 4
    assert result(out) == result(undisturbed)


@pytest.mark.soak  # short: the two tests above, without torchrun
def test_errors_of_a_rank_reach_the_launcher(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"began on data set dddd.*now it is given eeee"):
        train(toy_task(CONFIG, frozen(tmp_path / "other", digest="e" * 64), tmp_path / "out"), None, Silent())
    with pytest.raises(JobError, match=r"loss became nan at step 13 .*the last checkpoint is kept"):
        train(toy_task(CONFIG, frozen(tmp_path / "frozen", nan_at=12), tmp_path / "nan"), None, Silent())


@pytest.mark.soak  # short: a stop request above; test_killed_worker ends a torchrun whose worker is gone
def test_interrupt_saves_and_leaves_nobody_behind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    others = set(threading.enumerate())  # what earlier tests of this process left is not this one's

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(toy_task(CONFIG, frozen(tmp_path / "frozen", sleep_s=0.05), out), None, Watcher(3, interrupt))
    assert not any(alive(pid) for pid in pids(out))
    saved = [p.name for p in JobFiles(out).checkpoints.iterdir() if (p / "manifest.json").exists()]
    assert saved
    assert 3 <= int(saved[-1].split("_")[1]) < 40
    assert not [thread for thread in threading.enumerate() if thread not in others]
