"""A rank of a training in a forked child of a process that has loaded torch and DeepSpeed: what the rank itself does, in a second.

The rank is the real one, with its process group, DeepSpeed and files. What torchrun and the launcher do around it is tested by
starting them.
"""

from __future__ import annotations

import os
from typing import Any

from components.adapters.processes import LOOPBACK, free_port
from components.config.records import Progress, Silent
from components.training.job import JobFiles, TrainingTask, save_job
from components.training.launcher import ending_error, train_record
from components.training.supervision.relay import Relay
from tests.faults.fork_server import ForkServer

IMPORTED = (
    *("flows.commands.main", "flows.terminal.output", "flows.pipeline.data_sets", "flows.platform.wiring"),
    *("tests.deepspeed_loaded", "components.training.worker", "tests.training_rank"),
    *("mlflow", "mlflow.store.tracking.sqlalchemy_store", "pyarrow.parquet", "pandas", "av", "PIL.Image"),
    *("components.adapters.mlflow.runs", "components.data.ingest", "model_core.policy", "model_core.port.adopt"),
)


def rank_server() -> ForkServer:
    """The process whose children are ranks, or commands that use the same libraries; enter it once for many of them."""
    return ForkServer(imported=IMPORTED)


def train_as_a_rank(server: ForkServer, task: TrainingTask, progress: Progress | None = None) -> dict[str, Any]:
    """`components.training.launcher.train` without torchrun and the launcher's process: the same files, record and errors."""
    files = JobFiles(task.out.resolve())
    files.scratch.mkdir(parents=True, exist_ok=True)
    files.error.unlink(missing_ok=True)
    relay = Relay(files, task.config.steps, None, progress or Silent())
    done = server.run(
        "call", "tests.training_rank:be_ranks", str(save_job(task.job(), files.job)), str(task.config.world_size), under=task.out
    )
    files.log.write_text(done.told)
    relay.pump(final=True)
    if done.code != 0 or relay.ending != "done":
        raise ending_error(files, done.code, relay.ending)
    return train_record(files, task.config, relay)


def be_ranks(job: str, count: str = "1") -> None:
    """In the child: as many ranks as torchrun would start here, this process being the first; raises `SystemExit` with a code."""
    ranks, port = int(count), free_port()
    others = []
    for rank in range(1, ranks):
        process = os.fork()
        if process == 0:
            os._exit(_be_rank(job, rank, ranks, port))
        others.append(process)
    codes = [_be_rank(job, 0, ranks, port), *(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in others)]
    raise SystemExit(max(codes, key=abs))


def _be_rank(job: str, rank: int, ranks: int, port: int) -> int:
    from components.training.worker import main

    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_WORLD_SIZE": 1, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in places.items()}, MASTER_ADDR=LOOPBACK)
    return main([job])
