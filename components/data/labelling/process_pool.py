"""The labelling engine of this machine: processes that each open the annotator once and take one shard after the other.

A process that dies takes nothing with it but the shard in its hands: another one gets that shard again. A shard in whose hands two
processes died is taken apart, so that a single row is found and told, and the others are labelled. Shards are read one ahead of the
work, so memory does not grow with the data. The processes end with this one, however it ends.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from components.adapters.worker_pool import ctrl_c_blocked, end_with_parent
from components.data.labelling.engine import LabelJob, Shard, ShardAnswer
from model_core.spec import errors
from model_core.spec.errors import ActwrightError, JobError

TRIES = 2  # processes that may die with the same rows in their hands
STARTS = 3  # processes that may die in a row before they are ready


class _Process(Protocol):
    @property
    def sentinel(self) -> int: ...
    @property
    def exitcode(self) -> int | None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def kill(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Worker:
    """A process; `shard` is in its hands, `is_ready` once its annotator is open."""

    process: _Process
    pipe: Connection
    lifeline: Connection
    is_ready: bool = False
    shard: Shard | None = None

    def end(self) -> None:
        for end in (self.pipe, self.lifeline):
            end.close()  # which it sees, and ends
        self.process.join(timeout=5)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()


class _Waiting:
    """Shards that wait for a process: those that come back first, then those of the caller, which are read when they are needed."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._coming = iter(shards)
        self._here: deque[Shard] = deque()
        self.deaths: Counter[str] = Counter()  # first row of a shard -> how many died with it

    def give(self) -> Shard | None:
        return self._here.popleft() if self.read_ahead() else None

    def read_ahead(self) -> bool:
        """Have one shard here before a process is free: reading images takes time that the processes use. False where there is none."""
        if not self._here and (shard := next(self._coming, None)) is not None:
            self._here.append(shard)
        return bool(self._here)

    def take_back(self, shard: Shard, cause: str) -> ShardAnswer | None:
        """What died with `shard` is tried again, whole and then row by row; the answer is of a row that can't be."""
        key = f"{len(shard.row_ids)} {shard.row_ids[0]}"
        self.deaths[key] += 1
        if self.deaths[key] < TRIES:
            self._here.appendleft(shard)
            return None
        if len(shard.row_ids) == 1:
            return ShardAnswer(row_ids=(), columns={}, errors={shard.row_ids[0]: f"{TRIES} processes died labelling it ({cause})"})
        self._here.extendleft(shard.row(place) for place in reversed(range(len(shard.row_ids))))
        return None


class ProcessPoolEngine:
    """At most `workers` processes of this machine for one job. shared_by: engines like this one that share the machine's cores."""

    def __init__(self, job: LabelJob, workers: int, *, shared_by: int = 1) -> None:
        self._job, self._most, self._shared_by = job, max(workers, 1), max(shared_by, 1)
        self._workers: list[_Worker] = []
        self._described: Mapping[str, Any] | None = None
        self._failed_starts = 0

    def description(self) -> Mapping[str, Any]:
        """Of the first process that is ready."""
        nothing = _Waiting(())
        while self._described is None:
            self._start(1)
            list(self._collect(nothing))
        return self._described

    def label(self, shards: Iterable[Shard]) -> Iterator[ShardAnswer]:
        """Answers as the processes finish. Raises `JobError` where no process gets ready, and what opening the annotator raises."""
        waiting = _Waiting(shards)
        try:
            while True:
                idle = [worker for worker in self._workers if worker.is_ready and worker.shard is None]
                for worker in idle:
                    if (shard := waiting.give()) is None:
                        break
                    self._hand(worker, shard)
                has_more = waiting.read_ahead()
                busy = sum(worker.shard is not None for worker in self._workers)
                if not busy and not has_more:
                    return
                self._start(self._most if has_more else busy)
                yield from self._collect(waiting)
        finally:
            for worker in [worker for worker in self._workers if worker.shard is not None]:  # the caller left
                self._drop(worker)

    def close(self) -> None:
        """End every process."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _start(self, wanted: int) -> None:
        context = get_context("spawn")
        while len(self._workers) < wanted:
            theirs, ours = context.Pipe()
            watched, lifeline = context.Pipe(duplex=False)
            threads = max(1, (os.cpu_count() or 1) // (self._most * self._shared_by))
            process = context.Process(target=_work, args=(self._job, theirs, watched, os.getpid(), threads), daemon=True)
            with ctrl_c_blocked():
                process.start()
            theirs.close()
            watched.close()
            self._workers.append(_Worker(process=process, pipe=ours, lifeline=lifeline))

    def _hand(self, worker: _Worker, shard: Shard) -> None:
        worker.shard = shard
        try:
            worker.pipe.send(shard)
        except OSError:  # it is dead; `_collect` sees that and takes the shard back
            return

    def _collect(self, waiting: _Waiting) -> Iterator[ShardAnswer]:
        """Wait for one process at least; the answers that came."""
        running = [worker for worker in self._workers if worker.shard is not None or not worker.is_ready]
        found = set(wait([place for worker in running for place in (worker.pipe, worker.process.sentinel)]))
        for worker in running:
            if worker.pipe in found or worker.process.sentinel in found:
                yield from self._hear(worker, waiting)

    def _hear(self, worker: _Worker, waiting: _Waiting) -> Iterator[ShardAnswer]:
        try:
            heard = worker.pipe.recv() if worker.pipe.poll() else None
        except (EOFError, OSError):
            heard = None
        if heard is None:
            yield from self._bury(worker, waiting)
            return
        kind, content = heard
        if kind == "failed":
            self.close()
            name, message = content
            raise _error_named(name)(message)
        self._failed_starts = 0
        if kind == "ready":
            worker.is_ready, self._described = True, content
        else:
            worker.shard = None
            yield content

    def _bury(self, worker: _Worker, waiting: _Waiting) -> Iterator[ShardAnswer]:
        shard = worker.shard
        self._drop(worker)
        cause = _cause(worker.process.exitcode)
        if shard is not None:
            answer = waiting.take_back(shard, cause)
            if answer is not None:
                yield answer
            return
        self._failed_starts += 1
        if self._failed_starts >= STARTS:
            raise JobError(
                f"{STARTS} labelling processes died before they were ready ({cause}). Fix: free memory, or set annotate.workers to fewer"
            )

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.kill()
        worker.end()


def _cause(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _error_named(name: str) -> type[Exception]:
    found = getattr(errors, name, None)
    return found if isinstance(found, type) and issubclass(found, ActwrightError) else JobError


def _work(job: LabelJob, pipe: Connection, lifeline: Connection, parent: int, threads: int) -> None:
    """A process's life: open the annotator, say so, then answer shards until the other end is closed."""
    end_with_parent(parent, lifeline)
    try:
        labeller = job.open()
        if (torch := sys.modules.get("torch")) is not None:  # the processes share the cores
            torch.set_num_threads(threads)
        pipe.send(("ready", labeller.description()))
    except Exception as error:  # decided by the caller, who is told which
        pipe.send(("failed", (type(error).__name__, str(error))))
        return
    while True:
        try:
            shard = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(("answer", labeller.label(shard)))
