"""Training as a stage: start its process (or torchrun for several), watch it, relay its events, and leave no process behind.

The worker processes do the work (`worker`); the launch, the tracker and the ending are here. A run that ended early is
started again by calling `train` with the same folder: it resumes from the last complete checkpoint.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from components.adapters.processes import last_lines
from components.config.launch.torchrun import ONLY_RANK, only_rank_command, torchrun_command
from components.config.paths import REPOSITORY
from components.config.ports import Metric, Tracker
from components.config.records import Progress
from components.config.train_config import TrainConfig
from components.training.job import JobFiles, TrainingTask, save_job
from components.training.monitoring import parameter_line, progress_line
from model_core.spec import errors
from model_core.spec.errors import ActwrightError, JobError

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_SEND_EVERY_S = 5.0
_TIMES = ("samples_per_s", "data_wait", "mfu")


def train(
    task: TrainingTask, tracker: Tracker | None, progress: Progress, *, hang_s: float = 900.0, grace_s: float = 25.0
) -> dict[str, Any]:
    """Train until the last step and write `out`/checkpoint and `out`/metrics.jsonl of the task; returns the record of the step.

    Resumes from the last complete checkpoint in `out`/scratch. tracker: gets the curve in batches; if it fails, training does not.
    hang_s: processes that complete no step for so long are ended. grace_s: how long they have to save after a stop request.
    Raises `CheckpointError` for a folder that was begun with other data or another config, `JobError` when the processes fail
    (with their last lines).
    """
    files = JobFiles(task.out.resolve())
    files.scratch.mkdir(parents=True, exist_ok=True)
    files.error.unlink(missing_ok=True)
    job = task.job(supervised=True, grace_s=grace_s)
    saved, is_alone = str(save_job(job, files.job)), job.config.world_size == 1
    several = torchrun_command(saved, procs=job.config.world_size, python=sys.executable)
    command = only_rank_command(saved, python=sys.executable) if is_alone else several
    environment = {**os.environ, **ONLY_RANK} if is_alone else dict(os.environ)
    relay = Relay(files, job.config.steps, tracker, progress)
    with _launched(command, environment, files.log, grace_s=grace_s) as process:
        _watch(process, relay, files, hang_s)
    relay.pump(final=True)
    if process.returncode != 0 or relay.ending != "done":
        raise ending_error(files, process.returncode, relay.ending)
    return train_record(files, job.config, relay)


def train_record(files: JobFiles, config: TrainConfig, relay: Relay) -> dict[str, Any]:
    """What the finished training is: equal for equal runs, except what stands under "undigested"."""
    curve = [json.loads(line) for line in files.metrics.read_text().splitlines()]
    losses = [point for point in curve if "loss" in point]
    validation = next((point for point in reversed(curve) if "loss" not in point), {})
    return {
        "steps": losses[-1]["step"],
        "samples": config.steps * config.global_batch,
        "final_loss": sum(point["loss"] for point in losses[-20:]) / len(losses[-20:]),
        "metrics": {name: value for name, value in validation.items() if name != "step"},
        "precision": relay.precision,
        "action_head": config.action_head,
        **({"parameters": relay.parameters} if relay.parameters else {}),
        "undigested": {"speed": relay.speed, "began_at_step": relay.began_at, "spikes": relay.spikes},
    }


@contextmanager
def _launched(command: list[str], environment: dict[str, str], log: Path, *, grace_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """The process of the training, or torchrun, in a group of its own; ended when the block is left, however it is left.

    We hold the other end of its stdin: when this process dies in any way, the workers read end-of-file, save and end.
    """
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=REPOSITORY,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            _end(process, grace_s)
        if process.stdin is not None:
            process.stdin.close()


def _end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """Send a stop signal (torchrun signals its workers), then kill it; the workers end by their own deadline."""
    process.send_signal(signal.SIGTERM)
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(grace_s + 5)
    except subprocess.TimeoutExpired:
        logger.warning("job.killed pid=%d", process.pid)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _beat(heartbeat: Path) -> int:
    """When a process last touched the file, in ns of the file system's clock; 0 before the first time."""
    return heartbeat.stat().st_mtime_ns if heartbeat.exists() else 0


def _watch(process: subprocess.Popen[bytes], relay: Relay, files: JobFiles, hang_s: float) -> None:
    # a change of the file's time is what counts, not the time itself: a wall clock that is set forward ends no training
    beat, seen_s = _beat(files.heartbeat), time.monotonic()
    while process.poll() is None:
        time.sleep(_POLL_S)
        relay.pump()
        if (now := _beat(files.heartbeat)) != beat:
            beat, seen_s = now, time.monotonic()
        if time.monotonic() - seen_s > hang_s:
            raise JobError(f"training made no step for {hang_s:.0f} s at step {relay.step}; it was ended.\n{_why(files)}")


def ending_error(files: JobFiles, code: int | None, ending: str) -> ActwrightError:
    """The worker's own error where it wrote one; else its last lines."""
    if files.error.is_file():
        written = json.loads(files.error.read_text())
        kind = getattr(errors, written["error"], JobError)
        return kind(written["message"])
    if ending == "stopped":
        return JobError("training was asked to stop and saved a checkpoint; run again to resume")
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return JobError(f"the training processes ended with {how}; run again to resume from the last checkpoint.\n{_why(files)}")


def _why(files: JobFiles) -> str:
    """The end of the workers' log, without torchrun's own summary."""
    return last_lines(files.log, margin="  | ", without=("torch/distributed", "elastic"))


class Relay:
    """Reads the worker's events and curve as they grow; passes them to the progress and, in batches, to the tracker."""

    def __init__(self, files: JobFiles, steps: int, tracker: Tracker | None, progress: Progress) -> None:
        self._events = _Tail(files.progress, skip_existing=True)
        self._steps, self._tracker, self._progress = steps, tracker, progress
        self._waiting: list[Metric] = []
        self._sent_at = time.monotonic()
        self.step, self.began_at, self.ending, self.precision, self.spikes = 0, 0, "", "", 0
        self.speed: dict[str, float] = {}
        self.parameters: dict[str, int] = {}

    def pump(self, *, final: bool = False) -> None:
        """Take in what is new; send to the tracker when it is time."""
        for event in self._events.lines():
            self._take(event)
        if self._waiting and (final or time.monotonic() - self._sent_at > _SEND_EVERY_S):
            self._send()

    def _take(self, event: Mapping[str, Any]) -> None:
        name, self.step = event["event"], int(event["step"])
        numbers = {k: float(v) for k, v in event.items() if isinstance(v, int | float) and k != "step"}
        if name == "start":
            self.began_at, self.precision = self.step, str(event["precision"])
            self.parameters = dict(event.get("parameters", {}))
            if self.parameters:
                self._progress.update(self.step, self._steps, parameter_line(self.parameters))
            if event["warning"]:
                logger.warning("train.slow %s", event["warning"])
                self._progress.update(self.step, self._steps, str(event["warning"]))
        elif name == "step":
            self.speed = {k: numbers[k] for k in (*_TIMES, "eta_s") if k in numbers}
            self._progress.update(self.step, self._steps, progress_line(numbers["loss"], self.speed))
            self._waiting += [Metric(_metric_name(k), v, self.step) for k, v in numbers.items() if k != "eta_s"]
        elif name == "validation":
            self._waiting += [Metric(_metric_name(k), v, self.step) for k, v in numbers.items()]
        elif name == "spike":
            self.spikes += 1
            self._waiting.append(Metric("train/loss_spike", numbers["loss"], self.step))
        elif name in ("done", "stopped"):
            self.ending = name

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        if self._tracker is None:
            self._waiting.clear()
            return
        try:
            self._tracker.log_metrics(self._waiting)
            self._waiting = []
        except Exception:
            # A tracker must never end a training. What it did not accept is sent again; the curve is on disk anyway.
            logger.warning("tracker.unavailable kept=%d", len(self._waiting), exc_info=True)


def _metric_name(key: str) -> str:
    if key.startswith("validation_"):
        return f"validation/{key.removeprefix('validation_')}"
    return f"{'speed' if key in _TIMES else 'train'}/{key}"


class _Tail:
    """New whole JSON lines of a growing file."""

    def __init__(self, path: Path, *, skip_existing: bool) -> None:
        self._path = path
        self._stream: IO[str] | None = None
        self._offset = path.stat().st_size if skip_existing and path.is_file() else 0
        self._rest = ""

    def lines(self) -> Iterator[dict[str, Any]]:
        """What was completed since the last call."""
        if not self._path.is_file():
            return
        with self._path.open() as stream:
            stream.seek(self._offset)
            text = self._rest + stream.read()
            self._offset = stream.tell()
        *whole, self._rest = text.split("\n")
        for line in whole:
            if line:
                yield json.loads(line)
