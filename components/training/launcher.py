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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.adapters.processes import last_lines
from components.config.launch.torchrun import ONLY_RANK, only_rank_command, torchrun_command
from components.config.paths import REPOSITORY
from components.config.ports import Tracker
from components.config.records import Progress
from components.config.train_config import TrainConfig
from components.training.job import JobFiles, TrainingTask, save_job
from components.training.supervision.attempts import AttemptLostError, with_restarts
from components.training.supervision.goodput import goodput
from components.training.supervision.liveness import Liveness, kill_ranks
from components.training.supervision.relay import Relay, events_of
from model_core.spec import errors
from model_core.spec.errors import ActwrightError, JobError

logger = logging.getLogger(__name__)

_POLL_S = 0.2


def train(
    task: TrainingTask, tracker: Tracker | None, progress: Progress, *, hang_s: float = 900.0, grace_s: float = 25.0
) -> dict[str, Any]:
    """Train until the last step and write `out`/checkpoint and `out`/metrics.jsonl of the task; returns the record of the step.

    Resumes from the last complete checkpoint in `out`/scratch, by itself as often as `train.restarts` says when processes are killed or
    hang. tracker: gets the curve in batches; if it fails, training does not. hang_s: how long work other than steps may take before the
    processes are ended; one that does not run is found after `RANK_SILENT_S`. grace_s: how long they have to save after a stop request.
    Raises `CheckpointError` for a folder that was begun with other data or another config, `JobError` when the processes fail
    (with their last lines).
    """
    files = JobFiles(task.out.resolve())
    files.scratch.mkdir(parents=True, exist_ok=True)
    job = task.job(supervised=True, grace_s=grace_s)
    saved, is_alone = str(save_job(job, files.job)), job.config.world_size == 1
    several = torchrun_command(saved, procs=job.config.world_size, python=sys.executable)
    command = only_rank_command(saved, python=sys.executable) if is_alone else several
    environment = {**os.environ, **ONLY_RANK} if is_alone else dict(os.environ)

    def attempt() -> dict[str, Any]:
        files.error.unlink(missing_ok=True)
        relay = Relay(files, job.config.steps, tracker, progress)
        try:
            with _launched(command, environment, files.log, grace_s=grace_s) as process:
                _watch(process, relay, files, hang_s)
        finally:
            kill_ranks(relay.pids, files.job)  # torchrun's children have sessions of their own
        relay.pump()
        if process.returncode != 0 or relay.ending != "done":
            raise ending_error(files, process.returncode, relay.ending, made_steps=relay.step > relay.began_at)
        return train_record(files, job.config, relay)

    return with_restarts(attempt, restarts=job.config.restarts)


def train_record(files: JobFiles, config: TrainConfig, relay: Relay) -> dict[str, Any]:
    """What the finished training is: equal for equal runs, except what stands under "undigested". Sends the tracker the rest."""
    share = goodput(events_of(files))
    relay.add("goodput", share)
    relay.pump(final=True)
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
        "undigested": {"speed": relay.speed, "began_at_step": relay.began_at, "spikes": relay.spikes, "goodput": share},
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


def _watch(process: subprocess.Popen[bytes], relay: Relay, files: JobFiles, hang_s: float) -> None:
    liveness = Liveness(files, hang_s=hang_s)
    while process.poll() is None:
        time.sleep(_POLL_S)
        relay.pump()
        if problem := liveness.problem():
            kill_ranks(relay.pids, files.job)  # what hangs saves nothing, and torchrun would wait for it
            raise AttemptLostError(f"training {problem} at step {relay.step}; it was ended.\n{_why(files)}")


def ending_error(files: JobFiles, code: int | None, ending: str, *, made_steps: bool = True) -> ActwrightError:
    """The worker's own error where it wrote one; else its last lines. `AttemptLostError` where another attempt may end otherwise.

    made_steps: whether the attempt did any; one that failed by an error in our or a library's code before its first step would again.
    """
    if files.error.is_file():
        written = json.loads(files.error.read_text())
        lost = written["error"] == JobError.__name__ and written.get("unexpected", False) and made_steps
        kind = AttemptLostError if lost else getattr(errors, written["error"], JobError)
        return kind(written["message"])
    if ending == "stopped":
        return JobError("training was asked to stop and saved a checkpoint; run again to resume")
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return AttemptLostError(f"the training processes ended with {how}; run again to resume from the last checkpoint.\n{_why(files)}")


def _why(files: JobFiles) -> str:
    """The end of the workers' log, without torchrun's own summary."""
    return last_lines(files.log, margin="  | ", without=("torch/distributed", "elastic"))
