"""Episodes of a cell whose policy service an agent keeps up to date: each under the update lock, on the service that the permit names."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model_core.spec.errors import NotReady
from model_core.spec.execution.cell_options import CellOptions
from model_core.spec.fleet.documents import EpisodeRecord, Outcome
from model_core.spec.types import StopReason
from serving.cell_files.boot_clock import moment
from serving.cell_files.cell_facts import CellFacts, write_facts
from serving.cell_files.finished_episodes import FinishedEpisodes
from serving.cell_files.permit import Permit, read_contact, read_permit, why_it_must_stop, why_none_begins
from serving.cell_files.update_lock import RunningEpisode, UpdateLock
from serving.workcell.control.realtime_cell import RealtimeCell
from serving.workcell.control.results import EpisodeResult
from serving.workcell.link.handshake import wait_until_up
from serving.workcell.link.interface import Link
from serving.workcell.link.websocket_link import AsyncLink

_LOOK_S = 0.2
Note = Callable[[EpisodeResult], None]


class EpisodeWindow(Protocol):
    """What stands around every episode of a cell."""

    def first_url(self) -> str:
        """The service to shake hands with first. Raises `NotReady` where there is none within the patience."""
        ...

    def takes_over(self, limits: str) -> None:
        """The robot is in this process's hands. limits: digest of those in force."""
        ...

    def episode(self, cell: RealtimeCell, link: AsyncLink) -> contextlib.AbstractContextManager[Note]:
        """Enter it before an episode begins, with the link up when it is entered; call what it gives with the result."""
        ...


class NoAgent:
    """A cell that is pointed at one service by hand."""

    def __init__(self, url: str, patience_s: float) -> None:
        self._url, self._patience_s = url, patience_s

    def first_url(self) -> str:
        """The one that was given."""
        return self._url

    def takes_over(self, limits: str) -> None:
        """Nothing: no other process changes anything under this cell."""

    @contextlib.contextmanager
    def episode(self, cell: RealtimeCell, link: AsyncLink) -> Iterator[Note]:
        """Wait for the service where it was lost."""
        if not link.is_up:
            wait_until_up(link, self._patience_s)
        yield lambda result: None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFiles:
    """A cell beside an agent. folder: the cell's files, which both know. task: what it does. watchdog: its heartbeat file, if any."""

    folder: Path
    cell: str
    task: str
    patience_s: float
    watchdog: Path | None = None

    def first_url(self) -> str:
        """The service to shake hands with first. Raises `NotReady` where the agent has none within the patience."""
        give_up_at = time.monotonic() + self.patience_s
        while (permit := read_permit(self.folder)) is None:
            if time.monotonic() > give_up_at:
                raise NotReady(f"no agent has put a policy service into {self.folder}. Fix: start one with `actwright fleet agent`")
            time.sleep(_LOOK_S)
        return permit.url

    def takes_over(self, limits: str) -> None:
        """The robot is in this process's hands: what a dead one left behind ends here. limits: digest of those in force.

        A stop that the watchdog latched was taken back by a person before this. Raises `NotReady` where another process has the lock.
        """
        lock = UpdateLock(self.folder)
        with lock.taken(self.patience_s) as is_mine:
            if not is_mine:
                raise NotReady(f"another process runs an episode of cell {self.cell}. Fix: end it, or name another cell")
            lock.clear()
        write_facts(self.folder, CellFacts(cell=self.cell, task=self.task, limits=limits))

    @contextlib.contextmanager
    def episode(self, cell: RealtimeCell, link: AsyncLink) -> Iterator[Note]:
        """Take the lock, go to the permitted service, prove that it is that one, and record what comes of the episode.

        The lock is kept until the robot rests; a robot that does not leaves its mark, and the agent changes nothing under it. Raises
        `NotReady` where no episode may begin within the patience.
        """
        lock = UpdateLock(self.folder)
        with self._permitted(lock) as permit:
            if permit.url != link.url:
                link.move(permit.url)
            if not link.is_up:
                wait_until_up(link, self.patience_s)
            _check_served(link, permit)
            running = lock.mark(self.cell, self.watchdog)
            kept = _Kept(self, permit, running, cell, link)
            try:
                with _stopping(self.folder, permit, cell):
                    yield kept.note
            finally:
                if kept.is_at_rest:
                    lock.clear()

    @contextlib.contextmanager
    def _permitted(self, lock: UpdateLock) -> Iterator[Permit]:
        give_up_at = time.monotonic() + self.patience_s
        while True:
            with lock.taken(self.patience_s) as is_mine:
                permit = read_permit(self.folder) if is_mine else None
                why = self._why_not(lock, permit) if is_mine else "another process of this cell holds the update lock"
                if permit is not None and not why:
                    yield permit
                    return
            if time.monotonic() > give_up_at:
                raise NotReady(f"no episode may begin: {why}. Fix: see what the agent of cell {self.cell} says")
            time.sleep(_LOOK_S)  # without the lock: a swap may be what is missing

    def _why_not(self, lock: UpdateLock, permit: Permit | None) -> str:
        if permit is None:
            return f"no agent has put a policy service into {self.folder}"
        if lock.left_behind() is not None:
            return "the robot of the last episode did not come to rest"
        return why_none_begins(permit, read_contact(self.folder), moment(), lock.begun)


def window_of(options: CellOptions) -> EpisodeWindow:
    """What stands around the episodes that these options ask for."""
    if options.agent is None:
        return NoAgent(options.url, options.patience_s)
    return AgentFiles(folder=options.agent, cell=options.cell, task=options.task, patience_s=options.patience_s, watchdog=options.watchdog)


class _Kept:
    """What is kept of one episode: the numbers before it, and its record after it."""

    def __init__(self, of: AgentFiles, permit: Permit, running: RunningEpisode, cell: RealtimeCell, link: Link) -> None:
        self._of, self._permit, self._running, self._cell, self._link = of, permit, running, cell, link
        self._began_s, self._up_s, self._late = time.time(), time.monotonic(), link.tally.late
        self._envelope, self._clips = cell.envelope, sum(cell.envelope.tally.clips.values())
        self.is_at_rest = False  # until the result says so: a process that unwinds has proven nothing

    def note(self, result: EpisodeResult) -> None:
        """It is over. Its end by the set clock, its length by one that is never set: a controller waits for the longest."""
        ended_s = time.time()
        self.is_at_rest = result.is_at_rest
        clips = sum(self._cell.envelope.tally.clips.values())
        cut_by = self._cut_by()
        record = EpisodeRecord(
            id=f"{self._running.number:06d}-{int(1e3 * self._began_s):x}",
            release=self._permit.release,
            task=self._of.task,
            started_at_s=ended_s - (time.monotonic() - self._up_s),
            ended_at_s=ended_s,
            outcome=_outcome(result, cut_by),
            stop_reason=result.stop_reason.value,
            steps=result.steps,
            interventions=result.interventions,
            clips=clips - self._clips if self._envelope is self._cell.envelope else clips,  # other limits count from zero
            holds=result.holds,
            deadline_misses=self._link.tally.late - self._late,
            refusals=result.refusals,
            novelty=result.novelty,
            cut_by=cut_by,
        )
        FinishedEpisodes(self._of.folder).add(self._running.number, record)

    def _cut_by(self) -> str:
        if self._cell.is_killed:
            return "kill"
        if why_it_must_stop(self._permit, read_contact(self._of.folder), moment()):
            return "offline"  # by the robot's own stop, where it has one
        return "robot stop" if self._cell.robot_stop else ""


def _outcome(result: EpisodeResult, cut_by: str) -> Outcome:
    if result.success:
        return "success"
    is_trial = result.steps > 0 and result.stop_reason is not StopReason.ENV_ERROR and not cut_by
    return "failure" if is_trial else "uncounted"


def _check_served(link: Link, permit: Permit) -> None:
    ready = link.ready
    told = (ready.bundle_digest, ready.contract.contract_id) if ready is not None else ("", "")
    if told != (permit.bundle_digest, permit.contract_id):
        raise NotReady(
            f"the service serves bundle {told[0][:16] or '(none)'} under contract {told[1] or '(none)'}, and the permit is for "
            f"{permit.bundle_digest[:16]} under {permit.contract_id}. Fix: restart the agent of this cell"
        )


@contextlib.contextmanager
def _stopping(folder: Path, permit: Permit, cell: RealtimeCell) -> Iterator[None]:
    """Bring the cell to a stop as soon as the release's rule for a lost controller asks for it."""
    if permit.offline.then != "stop":
        yield
        return
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(_LOOK_S):
            if why := why_it_must_stop(permit, read_contact(folder), moment()):
                cell.stop(why)
                return

    thread = threading.Thread(target=look, name="contact", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(1.0)
