"""What the launcher of a training and its worker processes agree on: the job document, the files between them, the command.

The command is a pure function, so that a Kubernetes manifest runs the very line that a laptop runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from components.config.train_config import TrainConfig
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import SpecError
from model_core.spec.files import atomic_write

STEPPING, WORKING = "step", "work"  # what the heartbeat says: a step is next, or something that may take longer
DEFAULT_MODEL = "components.training.trainable_model:make_trainable"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTask:
    """What to train, on which frozen data set, and into which folder. model: "module:function" that makes the trainable model."""

    config: TrainConfig
    frozen: Path
    out: Path
    model: str = DEFAULT_MODEL

    def job(self, *, supervised: bool = False, grace_s: float = 25.0) -> TrainJob:
        """The job document of this task, with absolute paths."""
        frozen, out = str(self.frozen.resolve()), str(self.out.resolve())
        return TrainJob(config=self.config, frozen=frozen, out=out, model=self.model, supervised=supervised, grace_s=grace_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """One training, as its worker processes read it.

    frozen: folder of the frozen data set. out: where the result goes. model: "module:function" that makes the trainable model
    (see `components.training.trainable_model`). supervised: a launcher holds the other end of stdin; its end means "save and stop".
    keep_checkpoints: how many complete ones stay on disk. grace_s: after a stop request a worker is gone within this time.
    """

    config: TrainConfig
    frozen: str
    out: str
    model: str
    supervised: bool = False
    keep_checkpoints: int = 2
    grace_s: float = 25.0


@dataclass(frozen=True, slots=True)
class JobFiles:
    """Where launcher and worker find each other's files. `metrics` is output; the rest is scratch."""

    out: Path

    @property
    def scratch(self) -> Path:
        """Everything that is gone when the step is finished."""
        return self.out / "scratch"

    @property
    def job(self) -> Path:
        """The `TrainJob`."""
        return self.scratch / "job.json"

    @property
    def checkpoints(self) -> Path:
        """In-progress DeepSpeed checkpoints."""
        return self.scratch / "checkpoints"

    @property
    def progress(self) -> Path:
        """Events of rank 0 as JSON lines, with speeds and times."""
        return self.scratch / "progress.jsonl"

    @property
    def log(self) -> Path:
        """What the processes wrote to stdout and stderr."""
        return self.scratch / "worker.log"

    @property
    def error(self) -> Path:
        """Class and message of the error that ended the workers."""
        return self.scratch / "error.json"

    @property
    def submitted(self) -> Path:
        """The uid of the cluster's job that trains, or did last."""
        return self.scratch / "submitted"

    @property
    def heartbeat(self) -> Path:
        """Written by rank 0 after every step and before other work; says which of them it does (`STEPPING`, `WORKING`)."""
        return self.scratch / "heartbeat"

    @property
    def alive(self) -> Path:
        """Folder of one file a rank, touched by it every few seconds while its process runs."""
        return self.scratch / "alive"

    @property
    def lock(self) -> Path:
        """Held by rank 0: two trainings never write into one folder."""
        return self.scratch / "lock"

    @property
    def metrics(self) -> Path:
        """The curve: one JSON line a step, without times."""
        return self.out / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The trained model, ready to be evaluated and served."""
        return self.out / "checkpoint"


def save_job(job: TrainJob, path: Path) -> Path:
    """Write the job document atomically."""
    atomic_write(path, json.dumps(to_document(job), indent=1, sort_keys=True))
    return path


def load_job(path: Path) -> TrainJob:
    """Read a job document; raises `SpecError` when it is none."""
    try:
        return from_document(TrainJob, json.loads(path.read_text()), where="job")
    except (OSError, ValueError) as error:
        raise SpecError(f"{path.name} is not a training job: {error}; train() and the manifest write it") from error
