"""What every process that we start needs: a free port, its priority, an end for its whole group, the last lines of its log."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from model_core.spec.errors import JobError

LOOPBACK = "127.0.0.1"


def free_port(wanted: int = 0) -> int:
    """`wanted` if nothing listens there on loopback now, else any free port."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise JobError("no free port on loopback")


def let_others_go_first(by: int = 5) -> None:
    """Lower this process's priority by `by` steps of `nice`: with 5, one that computes for robots gets three times its processor time.

    Call it before threads are started: Linux keeps a priority for each, and a new one takes that of its maker. There, a session that this
    process leads (a child of `actwright up`) is lowered too, since processes of two sessions do not compete by `nice`.
    """
    os.nice(by)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # a system without such groups
            Path("/proc/self/autogroup").write_text(str(by))


def group_alive(group: int) -> bool:
    """Whether any process of the group still runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def tell_of_end(process: subprocess.Popen[bytes], say: Callable[[str], object], *, name: str, log: Path) -> threading.Event:
    """Let `say` hear of it where the process ends by itself. Who ends it sets the returned event before."""
    stopping = threading.Event()

    def wait() -> None:
        code = process.wait()
        if not stopping.is_set():
            say(f"{name} ended with code {code}, the others go on; its log is {log}. Fix: start this command again")

    threading.Thread(target=wait, daemon=True, name=f"end of {name}").start()
    return stopping


def stop_group(process: subprocess.Popen[bytes], grace_s: float = 8.0) -> bool:
    """End a process that leads a group, and everything in the group: SIGTERM first, then SIGKILL. Safe to call twice.

    False when a process of it is still alive after that.
    """
    group = process.pid
    for signum, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signum)
        give_up_at = time.monotonic() + wait_s
        while time.monotonic() < give_up_at:
            process.poll()  # reaps the leader; without it the group would seem alive
            if not group_alive(group):
                return True
            time.sleep(0.05)
    return False


def last_lines(log: Path, count: int = 15, *, margin: str = "", without: tuple[str, ...] = ()) -> str:
    """The end of a log, for an error message. margin: before every line. without: lines that hold one of these, and empty ones, go."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    if without:
        lines = [line for line in lines if line.strip() and not any(word in line for word in without)]
    return "\n".join(f"{margin}{line}" for line in lines[-count:])
