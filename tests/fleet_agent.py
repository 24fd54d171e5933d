"""A fleet for tests of the agent: a repository behind a server that knows ranges, a controller that signs, and an agent with its clock."""

from __future__ import annotations

import contextlib
import datetime
import functools
import http.server
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from components.adapters.processes import free_port
from components.adapters.signing.folder_signature import Trust
from components.adapters.signing.key_files import make_keys
from components.adapters.signing.repository_files import Keys
from components.adapters.signing.update_repository import make_repository
from components.release.fleet.create import Made
from components.release.fleet.publish import publish
from model_core.spec.fleet.documents import CellReport, DesiredState
from model_core.spec.fleet.signatures import make_key, opened, sealed, trusted, written_public
from serving.cell_files.boot_clock import Moment, moment
from serving.cell_files.permit import Permit, read_permit
from serving.fleet.agent.agent import Agent, Clock
from serving.fleet.agent.make import make_agent
from serving.fleet.agent.report import answering
from serving.fleet.agent.settings import read_settings
from tests.fleet import bundle, release

SERVICE = Path(__file__).with_name("light_service.py")


class RangedFiles(http.server.SimpleHTTPRequestHandler):
    """Files with ranges of the form bytes=N-. `server.cut_after`: end each body after so many bytes; `server.sent`: bytes of all bodies."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if self.server.is_down or not path.is_file():
            self.send_error(503 if self.server.is_down else 404)
            return
        content = path.read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start : start + self.server.cut_after] if "/files/" in self.path else content[start:]
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)
        self.server.sent += len(body)
        self.close_connection = len(body) < len(content) - start


class Controller(http.server.BaseHTTPRequestHandler):
    """Answers each signed report with `server.desired`, signed; reports are kept in `server.reports`."""

    def log_message(self, format: str, *args: object) -> None: ...

    def do_POST(self) -> None:
        at = self.server.told
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if at.is_down:
            self.send_error(503)
            return
        report = opened(body, CellReport, trusted(at.cell_key.public_key()))
        assert self.path == f"/v1/cells/{report.cell}/report"
        at.reports.append(report)
        answer = sealed(at.answer(report), at.key)
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(answer)


@dataclass(slots=True)
class ToldController:
    """What the controller says. desired: fields of its proposal."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    cell_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    desired: dict[str, Any] = field(default_factory=dict)
    reports: list[CellReport] = field(default_factory=list)
    is_down: bool = False
    offset_s: float = 0.0
    revision: int = 0
    url: str = ""

    def propose(self, release: str, **fields: Any) -> None:
        """From now on."""
        self.revision += 1
        self.desired = {"release": release, **fields}

    def answer(self, report: CellReport) -> DesiredState:
        return DesiredState(
            cell=report.cell,
            revision=self.revision,
            acknowledged_sequence=report.sequence,
            sent_at_s=time.time() + self.offset_s,
            acknowledged=tuple(episode.id for episode in report.episodes),
            **{"report_every_s": 0.2, **self.desired},
        )


@contextlib.contextmanager
def listening(handler: Any) -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def repository_server(folder: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    """Serve a repository's folder."""
    with listening(functools.partial(RangedFiles, directory=str(folder))) as server:
        server.sent, server.cut_after, server.is_down = 0, 10**12, False
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield server


@contextlib.contextmanager
def controller_server() -> Iterator[ToldController]:
    """A controller that says what it is told."""
    with listening(Controller) as server:
        server.told = told = ToldController()
        told.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield told


def service_pids(home: Path) -> list[int]:
    """Processes of policy services that an agent with this home has started, dead ones included."""
    found = []
    for path in home.glob("services/*/service.lock"):
        with contextlib.suppress(ValueError, KeyError):
            found.append(int(json.loads(path.read_bytes())["pid"]))
    return found


def end_services(home: Path) -> None:
    """End those that are services of this home (each names its bundle on its command line)."""
    for pid in service_pids(home):
        with contextlib.suppress(OSError):
            if str(home).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


class StepClock:
    """The agent's clock: as real, or `ahead_s` later. Sleeping takes no time where it is simulated."""

    def __init__(self) -> None:
        self.ahead_s, self.is_simulated, self.boot = 0.0, False, "boot-1"

    def moment(self) -> Moment:
        now = time.monotonic() + self.ahead_s
        return Moment(boot=self.boot, up_s=now, wall_s=time.time() + self.ahead_s)

    def sleep(self, seconds: float) -> None:
        if self.is_simulated:
            self.ahead_s += seconds
        else:
            time.sleep(min(seconds, 0.02))


@dataclass(slots=True, kw_only=True)
class Robot:
    """One cell's computer: its settings, its clock, and an agent that can be started again and again in this process."""

    folder: Path
    keys: Path
    repository: http.server.ThreadingHTTPServer
    controller: ToldController
    clock: StepClock = field(default_factory=StepClock)
    options: dict[str, Any] = field(default_factory=dict)
    agent: Agent | None = None

    def settings(self) -> dict[str, Any]:
        """As in the file."""
        paths = {
            "root": "1.root.json",
            "key": "cell.pem",
            "controller_key": "controller.pub.pem",
            "release_key": str(self.keys / "release.pub.pem"),
        }
        addresses = {"controller": self.controller.url, "repository": self.repository.url}
        service = [sys.executable, "-S", str(SERVICE), "{bundle}", "{port}", "{candidate}"]
        ports = self.options.setdefault("ports", [free_port(), free_port()])
        return {
            "cell": "cell-1",
            "site": "lab",
            "service": service,
            "report_every_s": 0.2,
            **paths,
            **addresses,
            **self.options,
            "ports": ports,
        }

    @property
    def place(self) -> Path:
        """The repository's folder."""
        return self.folder.parent / "repository"

    def prepare(self) -> Path:
        """Write what a person brings to the computer; returns the settings file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        key = self.folder / "cell.pem"
        if not key.exists():
            self.controller.cell_key = make_key(key)
            (self.folder / "controller.pub.pem").write_text(written_public(self.controller.key.public_key()))
            shutil.copyfile(self.place / "metadata" / "1.root.json", self.folder / "1.root.json")
        config = self.folder / "agent.json"
        config.write_text(json.dumps(self.settings()))
        return config

    @property
    def home(self) -> Path:
        return self.folder / "agent"

    @property
    def cell(self) -> Path:
        return self.folder / "cell"

    @property
    def permit(self) -> Permit | None:
        return read_permit(self.cell)

    def start(self) -> Agent:
        """A new agent from what is on the disk."""
        clock = Clock(moment=self.clock.moment, sleep=self.clock.sleep)
        self.agent = make_agent(read_settings(self.folder / "agent.json"), clock)
        return self.agent

    def turn_until(self, claim: Callable[[], object], most_s: float = 20.0) -> None:
        """Turn after turn."""
        agent = self.agent or self.start()
        give_up_at = time.monotonic() + most_s
        while not claim():
            assert time.monotonic() < give_up_at, f"it did not happen: {agent.phase}, {agent.state.now}"
            self.clock.sleep(min(agent.turn(), 0.05))

    def runs(self, release: str) -> bool:
        """The permitted service answers, and reports say so."""
        return bool(self.controller.reports) and self.controller.reports[-1].running == release

    @property
    def error(self) -> str:
        """As it was reported last."""
        last = self.controller.reports[-1].error
        return last.code if last else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A site's keys, its repository before anything is published, and releases for it."""

    keys: Path
    repository: Path
    made: tuple[Made, ...]


def make_site(folder: Path, contract: str = "") -> Offered:
    """Releases 1, 2 (an adapter on the weights of 1) and 3 (whose probe the light service answers otherwise)."""
    keys = folder / "keys"
    make_keys(keys, ["lab"])
    make_repository(folder / "repository", Keys(folder=keys))
    one = release(bundle(folder / "one", contract=contract), folder / "releases", keys)
    two = release(bundle(folder / "two", "arm/2", adapter=64, contract=contract), folder / "releases", keys, base=one.folder)
    three = release(bundle(folder / "three", "arm/3", probe=b"another answer", contract=contract), folder / "releases", keys)
    return Offered(keys=keys, repository=folder / "repository", made=(one, two, three))


def offer(offered: Offered, repository: Path, made: Made, now: datetime.datetime | None = None) -> str:
    """Publish a release to the site; its digest."""
    publish(made.folder, repository, ["lab"], Keys(folder=offered.keys, now=now), Trust(public_key=offered.keys / "release.pub.pem"))
    return made.release.digest


@contextlib.contextmanager
def robot_of(offered: Offered, folder: Path, **options: Any) -> Iterator[Robot]:
    """A robot of the site, which is offered release 1, with its servers; its services are ended at the end."""
    repository = shutil.copytree(offered.repository, folder / "repository")
    offer(offered, repository, offered.made[0])
    with repository_server(repository) as server, controller_server() as controller:
        made = Robot(folder=folder / "robot", keys=offered.keys, repository=server, controller=controller, options=dict(options))
        made.prepare()
        try:
            yield made
        finally:
            end_services(made.home)


def turn_to(config: str, release: str, most_s: str = "300") -> None:
    """For a process of its own: an agent's turns until the service of `release` answers by permit; exit code 9 where that takes longer."""
    agent = make_agent(read_settings(Path(config)), Clock(moment=moment, sleep=time.sleep))
    give_up_at = time.monotonic() + float(most_s)
    while time.monotonic() < give_up_at:
        wait_s = 0.05
        with contextlib.suppress(OSError):
            wait_s = agent.turn()
        if answering(agent.update, read_permit(agent.settings.cell_files))[0] == release:
            return
        time.sleep(min(wait_s, 0.05))
    raise SystemExit(9)
