"""Workers of pytest-xdist as forks of one process that has collected the tests: libraries and test modules are loaded once, not by each.

`make test` names this module as the interpreter of its workers (`--tx "3*popen//python=... -m tests.forked_worker"`). The first worker of a
run starts the process that loads, the server; every worker asks it for a fork, which gets the worker's pipes and becomes it. Against
workers that load by themselves this saves 40 s of processor time of two cores, and two thirds of their memory. A test that needs a process
whose forks run commands (`tests.faults.fork_server`) asks the server too.

No thread may be at work when a process forks: torch is loaded with one thread here, and gets its own number in the fork.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKERS = "TEST_WORKERS_SERVER"  # in the environment of a worker: the address of the server
THREADS = "OMP_NUM_THREADS"  # read by torch when it is loaded
LOOK_AGAIN_S = 2.0
# what several workers, or the commands that tests run in forks, would load later: two to four seconds each
LATER = ("mlflow", "mlflow.store.tracking.sqlalchemy_store", "torch._dynamo", "great_expectations.expectations", "peft")


def become_worker() -> None:
    """Ask for a fork that takes this process's standard streams; return when it has ended."""
    run = os.getppid()  # pytest, which started all workers of a run
    folder = _folder(run)
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is another user's. Fix: name a folder of your own in TMPDIR")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "server").exists():
            _start_server(folder / "server", run)
    ended = fork_of_loaded(folder / "server", "worker", [0, 1, 2])
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)  # the fork has the pipes now: pytest must see them closed when it ends
    os.dup2(nothing, 1)
    ended()


def fork_of_loaded(server: Path, work: str, streams: list[int]) -> Callable[[], object]:
    """Have the server fork a process that does `work` with these standard streams; what is given waits for its end."""
    asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    asked.connect(str(server))
    socket.send_fds(asked, [work.encode()], streams)

    def wait() -> None:
        with asked:
            asked.recv(1)

    return wait


def _folder(run: int) -> Path:
    return Path(tempfile.gettempdir()) / f"actwright-test-workers-{run}"


def _start_server(address: Path, run: int) -> None:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(address))
    listening.listen()
    command = [sys.executable, "-m", "tests.forked_worker", "serve", str(listening.fileno()), str(run)]
    subprocess.Popen(command, cwd=ROOT, pass_fds=[listening.fileno()], stdin=subprocess.DEVNULL, stdout=2)


def serve(listening: socket.socket, run: int) -> None:
    """Load what the tests load, then fork for each that asks, until pytest has ended."""
    threads = os.environ.get(THREADS)
    os.environ[THREADS] = "1"
    _collect()
    if threads is None:
        del os.environ[THREADS]
    else:
        os.environ[THREADS] = threads
    gc.collect()
    gc.freeze()  # no worker looks through what is loaded, nor copies its pages for that
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    os.environ[WORKERS] = listening.getsockname()
    listening.settimeout(LOOK_AGAIN_S)
    while _is_alive(run):
        with contextlib.suppress(TimeoutError):
            asked, _ = listening.accept()
            work, streams, _, _ = socket.recv_fds(asked, 16, 3)
            if os.fork() == 0:
                listening.close()
                _be_forked(WORK[work.decode()], streams)
            for stream in streams:
                os.close(stream)
            asked.close()
    shutil.rmtree(_folder(run), ignore_errors=True)


def _collect() -> None:
    """Every module of the tests in `sys.modules`, its assertions rewritten as pytest does."""
    import pytest

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", str(ROOT / "tests")])
        for name in LATER:
            importlib.import_module(name)


def _be_forked(work: Callable[[], None], streams: list[int]) -> None:
    """A life with these standard streams; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    sys.modules["__main__"] = types.ModuleType("__main__")
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def _work_for_pytest() -> None:
    """What `python -u -c <line of execnet>` does."""
    sys.modules["torch"].set_num_threads(int(os.environ.get(THREADS, 0)) or len(os.sched_getaffinity(0)))
    exec(eval(sys.stdin.readline()), vars(sys.modules["__main__"]))


def _run_commands() -> None:
    from tests.faults.fork_server import serve

    serve()


WORK: Mapping[str, Callable[[], None]] = {"worker": _work_for_pytest, "commands": _run_commands}


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3]))
    else:
        become_worker()
