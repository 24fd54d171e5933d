"""Commands of the command line in forked children of one process that has imported everything: a case costs what the command does.

A child may be killed before its n-th change of the file system, may find the disk full from then on, or a file that cannot grow. What
counts as a change is what Python's audit events tell: a file opened for writing, a rename, a folder made, a file removed.

    with ForkServer() as server:
        whole = server.run("data", "export", "set", "out", under=tmp_path)
        killed = server.run("data", "export", "set", "out2", under=tmp_path, fault="kill", at=whole.changes)

In a worker of `make test` the process is a fork of what the workers are forks of (`tests.forked_worker`), and has to import little.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.forked_worker import WORKERS, fork_of_loaded

ROOT = Path(__file__).parents[2]
IMPORTED = (
    *("numpy", "yaml", "PIL.Image", "PIL.PngImagePlugin", "av", "pyarrow.parquet", "pandas", "ruamel.yaml", "mcap_ros2.writer"),
    *("flows.commands.main", "flows.commands.data.commands", "flows.pipeline.data_sets", "flows.platform.wiring"),
    *("components.data.export.export", "components.data.export.mcap.export_logs", "components.data.editing.repair.rebuild"),
    *("components.data.editing.difference", "components.data.inspection.reporting.passport", "components.data.embodiments.draft"),
    *("components.data.sources.mcap.draft", "components.data.packing.packs", "components.adapters.dvc_files"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a child ended. code: negative for a signal. changes: of the file system that it had begun. told: its stderr. said: its stdout."""

    code: int
    changes: int
    told: str
    said: str = ""


@dataclass(slots=True)
class ForkServer:
    """Starts the process when it is entered. Not thread-safe: one case after the other. imported: the modules that children find loaded."""

    imported: tuple[str, ...] = IMPORTED
    _asks: Any = field(default=None, init=False)
    _answers: Any = field(default=None, init=False)
    _ended: Callable[[], object] = field(default=lambda: None, init=False)

    def __enter__(self) -> ForkServer:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("ACTWRIGHT_", "PREFECT_", "MLFLOW_"))}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        (asked, asks), (answers, answered) = os.pipe(), os.pipe()
        self._asks, self._answers = os.fdopen(asks, "w"), os.fdopen(answers)
        streams = [asked, answered, 2]
        if WORKERS in environment:
            self._ended = fork_of_loaded(Path(environment[WORKERS]), "commands", streams)
        else:
            started = [sys.executable, "-m", "tests.faults.fork_server"]
            self._ended = subprocess.Popen(started, stdin=asked, stdout=answered, env=environment, cwd=ROOT).wait
        os.close(asked)
        os.close(answered)
        self._ask({"imported": self.imported, "environment": environment})
        return self

    def __exit__(self, *_: object) -> None:
        self._asks.close()
        self._ended()
        self._answers.close()

    def _ask(self, what: Mapping[str, object]) -> None:
        self._asks.write(json.dumps(what) + "\n")
        self._asks.flush()

    def run(self, *words: str, under: Path, fault: str = "", at: int = 0, after_s: float = 0.0, **environment: str) -> Done:
        """Run one command to its end, or to its fault. under: the folder in which changes count and in which the command has its home.

        fault: "kill" (before change `at`, or `after_s` seconds after its start), "full" (from change `at` on no file can be begun), "limit"
        (no file may grow beyond `at` bytes). words: of the command line; or "call", "module:function" and text arguments of the function.
        """
        homes = {name: str(under / name.lower()) for name in ("HOME", "DATA", "RUNS")}
        settings = {f"ACTWRIGHT_{name}": value for name, value in homes.items()} | {"ACTWRIGHT_STORAGE": f"folder:{under / 'storage'}"}
        case = {"words": words, "under": str(under), "fault": fault, "at": at, "after_s": after_s, "environment": settings | environment}
        self._ask(case)
        return Done(**json.loads(self._answers.readline()))


@dataclass(slots=True)
class _Changes:
    """The audit hook of a child. counted: one byte in this file for each change, which outlives a SIGKILL."""

    under: str
    fault: str
    at: int
    counted: int
    count: int = 0
    is_inside: bool = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_inside or not self._is_change(event, arguments):
            return
        self.is_inside = True
        try:
            self.count += 1
            if self.fault == "kill" and self.count == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "full" and self.count >= self.at and event in ("open", "os.mkdir"):
                raise OSError(errno.ENOSPC, "No space left on device", str(arguments[0]))
            os.write(self.counted, b".")
        finally:
            self.is_inside = False

    def _is_change(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            return writes and self._is_below(path)
        return event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link") and self._is_below(arguments[0])

    def _is_below(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(self.under)


def _child(case: dict[str, Any], said: int, told: int, counted: int) -> None:
    """The command, in the forked process; never returns."""
    os.setsid()
    os.dup2(told, 2)
    os.dup2(said, 1)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.environ.update(case["environment"])
    work = Path(case["under"])
    os.chdir(work)
    if case["fault"] == "limit":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (case["at"], case["at"]))
    if case["after_s"]:
        threading.Timer(case["after_s"], os.kill, (os.getpid(), signal.SIGKILL)).start()
    code = 70
    with contextlib.suppress(BaseException):
        sys.addaudithook(_Changes(str(work), case["fault"], case["at"], counted))
        code = _call(case["words"])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(code)


def _call(words: list[str]) -> int:
    from flows.commands.main import main
    from flows.terminal.output import ended

    if words[0] == "call":
        module, _, function = words[1].partition(":")
        return ended(lambda: getattr(importlib.import_module(module), function)(*words[2:]))
    sys.argv = ["actwright", *words]
    try:
        main()
    except SystemExit as ending:
        return int(ending.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 71
    return 0


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def serve() -> None:
    """Answer a line of JSON for each one that comes; the first tells the environment, and what to import."""
    begun = json.loads(sys.stdin.readline())
    os.environ.clear()
    os.environ.update(begun["environment"])
    with contextlib.redirect_stdout(sys.stderr):  # what a library says when it is loaded is no answer
        for name in begun["imported"]:
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # no child looks through what is loaded, nor copies its pages for that
    for line in sys.stdin:
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as counted:
            process = os.fork()
            if process == 0:
                _child(json.loads(line), said.fileno(), told.fileno(), counted.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            texts = {name: _text(file) for name, file in (("told", told), ("said", said))}
            answer = {"code": code, "changes": os.fstat(counted.fileno()).st_size, **texts}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
