"""What the launcher of a training and its worker processes agree on: the job document, the files between them, the command.

The command is a pure function, so that a Kubernetes manifest runs the very line that a laptop runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.documents import from_document, to_document
from components.files import write_text_atomically
from components.recipe import TrainConfig
from model_core.spec.errors import SpecError, require

WORKER_MODULE = "components.train_worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """One training, as its worker processes read it.

    frozen: folder of the frozen data set. out: where the result goes. trainee: "module:function" that makes what is trained
    (see `components.trainees`). supervised: a launcher holds the other end of stdin; its end means "save and stop".
    keep_checkpoints: how many complete ones stay on disk. grace_s: after a stop request a worker is gone within this time.
    """

    config: TrainConfig
    frozen: str
    out: str
    trainee: str
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
    def heartbeat(self) -> Path:
        """Touched by rank 0 after every step."""
        return self.scratch / "heartbeat"

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
    write_text_atomically(path, json.dumps(to_document(job), indent=1, sort_keys=True))
    return path


def load_job(path: Path) -> TrainJob:
    """Read a job document; raises `SpecError` when it is none."""
    try:
        return from_document(TrainJob, json.loads(path.read_text()), where="job")
    except (OSError, ValueError) as error:
        raise SpecError(f"{path.name} is not a training job: {error}; train() and the manifest write it") from error


def torchrun_command(
    job: str,
    *,
    nodes: int = 1,
    procs: int = 1,
    rendezvous: Literal["standalone", "static", "c10d"] = "standalone",
    address: str = "",
    port: int = 29_400,
    node_rank: int | str = 0,
    is_host: bool | None = None,
    local_addr: str = "",
    rdzv_id: str = "actwright",
    python: str = "python",
) -> list[str]:
    """The command line that starts this node's processes of a training.

    job: path of the job document, as the processes see it. nodes, procs: machines, and processes on each.
    "standalone": one machine. "static": every node is told its rank (Indexed Job: ``node_rank="$(JOB_COMPLETION_INDEX)"``)
    and `address` is node 0. "c10d": nodes find their rank at `address`:`port`; give `is_host` and `local_addr`
    where the address does not resolve to the host itself (network namespaces). Never restarts in place: a fresh
    start goes on from the last complete checkpoint.
    """
    require(nodes >= 1 and procs >= 1, "nodes and procs must be at least 1", got=(nodes, procs))
    require(rendezvous != "standalone" or nodes == 1, f"standalone is for one node, not {nodes}; use 'static' or 'c10d'")
    require(rendezvous == "standalone" or bool(address), f"rendezvous {rendezvous!r} needs the address of node 0")
    command = [python, "-m", "torch.distributed.run", f"--nproc-per-node={procs}", "--max-restarts=0"]
    if rendezvous == "standalone":
        command += ["--standalone"]
    elif rendezvous == "static":
        command += [f"--nnodes={nodes}", f"--node-rank={node_rank}", f"--master-addr={address}", f"--master-port={port}"]
    else:
        command += [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={address}:{port}", f"--rdzv-id={rdzv_id}"]
        if is_host is not None:
            command += [f"--rdzv-conf=is_host={str(is_host).lower()}"]
    if local_addr:
        command += [f"--local-addr={local_addr}"]
    return [*command, "-m", WORKER_MODULE, job]
