"""The labelling engine of a Ray cluster: it puts the rows where the cluster sees them, runs a driver, and reads the answers.

A driver, worker or machine that dies costs what was in its hands: the same call again does what is missing. Images never pass through
this process where a decoder is given: rows are then references.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from components.adapters.processes import last_lines, stop_group
from components.config.launch.ray_config import LOCAL, RayConfig
from components.config.records import Progress, Silent
from components.data.labelling.engine import LabelJob, Shard, ShardAnswer
from components.data.labelling.on_ray.job import Done, RayFolder, RayJob
from components.data.labelling.on_ray.rows import answers_in, rows_written, write_rows
from components.data.labelling.process_pool import ProcessPoolEngine
from model_core.spec.errors import JobError

DRIVER = "components.data.labelling.on_ray.driver"
_LOOK_S = 1.0


@dataclass(slots=True, kw_only=True)
class RayEngine:
    """One job in `folder`, which is its alone and lies on storage that all machines of the cluster see under the same path.

    job, decoder, carried, batch: as `RayJob`. row_bytes: what a row takes when it is decoded. done: what the last call took.
    """

    job: LabelJob
    ray: RayConfig
    folder: Path
    batch: int
    decoder: LabelJob | None = None
    carried: tuple[str, ...] = ()
    row_bytes: int = 1
    progress: Progress = field(default_factory=Silent)
    done: Done | None = None

    def description(self) -> Mapping[str, Any]:
        """The labeller's, opened in a process of this machine."""
        engine = ProcessPoolEngine(self.job, 1)
        try:
            return engine.description()
        finally:
            engine.close()

    def label(self, shards: Iterable[Shard]) -> Iterator[ShardAnswer]:
        """The answers, once all of them are there.

        Raises `JobError` where Ray is not installed or its driver ends badly; the same call goes on from there.
        """
        if find_spec("ray") is None:
            raise JobError("labelling on Ray needs the extra `ray`. Fix: make setup-all, or pip install 'actwright[ray]'")
        place = RayFolder(self.folder)
        stated = self._placed(place, shards)
        known: dict[str, int] = {}
        with _driver(place, is_own=self.ray.address == LOCAL) as process:
            while (code := process.poll()) is None:
                self.progress.update(rows_written(place.answers, known), stated.count, "labelled on Ray")
                time.sleep(_LOOK_S)
        if code:
            raise JobError(
                f"the Ray driver ended with {_told(code)}; what was labelled is kept, and the same command goes on from there. {place.log} "
                f"ends with:\n{last_lines(place.log, margin='  | ')}"
            )
        self.done = place.load_done()
        yield from answers_in(place.answers)

    def close(self) -> None:
        """Nothing runs on between calls."""

    def _placed(self, place: RayFolder, shards: Iterable[Shard]) -> RayJob:
        """The job, whose rows are in the folder: those that an earlier call put there, or new ones."""
        stated = RayJob(
            model=self.job,
            decoder=self.decoder,
            carried=self.carried,
            count=0,
            batch=self.ray.rows_per_batch(self.row_bytes, self.batch),
            block_rows=self.ray.rows_per_block(self.row_bytes),
            ray=self.ray,
        )
        shutil.rmtree(place.rows, ignore_errors=True)  # written again, from the same shards: Ray counts what is done by their ids
        count = len(write_rows(shards, place.rows))
        stated = replace(stated, count=count)
        place.answers.mkdir(parents=True, exist_ok=True)
        place.save(stated)
        return stated


def _told(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"code {code}"


@contextmanager
def _driver(place: RayFolder, *, is_own: bool) -> Iterator[subprocess.Popen[bytes]]:
    """The driver, which ends with this process, or with the block. is_own: its Ray is for this job alone, with a token of its own."""
    ours = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    token = {"RAY_AUTH_TOKEN_PATH": str(place.token)} if is_own else {}
    if is_own and not place.token.is_file():
        place.token.touch(mode=0o600)
        place.token.write_text(secrets.token_hex(32), encoding="utf-8")
    with place.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", DRIVER, str(place.root)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**ours, **os.environ, **token},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        stop_group(process)
