"""One rank of a training, started by the launcher or by torchrun: `python -m torch.distributed.run ... -m components.training.worker JOB`.

The loop is: take the step's samples, one engine step, a line in the curve; at intervals validate and save a checkpoint. Everything
random is drawn from (seed, step), so a run that was killed resumes from its last complete checkpoint with the same curve.
On SIGTERM, or when a supervising launcher's end of stdin closes, it saves and ends.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from components.training.checkpoints import CheckpointManifest, check_belongs, forget, last_complete
from components.training.deepspeed_engine import Engine, end_processes, start_processes
from components.training.job import STEPPING, WORKING, JobFiles, TrainJob, load_job
from components.training.monitoring import Speed, StepClock, peak_flops
from components.training.optimizer.spikes import Spikes, check_finite, losses_of
from components.training.plan import batch_indices, choose_precision, cpu_flags, curve_digest, learning_rate
from components.training.published.parts import trained_counts
from components.training.rank_process import (
    StopRequest,
    configure_libraries,
    has_gpu,
    rank_from_environment,
    sole_writer,
    tell_alive,
    write_error,
)
from components.training.start.comparison import start_digest
from components.training.state.writer import StateWriter
from components.training.tiny.joint_batches import per_embodiment
from components.training.trainable_model import TrainableModel, load_trainable_model, parts_of
from components.training.training_log import TrainingLog
from model_core.spec.errors import JobError, SpecError

logger = logging.getLogger(__name__)

_MOST_REWINDS = 5


class Training:
    """One rank's whole run."""

    def __init__(self, job: TrainJob, *, rank: int, world_size: int) -> None:
        self.job, self.config, self._began = job, job.config, time.time()
        self.files = JobFiles(Path(job.out))
        self.rank, self.world_size = rank, world_size
        self.stop = StopRequest(watch_stdin=job.supervised, grace_s=job.grace_s, limit_s=job.config.time_limit_s)
        self.precision = choose_precision(self.config.precision, cpu_flags(), has_gpu=has_gpu())
        self.trainable: TrainableModel = load_trainable_model(job.model, self.config, Path(job.frozen))
        self.digest = curve_digest(self.config, precision=self.precision.name, start=start_digest(self.config.start))
        self.engine = Engine(self.config, self.trainable, bf16=self.precision.name == "bf16", rank=rank, world_size=world_size)
        self.done, self._passed = self._resume()
        self._writer = StateWriter(self.files.checkpoints, rank=rank, world_size=world_size, keep=job.keep_checkpoints)
        self.log = TrainingLog(self.files, writes=rank == 0, first_step=self.done)
        self._spikes, self._rewinds = self._spikes_so_far(), 0
        self._speed = Speed(
            [self.trainable.flops_at(step) * self.config.global_batch for step in range(self.config.steps)],
            batch=self.config.global_batch,
            peak_flops=peak_flops(bf16=self.precision.name == "bf16") * world_size if rank == 0 else 0.0,
        )

    def run(self) -> str:
        """Train to the end and export, or stop on request; returns "done" or "stopped"."""
        self.log.event(
            "start",
            self.done,
            seconds=round(time.time() - self._began, 3),
            steps=self.config.steps,
            precision=self.precision.name,
            warning=self.precision.warning,
            world_size=self.world_size,
            parameters=trained_counts(parts_of(self.trainable), self.trainable.module),
            pids=self.engine.gather_all(os.getpid()),
        )
        clock = StepClock()
        stopping = False
        while self.done < self.config.steps and not stopping:
            batches = self._batches(clock)
            rate = learning_rate(self.config, self.done)
            values, stopping = self.engine.step(batches, rate, stop=bool(self.stop), limit=self._spikes.limit)
            self.done += 1
            self._report(per_embodiment(values), clock, last=stopping)
            if self._spikes.goes_back and not stopping and self._go_back():
                clock.start()
                continue
            if self.done % self.config.checkpoint_every == 0 or self.done == self.config.steps:
                self._validate()
                self._save(wait=stopping or self.done == self.config.steps)
                clock.start()
            elif stopping:
                self._save(wait=True)
            self._tell(self._writer.sealed())
        if self.done < self.config.steps:
            self.log.event("stopped", self.done)
            return "stopped"
        self._export()
        self.log.event("done", self.done)
        return "done"

    def _resume(self, at_most: int | None = None) -> tuple[int, int]:
        """Resume from the last complete checkpoint of this folder, if any, by any processes; returns the steps done and passed over."""
        found = self.engine.agree(last_complete(self.files.checkpoints, at_most=at_most) if self.rank == 0 else None)
        if found is None:
            return 0, 0
        folder, manifest = found
        where = f"{folder.name} (precision here: {self.precision.name})"
        check_belongs(manifest, data_digest=self.trainable.data_digest, config_digest=self.digest, where=where)
        self.engine.load(folder)
        return manifest.step, manifest.passed

    def _spikes_so_far(self) -> Spikes:
        return Spikes(self.config.spikes, self.engine.agree(losses_of(self.files.metrics) if self.rank == 0 else None))

    def _go_back(self) -> bool:
        """Go on from before the last spikes, with the samples that come after them; False where no checkpoint is that old."""
        self._tell(self._writer.wait())
        self.engine.wait()
        spiked, taken = self.done - self._spikes.row, self.done + self._passed
        back, _ = self._resume(at_most=spiked)
        if back == 0:
            return False
        if self.rank == 0:
            forget(self.files.checkpoints, after=back)
        self._rewinds += 1
        if self._rewinds > _MOST_REWINDS:
            raise JobError(
                f"the loss spiked again at step {spiked} after {_MOST_REWINDS} returns to a checkpoint. "
                "Fix: lower train.learning_rate, or look at the data"
            )
        self.log.event("rewound", self.done, to=back)
        self.done, self._passed = back, taken - back
        self.log.cut(back)
        self._spikes = self._spikes_so_far()
        return True

    def _batches(self, clock: StepClock) -> list[Any]:
        began = time.perf_counter()
        cfg = self.config
        size, at = cfg.micro_batch, self.done + self._passed
        indices = batch_indices(cfg.seed, at, cfg.global_batch, self.trainable.num_samples)
        batches = [
            self.trainable.batch(indices[micro * size : (micro + 1) * size], seed=cfg.seed, step=at, micro=micro)
            for micro in self.engine.micros
        ]
        clock.waited_s += time.perf_counter() - began
        return batches

    def _report(self, values: dict[str, float], clock: StepClock, *, last: bool) -> None:
        loss, rate = values["loss"], learning_rate(self.config, self.done - 1)
        check_finite(values, step=self.done, rate=rate)
        self.log.beat(STEPPING)
        self.log.point(self.done, {**values, "lr": rate})
        if self._spikes.take(loss) and self.rank == 0:
            logger.warning("loss.spike step=%d loss=%.4g", self.done, loss)
            self.log.event("spike", self.done, loss=loss)
        clock.steps += 1
        if self.rank == 0 and (last or clock.steps >= self.config.log_every or self.done in (1, 3, self.config.steps)):
            self.log.event("step", self.done, **values, **self._speed.fields(clock, self.done))
            clock.start()

    def _validate(self) -> None:
        import torch

        self.log.beat(WORKING)
        module = self.engine.module()
        module.eval()
        with torch.no_grad(), self.engine.gathered(), self.engine.autocast():
            values = dict(self.trainable.validate(module))
        module.train()
        if values:
            self.log.point(self.done, values)
            self.log.event("validation", self.done, **values)

    def _save(self, *, wait: bool) -> None:
        """Begin to write a checkpoint, after an earlier one is written; with `wait` until it is complete."""
        self.log.beat(WORKING)
        self._tell(self._writer.wait())
        about = CheckpointManifest(
            step=self.done,
            data_digest=self.trainable.data_digest,
            config_digest=self.digest,
            world_size=self.world_size,
            zero_stage=self.config.zero_stage,
            passed=self._passed,
        )
        if self.rank == 0:
            self._writer.prepare(self.done)
        self.engine.wait()
        self._writer.begin(about, self.engine.state().pieces())
        if wait:
            self._tell(self._writer.wait())
            self.engine.wait()

    def _tell(self, sealed: list[int]) -> None:
        for step in sealed:
            self.log.event("checkpoint", self.done, of=step)

    def _export(self) -> None:
        """Write the trained model beside its final place, then move it there."""
        self.log.beat(WORKING)
        state = self.engine.full_state()
        if self.rank == 0:
            waiting = self.files.scratch / "export"
            shutil.rmtree(waiting, ignore_errors=True)
            waiting.mkdir(parents=True)
            self.trainable.export(state, waiting)
            shutil.rmtree(self.files.checkpoint, ignore_errors=True)
            os.replace(waiting, self.files.checkpoint)
        self.engine.wait()


def main(arguments: list[str] | None = None) -> int:
    """Run one rank; returns the exit code: 0 done or stopped on request, 1 an error written to `error.json`."""
    given = sys.argv[1:] if arguments is None else arguments
    rank = rank_from_environment()
    if len(given) != 1 or rank is None:
        sys.stderr.write(
            f"usage: {sys.executable} -m torch.distributed.run --standalone --nproc-per-node=1 -m components.training.worker JOB.json\n"
        )
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    job = load_job(Path(given[0]))
    files = JobFiles(Path(job.out))
    try:
        with sole_writer(files, rank, patience_s=job.grace_s + 5):
            tell_alive(files.alive, rank)
            configure_libraries(job.config.threads)
            rank, world_size = start_processes()
            Training(job, rank=rank, world_size=world_size).run()
            end_processes()
    except Exception as error:  # reported to the launcher, whatever it is: the last thing that this process decides
        return write_error(files, error)
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except SpecError as problem:
        sys.stderr.write(f"{problem}\n")
        code = 2
    sys.stderr.flush()
    # Without the interpreter's teardown: gloo's threads can hang there after a peer has failed.
    os._exit(code)
