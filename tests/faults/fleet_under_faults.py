"""The demonstration's fleet with its links, disks and clocks in the hands of a test, and faults that come by a schedule.

Agents, cells and controller are processes that a supervisor starts again, as on a robot's computer; policy services outlive their agents.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.adapters.processes import free_port, stop_group
from components.deployment.cell_process import cell_command
from components.deployment.fleet_demo.cells import CellJob, between_episodes
from components.deployment.fleet_demo.site import SITE, Site, serving_files
from components.deployment.service_process import fetch_state, tied_to_us
from serving.fault_injection.proxy import RunningProxy, running_proxy
from tests.faults.fleet_schedule import OF_A_CELL, OF_A_SERVICE, Trouble
from tests.fleet_agent import end_services

ROOM = 24 * 2**20  # of the disk of an agent, and of the controller


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """A fault that came. from_s, to_s: on the monotonic clock, which drivers' logs have too. cells: whose services it touched itself."""

    kind: str
    from_s: float
    to_s: float
    cells: frozenset[str] = frozenset()


@dataclass(slots=True, kw_only=True)
class Kept:
    """A process that is started again when it ended."""

    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    not_before_s: float = 0.0

    def look(self) -> bool:
        """Start it where it does not run; True where it had ended by itself."""
        had_ended = self.process is not None and self.process.poll() is not None and time.monotonic() >= self.not_before_s
        if time.monotonic() >= self.not_before_s and (self.process is None or had_ended):
            with self.log.open("ab") as sink:
                self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)
            self.not_before_s = time.monotonic() + 1.0  # as a supervisor does: not more often
        return had_ended

    def kill(self, for_s: float) -> None:
        """SIGKILL, and not started again for so long."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None
        self.not_before_s = time.monotonic() + for_s

    def end(self) -> None:
        if self.process is not None:
            stop_group(self.process, grace_s=5.0)


@dataclass(slots=True, kw_only=True)
class Fleet:
    """jobs: of the cells, by name. shares: the cells share two policy services. happened: which faults came. ended: processes that ended
    though nothing was done to them."""

    site: Site
    jobs: Mapping[str, CellJob]
    url: str
    controller: Kept
    agents: Mapping[str, Kept]
    cells: Mapping[str, Kept]
    links: Sequence[Sequence[RunningProxy]]
    shares: bool = False
    schedule: list[Trouble] = field(default_factory=list[Trouble])
    happened: list[Happened] = field(default_factory=list[Happened])
    ended: Counter[str] = field(default_factory=Counter[str])
    begun_s: float = 0.0
    _undo: list[tuple[float, contextlib.ExitStack]] = field(default_factory=list)

    def look(self) -> None:
        """Start what ended, end the faults whose time is over, and let those come that are due."""
        now = time.monotonic()
        for until_s, undo in [one for one in self._undo if one[0] <= now]:
            self._undo.remove((until_s, undo))
            undo.close()
        while self.begun_s and self.schedule and self.begun_s + self.schedule[0].at_s <= now:
            self._come(self.schedule.pop(0))
        if self.controller.look():
            self.ended["controller"] += 1
        for kind, kept in (("agent", self.agents), ("cell", self.cells)):
            self.ended[kind] += sum(one.look() for one in kept.values())

    def heal(self) -> None:
        """No more faults; what lasts ends now."""
        self.schedule.clear()
        for _, undo in self._undo:
            undo.close()
        self._undo.clear()

    def is_up(self) -> bool:
        """The controller answers."""
        state = fetch_state(f"{self.url}/readyz")
        return state is not None and state.get("state") == "ready"

    def start_cells(self) -> None:
        """Cells are kept from now on."""
        for name, job in self.jobs.items():
            command = cell_command(job.options())
            at = command.index("serving.workcell")
            command[at:at] = ["tests.faults.shifted_process", str(self._clock(name))]
            self.cells[name].command = command  # pyright: ignore[reportIndexIssue]
            self.cells[name].not_before_s = 0.0

    def end_cells(self) -> None:
        """Each between two of its episodes, so that none is cut."""
        for name, kept in self.cells.items():
            with between_episodes(self.jobs[name].files):
                kept.end()
                kept.process, kept.not_before_s = None, float("inf")

    def end(self) -> None:
        """Whatever still runs."""
        self.heal()
        for kept in (*self.cells.values(), *self.agents.values(), self.controller):
            kept.end()
        for folder in (self.site.folder, *(job.folder / "agent" for job in self.jobs.values())):
            end_services(folder)

    def _clock(self, cell: str) -> Path:
        return self.jobs[cell].folder / "clock.offset"

    # --- the faults -----------------------------------------------------------------------------------------------------

    def _come(self, one: Trouble) -> None:
        now, undo = time.monotonic(), contextlib.ExitStack()
        name = list(self.jobs)[one.where] if one.kind in OF_A_CELL else ""
        touched: frozenset[str] = frozenset()
        if one.kind == "agent killed":
            self.agents[name].kill(one.lasts_s)
        elif one.kind in OF_A_SERVICE:
            folder, touched = self._services(one.where)
            self._signal_services(folder, undo, is_killed=one.kind == "service killed")
        elif one.kind == "controller killed":
            self.controller.kill(one.lasts_s)
        elif one.kind in _OF_LINK:
            for link in self.links[one.where]:
                link.do(_OF_LINK[one.kind])
                undo.callback(link.do, "heal")
        elif one.kind == "clock two hours off":
            self._clock(name).write_text(str(7200 if int(one.at_s) % 2 else -7200))
            undo.callback(self._clock(name).unlink, missing_ok=True)
        else:
            disk = self.jobs[name].folder / "agent" if name else self.site.folder / "controller"
            fill(disk)
            undo.callback((disk / "ballast").unlink, missing_ok=True)
        self._undo.append((now + one.lasts_s, undo))
        self.happened.append(Happened(kind=one.kind, from_s=now, to_s=now + one.lasts_s, cells=touched))

    def _services(self, number: int) -> tuple[Path, frozenset[str]]:
        """Where the policy services of a cell are, the one that answers it and one that is probed; where they are shared, one that is in
        use. Also: whose they are at this moment."""
        if self.shares:
            used = users_of(self.site.services) or [(self.site.services, frozenset(self.jobs))]
            return used[number % len(used)]
        name = list(self.jobs)[number]
        return self.jobs[name].folder / "agent" / "services", frozenset({name})

    def _signal_services(self, folder: Path, undo: contextlib.ExitStack, *, is_killed: bool) -> None:
        """Whatever policy services run there."""
        for lock in folder.glob("**/service.lock"):
            with contextlib.suppress(ValueError, KeyError, OSError):
                pid = int(json.loads(lock.read_bytes())["pid"])
                if str(self.site.folder).encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    continue  # it ended, and the number is another process's
                os.killpg(pid, signal.SIGKILL if is_killed else signal.SIGSTOP)
                if not is_killed:
                    undo.callback(_go_on, pid)


_OF_LINK = {"links cut": "cut", "links silent": "half-open", "site away": "refuse"}


def users_of(services: Path) -> list[tuple[Path, frozenset[str]]]:
    """The shared policy services that are in use, each with the cells that use it at this moment."""
    found = [(place, frozenset(use.name.rpartition(".")[0] for use in (place / "uses").glob("[!.]*"))) for place in services.glob("[01]")]
    return sorted((place, cells) for place, cells in found if cells)


def _go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGCONT)


def fill(disk: Path) -> None:
    """Leave no byte free."""
    free = os.statvfs(disk)
    with (disk / "ballast").open("wb") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of its own for a folder while the block runs; False where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", str(folder)]
    is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def fleet_under_faults(site: Site, jobs: Mapping[str, CellJob], *, shares: bool) -> Iterator[tuple[Fleet, bool]]:
    """A controller, and an agent for each cell, not enrolled yet; cells are started by `start_cells`. Also: whether disks can be full.
    shares: the cells share two policy services, as in the demonstration."""
    port, folder = free_port(), site.folder / "controller"
    shared_ports = (free_port(), free_port()) if shares else None
    with contextlib.ExitStack() as stack:
        disks = [stack.enter_context(small_disk(place)) for place in (folder, *(site.cell(name) / "agent" for name in jobs))]
        repository = stack.enter_context(serving_files(site.repository))
        upstreams = (f"127.0.0.1:{port}", repository.removeprefix("http://"))
        links = [[stack.enter_context(running_proxy(upstream)) for upstream in upstreams] for _ in range(2)]
        for number, name in enumerate(jobs):
            controller, files = (f"http://{link.address}" for link in links[number % 2])
            addresses = {"controller": controller, "repository": files}
            settings = site.prepare_agent(name, jobs[name].task, addresses, is_bench=number == 0, shared_ports=shared_ports)
            settings.write_text(json.dumps(json.loads(settings.read_text()) | {"spare_bytes": 2**20}))  # on a disk of 24 MiB
        fleet = Fleet(
            site=site,
            jobs=jobs,
            url=f"http://127.0.0.1:{port}",
            controller=Kept(command=_controller(site, port), log=site.folder / "controller.log"),
            agents={name: Kept(command=_agent(job), log=job.folder / "agent.log") for name, job in jobs.items()},
            cells={name: Kept(command=(), log=job.folder / "cell.log", not_before_s=float("inf")) for name, job in jobs.items()},
            links=links,
            shares=shares,
        )
        stack.callback(fleet.end)
        yield fleet, all(disks)


def _controller(site: Site, port: int) -> list[str]:
    words = ["-m", "serving.fleet.controller", "--database", f"sqlite:///{site.folder / 'controller' / 'fleet.db'}"]
    return tied_to_us([sys.executable, *words, "--key", str(site.controller_key), "--port", str(port), "--report-every", "2"])


def _agent(job: CellJob) -> list[str]:
    words = ["-m", "tests.faults.shifted_process", str(job.folder / "clock.offset"), "serving.fleet.agent"]
    return tied_to_us([sys.executable, *words, "--config", str(job.folder / "agent.json")])


def enrolled(fleet: Fleet) -> list[tuple[str, str, str]]:
    """What the controller is told of each cell: name, site, public key."""
    return [(name, SITE, fleet.site.public_key(name)) for name in fleet.jobs]


def told(happened: Sequence[Happened]) -> dict[str, Any]:
    """How many of each kind."""
    return dict(sorted(Counter(one.kind for one in happened).items()))
