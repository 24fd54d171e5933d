"""The training stage on a cluster: render, submit, watch, and end with the very record that a laptop's training gives.

Launcher and pods share a folder (a claim that all of them mount at the same place): the job document, the curve, checkpoints
and the result are there, and the data set, unless machines fetch it from an object store. Progress is read from the worker's own files,
as it is when training runs here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from components.config.launch.cluster_job import JobSpec
from components.config.ports import Cluster, ClusterJobState, Tracker
from components.config.records import Progress
from components.training.job import JobFiles, TrainingTask, save_job
from components.training.launcher import ending_error, train_record
from components.training.supervision.attempts import AttemptLostError, with_restarts
from components.training.supervision.liveness import Liveness
from components.training.supervision.relay import Relay
from model_core.spec.errors import JobError, require
from model_core.spec.files import atomic_write

logger = logging.getLogger(__name__)

_PUMP_S, _HANG_S = 0.5, 900.0


def train_on_cluster(task: TrainingTask, tracker: Tracker | None, progress: Progress, *, cluster: Cluster, spec: JobSpec) -> dict[str, Any]:
    """`components.training.launcher.train`, run by the pods of `spec` (whose `job` is set here).

    spec.nodes x spec.procs must be the config's world_size; `out`, and without spec.data `frozen`, must be below spec.mount. Resumes from
    the last complete checkpoint in `out`/scratch, by itself as `train` does, with a Job for each attempt. The Job is deleted at the end,
    also when waiting is interrupted. Raises what `train` raises.
    """
    config, files = task.config, JobFiles(task.out.resolve())
    require(
        spec.nodes * spec.procs == config.world_size,
        f"train.world_size is {config.world_size}, the job has {spec.nodes} nodes x {spec.procs} processes; make them equal",
    )
    seen = {"the output": files.out} if spec.data else {"the data set": task.frozen.resolve(), "the output": files.out}
    for what, path in seen.items():
        require(path.is_relative_to(spec.mount), f"pods see only {spec.mount}: {what} must be below it", got=path)
    files.scratch.mkdir(parents=True, exist_ok=True)
    job = task.job()
    save_job(replace(job, frozen=spec.data.folder) if spec.data else job, files.job)
    spec = replace(spec, job=str(files.job))

    def attempt() -> dict[str, Any]:
        relay = Relay(files, config.steps, tracker, progress)
        _submit(cluster, spec, relay)
        try:
            _wait(cluster, spec, relay, _reporter(progress, config.steps))
        except JobError as error:
            made_steps = relay.step > relay.began_at
            if files.error.is_file():  # the worker's own error is more exact
                raise ending_error(files, None, relay.ending, made_steps=made_steps) from None
            raise (AttemptLostError(str(error)) if made_steps else error) from None
        finally:
            cluster.delete(spec)
        relay.pump()
        if relay.ending != "done":
            raise ending_error(files, 0, relay.ending, made_steps=relay.step > relay.began_at)
        return train_record(files, config, relay)

    return with_restarts(attempt, restarts=config.restarts)


def _submit(cluster: Cluster, spec: JobSpec, relay: Relay) -> None:
    """Start the job, or take over the one that went on when the process that watched it was killed: it may have ended since."""
    files = relay.files
    uid = cluster.submit(spec)
    if files.submitted.is_file() and files.submitted.read_text() == uid:
        logger.info("job.taken_over name=%s step=%d", spec.name, relay.step)
        relay.take_over()
        return
    files.error.unlink(missing_ok=True)  # of an earlier attempt
    atomic_write(files.submitted, uid)


def _wait(cluster: Cluster, spec: JobSpec, relay: Relay, on_change: Callable[[ClusterJobState], None]) -> None:
    """Pump the relay while another thread waits for the Job's end, or until its ranks hang."""
    ended: list[BaseException | None] = []
    all_run = threading.Event()

    def changed(state: ClusterJobState) -> None:
        if state.phase == "running":
            all_run.set()
        else:
            all_run.clear()
        on_change(state)

    def wait() -> None:
        try:
            cluster.wait(spec, changed)
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    waiting = threading.Thread(target=wait, name=f"wait-{spec.name}", daemon=True)
    waiting.start()
    liveness: Liveness | None = None  # from when all pods run, also of a job that is taken over: before, they may wait in a queue for hours
    while waiting.is_alive():
        waiting.join(_PUMP_S)
        relay.pump()
        if not all_run.is_set():
            liveness = None  # a queue may hold the job back again: its pods end, and start again from their last checkpoint
        elif liveness is None:
            liveness = Liveness(relay.files, hang_s=_HANG_S)
        if liveness is not None and (problem := liveness.problem()):
            raise AttemptLostError(f"training {problem} at step {relay.step}; its job is deleted")
    error = ended[0] if ended else None
    if error is not None:
        raise error


def _reporter(progress: Progress, steps: int) -> Callable[[ClusterJobState], None]:
    def report(state: ClusterJobState) -> None:
        pods = ", ".join(f"{name} {doing}" for name, doing in (state.pods or {}).items())
        logger.info("job.%s pods=%s", state.phase, pods)
        if state.phase == "queued":
            progress.update(0, steps, "the job waits in its queue")
        elif state.phase == "pending":
            progress.update(0, steps, f"the cluster is starting pods: {pods or 'none yet'}")

    return report
