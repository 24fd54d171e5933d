"""The audit of a workcell: filled by the control loop, written by a thread, without delaying control.

The control loop only appends to a bounded queue. Everything that may fail or hang happens in the writing thread; when the disk does
not take what it is given, the running episode continues (first frames, then records are given up, and counted), `can_begin` turns
False with a reason, and turns True again when the disk does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serving.workcell.audit.append_file import Disk, in_words
from serving.workcell.audit.index import write_index
from serving.workcell.audit.interface import ActionExecuted, DecisionMade, EpisodeBegun, EpisodeEnded
from serving.workcell.audit.mcap_writer import AuditWriter
from serving.workcell.audit.retention import Spool

logger = logging.getLogger(__name__)

_BATCH = 64
_CHECK_EVERY_S = 5.0
_RETRY_S = 0.1
_SYNC_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Event:
    t_s: float
    kind: str
    detail: Mapping[str, object]


_Told = EpisodeBegun | DecisionMade | ActionExecuted | _Event | EpisodeEnded


class AuditLog:
    """`audit_port.Audit` over a folder of chained MCAP files. One per folder.

    max_bytes: of the whole folder. max_queue, max_queue_bytes: records, and bytes of frames, that wait for the disk at most.
    min_free_bytes: less than this on the disk, and no episode begins. stall_s: a disk that holds the writer longer is in trouble.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = 8 * 2**30,
        clock: Callable[[], float] = time.monotonic,
        max_queue: int = 4096,
        max_queue_bytes: int = 128 * 2**20,
        min_free_bytes: int = 32 * 2**20,
        stall_s: float = 5.0,
        disk: Disk | None = None,
        wall_clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._spool, self._clock, self._disk, self._wall_clock_ns = Spool(folder, max_bytes), clock, disk or Disk(), wall_clock_ns
        self._max_queue, self._max_queue_bytes, self._min_free, self._stall_s = max_queue, max_queue_bytes, min_free_bytes, stall_s
        self._queue: deque[tuple[_Told, int]] = deque()
        self._queue_bytes = self._lost = 0
        self._wake = threading.Condition()
        self._stopping = False
        self._give_up_at = float("inf")
        self._busy_since: float | None = None
        self._writer: AuditWriter | None = None
        self._between: deque[_Event] = deque(maxlen=64)  # events while no episode runs
        self._is_open = False
        self._refused = ""
        self._trouble = self._look()
        self._checked_at = self._synced_at = clock()
        self._thread = threading.Thread(target=self._work, name="audit", daemon=True)
        self._thread.start()

    # --- what the control loop calls: never waits, never raises -----------------------------------------------------

    @property
    def can_begin(self) -> bool:
        """Another episode could be kept in full."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why no new episode may begin; "" when one may."""
        busy_since = self._busy_since
        if not self._thread.is_alive():
            return "the audit's writing thread has ended"
        if self._trouble:
            return self._trouble
        if self._nearly_full:
            return "the audit makes room for another episode"
        if busy_since is not None and self._clock() - busy_since > self._stall_s:
            return f"the disk has not taken a write for {self._clock() - busy_since:.0f} s"
        return f"the audit has fallen behind and lost {self._lost} records" if self._lost else ""

    @property
    def _nearly_full(self) -> bool:
        """What waits may use up what is left: ask again when it is written."""
        writer = self._writer
        on_its_way = self._queue_bytes + (writer.size if writer is not None else 0)
        return on_its_way > 0 and self._spool.used + on_its_way > self._spool.frames_end

    @property
    def waiting(self) -> int:
        """Records that the disk does not have yet."""
        return len(self._queue)

    def begin_episode(self, begun: EpisodeBegun) -> None:
        """An episode begins."""
        self._put(begun)

    def decision(self, made: DecisionMade) -> None:
        """A request was answered, refused or cancelled."""
        self._put(made, sum(image.nbytes for image in made.observation.images.values()))

    def executed(self, action: ActionExecuted) -> None:
        """A command was given to the driver."""
        self._put(action)

    def event(self, t_s: float, kind: str, detail: Mapping[str, object]) -> None:
        """Anything else."""
        self._put(_Event(t_s, kind, dict(detail)))

    def end_episode(self, ended: EpisodeEnded) -> None:
        """The episode is over: its file is sealed."""
        self._put(ended)

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, for at most `timeout_s`; a disk that takes nothing until then loses it."""
        with self._wake:
            self._stopping, self._give_up_at = True, time.monotonic() + timeout_s
            self._wake.notify()
        self._thread.join(timeout_s + 1.0)

    def _put(self, told: _Told, frame_bytes: int = 0) -> None:
        with self._wake:
            if self._stopping:
                return
            # The two marks of an episode always find a place: there are two of them, and nothing makes sense without.
            if len(self._queue) >= self._max_queue and not isinstance(told, EpisodeBegun | EpisodeEnded):
                self._lost += 1
                return
            if self._queue_bytes + frame_bytes > self._max_queue_bytes:
                frame_bytes = -1  # its frames are given up, the record is not
                told = _without_frames(told)
            self._queue.append((told, frame_bytes))
            self._queue_bytes += max(frame_bytes, 0)
            self._wake.notify()

    # --- the writing thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while True:
                batch = self._next_batch()
                if batch is None:
                    break
                for told, frame_bytes in batch:
                    self._write(told, has_frames=frame_bytes >= 0)
                self._insist(self._push)
                self._check()
        except _GivenUpError:
            logger.error("audit.lost records=%d reason=%s", len(self._queue), self._trouble)  # noqa: TRY400
        finally:
            self._finish()

    def _next_batch(self) -> list[tuple[_Told, int]] | None:
        with self._wake:
            if not self._queue and not self._stopping:
                self._wake.wait(0.25)
            if not self._queue and self._stopping:
                return None
            batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            self._queue_bytes -= sum(max(frame_bytes, 0) for _, frame_bytes in batch)
            return batch

    def _write(self, told: _Told, *, has_frames: bool) -> None:
        try:
            self._tell_losses()
            if isinstance(told, EpisodeBegun):
                self._seal()
                self._refused = self._spool.make_room() if self._is_open else ""
                if not self._refused:
                    self._insist(lambda: self._begin(told))
            elif self._writer is None:
                if self._refused:  # begun although there was no room: nothing of it is kept, and that is said
                    self._say_trouble(self._refused)
                elif isinstance(told, _Event):
                    self._between.append(told)
            elif isinstance(told, EpisodeEnded):
                self._writer.end(told)
                self._seal()
            elif self._spool.used + self._writer.size > self._spool.max_bytes:
                self._writer.counts["lost_records"] += 1
                self._say_trouble(f"the audit spool is full: {self._spool.max_bytes} bytes in {self._spool.folder}")
            elif isinstance(told, DecisionMade):
                room = self._spool.used + self._writer.size < self._spool.frames_end
                self._writer.decision(told, room_for_frames=room, lost="" if has_frames else "the disk was too slow")
            elif isinstance(told, ActionExecuted):
                self._writer.executed(told)
            else:
                self._writer.event(told.t_s, told.kind, told.detail)
        except (_GivenUpError, OSError):
            raise
        except Exception:  # one record that cannot be written must not end the writing of all others
            logger.exception("audit.unwritable kind=%s", type(told).__name__)
            self._lost += 1

    def _tell_losses(self) -> None:
        if self._lost and self._writer is not None:
            with self._wake:
                lost, self._lost = self._lost, 0
            self._writer.lost(lost, self._trouble or "the queue was full")

    def _begin(self, begun: EpisodeBegun) -> None:
        if not self._is_open:
            self._trouble = self._look()
            if not self._is_open:
                raise OSError(self._trouble)
        path, before = self._spool.next_path(begun.episode_id)
        self._writer = AuditWriter(path, begun, wall_ns=self._wall_clock_ns(), before=before, disk=self._disk)
        while self._between:
            event = self._between.popleft()
            self._writer.event(event.t_s, event.kind, event.detail)

    def _push(self) -> None:
        if self._writer is not None:
            due = self._clock() - self._synced_at >= _SYNC_EVERY_S
            self._writer.push(sync=due)
            self._synced_at = self._clock() if due else self._synced_at

    def _seal(self) -> None:
        writer = self._writer
        if writer is None:
            return
        writer.seal()
        self._insist(lambda: writer.push(sync=True))
        writer.close()
        self._writer = None
        self._insist(lambda: write_index(writer.path, writer.index_rows()))
        self._trouble = self._look()

    def _insist(self, attempt: Callable[[], Any]) -> None:
        """Try until the disk takes it; new records wait in the queue meanwhile. Raises _GivenUpError when the audit is being closed."""
        while True:
            self._busy_since = self._busy_since or self._clock()
            try:
                attempt()
            except OSError as error:
                self._say_trouble(f"the audit cannot be written to {self._spool.folder}: {in_words(error, self._spool.folder)}")
            else:
                self._busy_since = None
                return
            with self._wake:
                if time.monotonic() > self._give_up_at:
                    raise _GivenUpError
                if self._stopping:
                    self._give_up_at = min(self._give_up_at, time.monotonic() + 1.0)
            time.sleep(_RETRY_S)

    def _check(self) -> None:
        if self._clock() - self._checked_at >= _CHECK_EVERY_S or self._trouble:
            self._busy_since = self._checked_at = self._clock()
            try:
                self._say_trouble(self._look())
            finally:
                self._busy_since = None

    def _look(self) -> str:
        """Why an episode could not be kept now; "" when it could."""
        folder = self._spool.folder
        try:
            if not self._is_open:
                taken = self._spool.open()
                if taken:
                    return f"{folder}: {taken}"
                self._is_open = True
            if self._writer is None:
                self._disk.probe(folder)
                full = self._spool.make_room()
                if full:
                    return full
            free = self._disk.free_bytes(folder)
        except OSError as error:
            return f"the audit cannot be written to {folder}: {in_words(error, folder)}"
        if free < self._min_free:
            return f"the disk of {folder} has {free / 2**20:.0f} MiB left, an episode needs {self._min_free / 2**20:.0f}"
        return ""

    def _say_trouble(self, trouble: str) -> None:
        if trouble != self._trouble:
            logger.warning("audit.%s %s", "trouble" if trouble else "recovered", trouble or self._trouble)
        self._trouble = trouble

    def _finish(self) -> None:
        try:
            self._seal()
        except _GivenUpError:
            logger.error("audit.unsealed file=%s", self._writer and self._writer.path)  # noqa: TRY400
        finally:
            self._spool.close()


class _GivenUpError(Exception):
    """The disk took nothing until the end."""


def _without_frames(told: _Told) -> _Told:
    return replace(told, observation=replace(told.observation, images={})) if isinstance(told, DecisionMade) else told
