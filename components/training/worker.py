"""One rank of a training, started by torchrun: `python -m torch.distributed.run ... -m components.training.worker JOB`.

The loop is: take the step's samples, one engine step, a line in the curve; now and then validate, save, seal. Everything
random is drawn from (seed, step), so a run that was killed goes on from its last sealed checkpoint with the same curve.
On SIGTERM, or when a supervising launcher's end of stdin closes, it saves and leaves.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from components.training.checkpoints import check_belongs, checkpoint_name, last_complete, retain, seal
from components.training.deepspeed_engine import Engine, end_processes, start_processes
from components.training.job import JobFiles, TrainJob, load_job
from components.training.plan import SpikeWatch, TimeLeft, batch_indices, choose_precision, cpu_flags, curve_digest, learning_rate, pace
from components.training.trainable_model import Trainee, load_trainee
from model_core.spec.documents import to_document
from model_core.spec.errors import ActwrightError, CheckpointError, JobError, SpecError

logger = logging.getLogger(__name__)


class StopRequest:
    """Set by SIGTERM, or by the end of stdin when a launcher supervises. A deadline makes sure that the process ends."""

    def __init__(self, *, watch_stdin: bool, grace_s: float) -> None:
        self._asked = threading.Event()
        self._grace_s = grace_s
        signal.signal(signal.SIGTERM, lambda *_: self.ask("SIGTERM"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the launcher, which decides
        if watch_stdin:
            threading.Thread(target=self._until_stdin_ends, name="stdin-watch", daemon=True).start()

    def __bool__(self) -> bool:
        return self._asked.is_set()

    def ask(self, why: str) -> None:
        """Stop after the current step, with a checkpoint; at the latest when the grace period is over."""
        if not self._asked.is_set():
            self._asked.set()
            logger.warning("job.stopping because=%s", why)
            deadline = threading.Timer(self._grace_s, os._exit, args=(75,))
            deadline.daemon = True
            deadline.start()

    def _until_stdin_ends(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(0, 4096):
                pass
        self.ask("the launcher is gone")


class Journal:
    """Rank 0's files: the curve (digested, no times), the events for the launcher, the heartbeat. Other ranks write nothing."""

    def __init__(self, files: JobFiles, *, writes: bool, first_step: int) -> None:
        self._files = files
        self._curve: IO[str] | None = None
        self._events: IO[str] | None = None
        if writes:
            _cut_curve(files.metrics, first_step)
            self._curve = files.metrics.open("a", buffering=1)
            self._events = files.progress.open("a", buffering=1)

    def point(self, step: int, values: Mapping[str, float]) -> None:
        """One line of the curve."""
        if self._curve is not None:
            self._curve.write(json.dumps({"step": step, **{k: float(f"{v:.9g}") for k, v in sorted(values.items())}}) + "\n")
            self._files.heartbeat.touch()

    def event(self, name: str, step: int, **fields: object) -> None:
        """One event for the launcher."""
        if self._events is not None:
            self._events.write(json.dumps({"event": name, "step": step, **fields}) + "\n")
            self._files.heartbeat.touch()


def _cut_curve(path: Path, last_step: int) -> None:
    """Forget what was written after the checkpoint that we go on from (and a torn last line)."""
    kept: list[str] = []
    if path.is_file():
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                if json.loads(line)["step"] <= last_step:
                    kept.append(line)
    waiting = path.with_suffix(".writing")
    waiting.write_text("".join(f"{line}\n" for line in kept))
    os.replace(waiting, path)


class Training:
    """One rank's whole run."""

    def __init__(self, job: TrainJob, *, rank: int, world_size: int) -> None:
        self.job, self.config = job, job.config
        self.files = JobFiles(Path(job.out))
        self.rank, self.world_size = rank, world_size
        self.stop = StopRequest(watch_stdin=job.supervised, grace_s=job.grace_s)
        self.precision = choose_precision(self.config.precision, cpu_flags(), has_gpu=_has_gpu())
        self.trainee: Trainee = load_trainee(job.trainee, self.config, Path(job.frozen))
        self.digest = curve_digest(self.config)
        self.engine = Engine(self.config, self.trainee, bf16=self.precision.name == "bf16", rank=rank, world_size=world_size)
        self.done = self._take_up()
        self.journal = Journal(self.files, writes=rank == 0, first_step=self.done)
        self._spikes, self._time_left = SpikeWatch(), TimeLeft()
        self._flops = [self.trainee.flops_at(step) * self.config.global_batch for step in range(self.config.steps)]
        self._peak = peak_flops(bf16=self.precision.name == "bf16") * world_size if rank == 0 else 0.0

    def run(self) -> str:
        """Train to the end and export, or stop when asked; returns "done" or "stopped"."""
        self.journal.event(
            "start",
            self.done,
            steps=self.config.steps,
            precision=self.precision.name,
            warning=self.precision.warning,
            world_size=self.world_size,
            pids=self.engine.gather_all(os.getpid()),
        )
        clock = _Clock()
        stopping = False
        while self.done < self.config.steps and not stopping:
            batches = self._batches(clock)
            values, stopping = self.engine.step(batches, learning_rate(self.config, self.done), stop=bool(self.stop))
            self.done += 1
            self._note(values, clock, last=stopping)
            if self.done % self.config.checkpoint_every == 0 or self.done == self.config.steps:
                self._validate()
                self._save()
                clock.start()
            elif stopping:
                self._save()
        if self.done < self.config.steps:
            self.journal.event("stopped", self.done)
            return "stopped"
        self._export()
        self.journal.event("done", self.done)
        return "done"

    def _take_up(self) -> int:
        """Go on from the last whole checkpoint of this folder, if any; returns the steps done."""
        found = self.engine.agree(last_complete(self.files.checkpoints) if self.rank == 0 else None)
        if found is None:
            return 0
        folder, manifest = found
        check_belongs(manifest, data_digest=self.trainee.data_digest, config_digest=self.digest, where=folder.name)
        # DeepSpeed reshards nothing: the flat pieces of ZeRO belong to as many ranks as wrote them.
        same = manifest.zero_stage == self.config.zero_stage and (manifest.world_size == self.world_size or manifest.zero_stage == 0)
        if not same:
            raise CheckpointError(
                f"{folder.name} was written by {manifest.world_size} processes at ZeRO stage {manifest.zero_stage}; this run has "
                f"{self.world_size} at stage {self.config.zero_stage}, and DeepSpeed cannot reshard. Do: go on with the old numbers "
                "(the order of samples is the same with any), or train at stage 0, which goes on with any number of processes"
            )
        self.engine.load(folder)
        return manifest.step

    def _batches(self, clock: _Clock) -> list[Any]:
        began = time.perf_counter()
        cfg = self.config
        indices = batch_indices(cfg.seed, self.done, cfg.global_batch, self.trainee.num_samples)
        size = cfg.micro_batch
        batches = [
            self.trainee.batch(indices[micro * size : (micro + 1) * size], seed=cfg.seed, step=self.done, micro=micro)
            for micro in self.engine.micros
        ]
        clock.waited_s += time.perf_counter() - began
        return batches

    def _note(self, values: dict[str, float], clock: _Clock, *, last: bool) -> None:
        loss = values["loss"]
        if not math.isfinite(loss):
            raise JobError(
                f"loss became {loss} at step {self.done} (learning rate {learning_rate(self.config, self.done - 1):.2g}, gradient norm "
                f"{values.get('grad_norm', math.nan):.3g}); the last checkpoint is kept. "
                "Do: lower train.learning_rate or train.gradient_clip, or look at the data"
            )
        self.journal.point(self.done, {**values, "lr": learning_rate(self.config, self.done - 1)})
        if self._spikes.sees(loss) and self.rank == 0:
            logger.warning("loss.spike step=%d loss=%.4g", self.done, loss)
            self.journal.event("spike", self.done, loss=loss)
        clock.steps += 1
        if self.rank == 0 and (last or clock.steps >= self.config.log_every or self.done in (1, 3, self.config.steps)):
            seconds, flops = clock.elapsed(), sum(self._flops[self.done - clock.steps : self.done])
            speed = pace(
                samples=clock.steps * self.config.global_batch,
                seconds=seconds,
                waited_s=clock.waited_s,
                flops=flops,
                peak_flops=self._peak,
                eta_s=self._time_left.after(flops=flops, seconds=seconds, flops_left=sum(self._flops[self.done :])),
            )
            if speed.mfu > 1.0:  # the start was measured while the machine was busy with something else
                self._peak *= speed.mfu
                speed = replace(speed, mfu=1.0)
            finite = {k: v for k, v in to_document(speed).items() if math.isfinite(v)}
            self.journal.event("step", self.done, **values, **finite)
            clock.start()

    def _validate(self) -> None:
        import torch

        module = self.engine.module()
        module.eval()
        with torch.no_grad(), self.engine.gathered(), self.engine.autocast():
            values = dict(self.trainee.validate(module))
        module.train()
        if values:
            self.journal.point(self.done, values)
            self.journal.event("validation", self.done, **values)

    def _save(self) -> None:
        """Write and seal a checkpoint; a full disk ends the run with what to do, and the last whole one stays."""
        name = checkpoint_name(self.done)
        folder = self.files.checkpoints / name
        try:
            if self.rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
            self.engine.wait()
            self.engine.save(self.files.checkpoints, name)
            if self.rank == 0:
                seal(
                    folder,
                    step=self.done,
                    data_digest=self.trainee.data_digest,
                    config_digest=self.digest,
                    world_size=self.world_size,
                    zero_stage=self.config.zero_stage,
                )
                retain(self.files.checkpoints, self.job.keep_checkpoints)
        except (OSError, RuntimeError) as error:
            raise JobError(
                f"checkpoint of step {self.done} could not be written: {error}. The last complete one is kept. "
                "Do: free disk space and run again"
            ) from error
        self.journal.event("checkpoint", self.done)

    def _export(self) -> None:
        """Write the trained model beside its final place, then move it there."""
        state = self.engine.full_state()
        if self.rank == 0:
            waiting = self.files.scratch / "export"
            shutil.rmtree(waiting, ignore_errors=True)
            waiting.mkdir(parents=True)
            self.trainee.export(state, waiting)
            shutil.rmtree(self.files.checkpoint, ignore_errors=True)
            os.replace(waiting, self.files.checkpoint)
        self.engine.wait()


class _Clock:
    """Time and waiting since the last line that was told."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._began = time.perf_counter()
        self.waited_s = 0.0
        self.steps = 0

    def elapsed(self) -> float:
        return time.perf_counter() - self._began


def peak_flops(*, bf16: bool, size: int = 1024) -> float:
    """What one process reaches here in a square matrix product, FLOP/s: the best of some, since others may use the machine too."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.ones(size, size, dtype=torch.bfloat16 if bf16 else torch.float32, device=device)
    best = math.inf
    for _ in range(12):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _set_surroundings(config: TrainJob) -> None:
    """What DeepSpeed, gloo and torch read from the environment, before they are imported or started."""
    import torch

    os.environ["DS_ACCELERATOR"] = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        # One machine: gloo would otherwise bind to whatever the host name resolves to, which need not exist here.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # Share this machine's cores among its ranks; torchrun itself would give each of several ranks one thread.
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(config.config.threads or max(1, len(os.sched_getaffinity(0)) // ranks))


@contextlib.contextmanager
def _sole_writer(files: JobFiles, rank: int, patience_s: float) -> Iterator[None]:
    """Rank 0 holds the folder's lock; an earlier run that is still saving gets `patience_s` to leave."""
    if rank != 0:
        yield
        return
    files.scratch.mkdir(parents=True, exist_ok=True)
    with files.lock.open("w") as handle:
        until = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise JobError(f"another training is writing into {files.out.name}; wait for it or stop it, then run again") from error
                time.sleep(0.2)
        yield


def main(arguments: list[str] | None = None) -> int:
    """Run one rank; returns the exit code: 0 done or stopped on request, 1 an error told in `error.json`."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1 or "RANK" not in os.environ:
        sys.stderr.write(
            f"usage: {sys.executable} -m torch.distributed.run --standalone --nproc-per-node=1 -m components.training.worker JOB.json\n"
        )
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    job = load_job(Path(given[0]))
    files = JobFiles(Path(job.out))
    rank = int(os.environ["RANK"])
    try:
        with _sole_writer(files, rank, patience_s=job.grace_s + 5):
            _set_surroundings(job)
            rank, world_size = start_processes()
            Training(job, rank=rank, world_size=world_size).run()
            end_processes()
    except Exception as error:  # told to the launcher, whatever it is: the last thing that this process decides
        return _tell(files, error)
    return 0


def _tell(files: JobFiles, error: Exception) -> int:
    logger.exception("job.failed")
    ours = isinstance(error, ActwrightError)
    message = str(error) if ours else f"training failed with {type(error).__name__}: {error}; the log has the traceback: {files.log.name}"
    with contextlib.suppress(OSError):
        files.error.write_text(json.dumps({"error": type(error).__name__ if ours else JobError.__name__, "message": message}))
    return 1


if __name__ == "__main__":
    try:
        code = main()
    except SpecError as problem:
        sys.stderr.write(f"{problem}\n")
        code = 2
    sys.stderr.flush()
    # Without the interpreter's teardown: gloo's threads can hang there after a peer has failed.
    os._exit(code)
