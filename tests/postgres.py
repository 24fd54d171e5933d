"""A PostgreSQL of a test's own, where its programs are on this machine (Debian: package postgresql), on loopback, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_USER = "postgres"


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; None where they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server in a folder of its own. As root it runs as the user `postgres`, for it refuses to be root."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres"

    def call(self, program: str, *words: str) -> None:
        user, bin_folder = _USER if os.getuid() == 0 else None, programs()
        assert bin_folder is not None
        command = [f"{bin_folder}/{program}", "-D", f"{self.folder}/data", *words]
        subprocess.run(command, user=user, group=user, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, timeout=120)

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder}"
        self.call("pg_ctl", "-l", f"{self.folder}/log", "-o", options, "-w", "start")

    def kill(self) -> None:
        """SIGKILL, as by a power cut; returns when none of its processes is left."""
        first = psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]))
        everyone = [first, *first.children(recursive=True)]
        for one in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(everyone, timeout=30)

    def stop(self) -> None:
        self.call("pg_ctl", "-m", "immediate", "-w", "stop")


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A new server, while it runs."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, contextlib.closing(socket.socket()) as probe:
        if os.getuid() == 0:
            owner = pwd.getpwnam(_USER)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        probe.bind(("127.0.0.1", 0))
        server = Postgres(folder=Path(folder), port=probe.getsockname()[1])
        probe.close()
        server.call("initdb", "-U", _USER, "--auth=trust", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a new server, while it runs."""
    with postgres_server() as server:
        yield server.url
