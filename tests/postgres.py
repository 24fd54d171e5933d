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
from pathlib import Path

_USER = "postgres"


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; None where they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """Its URL, while it runs. As root it runs as the user `postgres`, for it refuses to be root."""
    bin_folder = programs()
    assert bin_folder is not None
    user = _USER if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, contextlib.closing(socket.socket()) as probe:
        if user:
            owner = pwd.getpwnam(user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()

        def call(*words: str) -> None:
            subprocess.run(words, user=user, group=user, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=120)

        call(f"{bin_folder}/initdb", "-D", f"{folder}/data", "-U", _USER, "--auth=trust", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder}"
        call(f"{bin_folder}/pg_ctl", "-D", f"{folder}/data", "-l", f"{folder}/log", "-o", options, "-w", "start")
        try:
            yield f"postgresql://{_USER}@127.0.0.1:{port}/postgres"
        finally:
            call(f"{bin_folder}/pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "-w", "stop")
