"""The policy service of one slot: a process that outlives the agent, is found again by it, and says itself what it serves.

    service.lock     locked (flock) by the service's process for as long as it lives; holds its process id and what it was started for

The process is a session of its own, so that nothing that ends the agent ends it. It inherits the locked file, so that a new agent
knows without guessing whether a service lives: a process id alone may belong to another process by now.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from model_core.spec.files import atomic_write
from serving.fleet.intake.http_client import HttpClient, HttpStatus
from serving.fleet.intake.problems import UpdateRefused

_GRACE_S = 15.0
_SECOND_LOOK_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """state: "starting", "ready" or "failed" (with its reason)."""

    state: Literal["starting", "ready", "failed"]
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class PolicyService:
    """One slot's. folder: where its lock and its log are. command: with {python}, {bundle}, {port} and {candidate}."""

    folder: Path
    command: tuple[str, ...]
    bundle: Path
    port: int
    client: HttpClient
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def session_url(self) -> str:
        """Where cells ask it."""
        return f"ws://127.0.0.1:{self.port}/v1/session"

    @property
    def candidate_file(self) -> Path:
        """Where the candidate is named that answers in its shadow."""
        return self.folder / "candidate.json"

    def candidate(self) -> str:
        """What that file says; "" for none, or none that can be read."""
        try:
            return self.candidate_file.read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def name_candidate(self, text: str) -> None:
        """Write that file, or remove it (""). Raises OSError."""
        if text:
            atomic_write(self.candidate_file, text)
        else:
            self.candidate_file.unlink(missing_ok=True)

    def is_alive(self) -> bool:
        """Its process lives, started by this agent or by one before it."""
        if self._child is not None:
            self._child.poll()  # takes the zombie of our own child away
        try:
            descriptor = os.open(self.folder / "service.lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def started_for(self) -> str:
        """What it was started for; "" where none lives."""
        return str(self._note().get("release", "")) if self.is_alive() else ""

    def check_room(self, release: str) -> None:
        """Nothing: a slot's own service always has room for the release of its slot."""

    def shared(self) -> frozenset[str]:
        """The releases for which other cells use services of the same computer: none."""
        return frozenset()

    def start(self, release: str) -> None:
        """Start one for a release, in place of the one that lives. Raises `UpdateRefused` START where its program cannot be run."""
        if self.is_alive():
            self.stop()
        note = json.dumps({"pid": "PID", "release": release})
        words = {"python": sys.executable, "bundle": str(self.bundle), "port": str(self.port), "candidate": str(self.candidate_file)}
        command = [word.format(**words) for word in self.command]
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "service.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(descriptor, 0)
            with (self.folder / "service.log").open("ab") as log:
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(descriptor,),
                    # by the process itself: an agent that is killed here leaves none whose process id is not known
                    preexec_fn=lambda: os.pwrite(descriptor, note.replace('"PID"', str(os.getpid())).encode(), 0),
                )
        except OSError as error:
            raise UpdateRefused("START", f"{command[0]} cannot be run: {error}") from error
        finally:
            os.close(descriptor)  # the child keeps the lock

    def status(self) -> ServiceStatus:
        """What the service says of itself; a process that ended has failed."""
        try:
            told = json.loads(self.client.exchange(self._url("/readyz"), most=65_536))
            return ServiceStatus(state="ready", reason=str(told.get("reason", "")))
        except HttpStatus as error:
            told = _json_of(error.body)
            if told.get("state") == "failed":
                return ServiceStatus(state="failed", reason=str(told.get("reason", "")))
        except (UpdateRefused, ValueError, AttributeError):
            pass
        if not self.is_alive():
            return ServiceStatus(state="failed", reason=f"its process ended: {self.last_line()}")
        return ServiceStatus(state="starting")

    def served(self) -> tuple[str, str]:
        """(digest of the bundle, contract id) as the service itself says. Raises `UpdateRefused`."""
        told = json.loads(self.client.exchange(self._url("/v1/contract"), most=2**24))
        return str(told["bundle_digest"]), str(told["contract_id"])

    def compared(self) -> dict[str, Any]:
        """What the service found of the candidate in its shadow; empty where it says nothing of that. Raises `UpdateRefused`."""
        return _json_of(self.client.exchange(self._url("/v1/shadow"), most=2**22))

    def stop(self) -> None:
        """End the process and all that it started; returns when it is gone. Raises `UpdateRefused` START where it cannot be ended."""
        give_up_at = time.monotonic() + _GRACE_S
        number = signal.SIGTERM
        while self.is_alive():
            pid = self._note().get("pid", 0)
            for group in [pid] if isinstance(pid, int) and pid > 1 else self._holders():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, number)
            now = time.monotonic()
            if now > give_up_at + _GRACE_S:
                where = self.folder / "service.lock"
                raise UpdateRefused("START", f"the process that holds {where} does not end. Fix: end it by hand")
            if now > give_up_at:
                number = signal.SIGKILL
            time.sleep(0.02)

    def _holders(self) -> list[int]:
        """Groups of the processes that hold the lock's file, where what stands in it was lost (a disk that was full at the start).

        A service leads a group of its own; this process, which opens the file too, is in none of them. Agents of other cells that share the
        service open it for a moment, so what is not there at a second look is none.
        """
        first = self._openers()
        time.sleep(_SECOND_LOOK_S)
        return sorted((first & self._openers()) - {os.getpgid(0)})

    def _openers(self) -> set[int]:
        """Groups of the processes that have the lock's file open."""
        lock = (self.folder / "service.lock").stat()
        found: set[int] = set()
        for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError, ValueError):
                held = descriptor.stat()
                if (held.st_dev, held.st_ino) == (lock.st_dev, lock.st_ino):
                    found.add(os.getpgid(int(descriptor.parts[2])))
        return found

    def _note(self) -> dict[str, Any]:
        try:
            return json.loads((self.folder / "service.lock").read_bytes())
        except (OSError, ValueError):
            return {}

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def last_line(self) -> str:
        """The last line of its log."""
        try:
            lines = (self.folder / "service.log").read_bytes()[-2000:].decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line for line in reversed(lines) if line.strip()), "")[:300]


def _json_of(body: bytes) -> dict[str, Any]:
    """The JSON object that these bytes are; empty where they are none."""
    with contextlib.suppress(ValueError):
        found = json.loads(body)
        return found if isinstance(found, dict) else {}
    return {}
