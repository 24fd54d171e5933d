"""The driver of one job on a Ray cluster: python -m components.data.labelling.on_ray.driver FOLDER.

A process of its own, because Ray is told by the environment what it may do before it is imported, and because it may be killed: started
again, it does what is missing and nothing else. It ends when its standard input does, which the process that started it holds.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from components.config.launch.ray_config import LOCAL
from components.data.labelling.on_ray import stages
from components.data.labelling.on_ray.guards import OTHERS, check_actors, check_answers, check_context, check_environment
from components.data.labelling.on_ray.job import Done, RayFolder, RayJob
from components.data.labelling.on_ray.rows import ROW_ID, counted, rows_written
from model_core.spec.documents import to_document
from model_core.spec.errors import ActwrightError, JobError

_BLOCKS_IN_DECODER = 3  # the images that come out, the episode that they come from, and what is packed
_TRIES = 5  # of a block whose decoder's process, or machine, dies; Ray's own number is infinite
_STORE_BYTES = 2**30  # of a Ray on this machine: back-pressure holds blocks to it


def run(folder: RayFolder) -> Done:
    """Label the rows of `folder` that have no answer yet. Raises `SpecError` for settings that are refused, `JobError` for lost rows."""
    import ray  # pyright: ignore[reportMissingImports]  # an extra

    job = folder.load()
    if job is None:
        raise JobError(f"{folder.root} holds no job.json; expected a folder that `annotate` made with annotate.engine 'ray'")
    started = time.perf_counter()
    before = rows_written(folder.answers, {})
    _connect(job)
    try:
        resources = ray.cluster_resources()
        check_actors(job.ray.actors, resources.get("CPU", 0.0))
        label(job, folder)
    finally:
        ray.shutdown()
    rows, errors = counted(folder.answers)
    check_answers(_ids(folder.rows), _ids(folder.answers))
    spent = time.perf_counter() - started
    return Done(rows=rows - before, errors=errors, wall_s=spent, cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0))


def _connect(job: RayJob) -> None:
    import ray  # pyright: ignore[reportMissingImports]  # an extra

    if job.ray.address != LOCAL:
        ray.init(address=job.ray.address, logging_level=logging.WARNING)
        return
    cpus = max(os.cpu_count() or 1, job.ray.actors + OTHERS)
    ray.init(address=LOCAL, num_cpus=cpus, include_dashboard=False, object_store_memory=_STORE_BYTES, logging_level=logging.WARNING)


def label(job: RayJob, folder: RayFolder) -> None:
    """Read, decode, label, write. Settings are made first: Ray takes them over when the data set is made, and ignores later ones."""
    import ray.data  # pyright: ignore[reportMissingImports]  # an extra
    from ray.data import ActorPoolStrategy, DataContext  # pyright: ignore[reportMissingImports]  # an extra
    from ray.data.checkpoint import CheckpointConfig  # pyright: ignore[reportMissingImports]  # an extra

    folder.checkpoint.mkdir(exist_ok=True)
    context = DataContext.get_current()
    context.max_errored_blocks = 0
    context.enable_progress_bars = False
    context.checkpoint_config = CheckpointConfig(ROW_ID, str(folder.checkpoint), delete_checkpoint_on_success=False)
    rows = ray.data.read_parquet(str(folder.rows))
    check_context(rows.context, folder.checkpoint)
    text = json.dumps(to_document(job))
    # the reader makes one block of many small files, whatever it is asked for
    blocks = rows.repartition(target_num_rows_per_block=job.block_rows)
    whole: dict[str, Any] = {"batch_size": None, "batch_format": "numpy"}
    if job.decoder is not None:
        # Ray joins stages that ask for equal resources, and images would be decoded by the model's actors
        room = _BLOCKS_IN_DECODER * job.ray.block_mib * 2**20
        blocks = blocks.map_batches(partial(stages.decode, job=text), num_cpus=1, memory=room, max_retries=_TRIES, **whole)
    actors = ActorPoolStrategy(size=job.ray.actors, max_tasks_in_flight_per_actor=2)
    gpus = {"num_gpus": job.ray.gpus_per_actor} if job.ray.gpus_per_actor else {}
    answers = blocks.map_batches(stages.Model, fn_constructor_args=(text,), compute=actors, num_cpus=1, **gpus, **whole)
    answers.write_parquet(str(folder.answers))


def _ids(folder: Path) -> list[str]:
    import pyarrow.parquet as pq

    return [row_id for path in sorted(folder.glob("*.parquet")) for row_id in pq.read_table(path, columns=[ROW_ID])[ROW_ID].to_pylist()]


def _end_with_standard_input() -> None:
    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def main() -> None:
    """Do it; errors of ours are one line each on standard error."""
    folder = RayFolder(Path(sys.argv[1]))
    _end_with_standard_input()
    try:
        check_environment(os.environ, has_token=(Path.home() / ".ray" / "auth_token").is_file())
        folder.save_done(run(folder))
    except ActwrightError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
