"""A program of another environment, run many times by fork from one process that has loaded its modules: loading is most of a short run."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Runs in the program's environment. Each run is a forked process; the first tells which modules it loaded, the next ones find them loaded.
SERVER = """
import importlib, json, os, runpy, signal, sys, tempfile
program, limit_s = sys.argv[1], int(sys.argv[2])
told, is_warm = os.path.join(tempfile.mkdtemp(), "modules"), False
for line in sys.stdin:
    task = json.loads(line)
    child = os.fork()
    if child == 0:
        signal.alarm(limit_s)
        os.chdir(task["folder"])
        os.dup2(os.open(task["printed"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.argv, code = [program, *task["words"]], 0
        try:
            runpy.run_path(program, run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            code = 1
        sys.stdout.flush()
        if not os.path.exists(told):
            with open(told, "w") as file:
                file.write("\\n".join(sys.modules))
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not is_warm and os.path.exists(told):
        is_warm = True
        for name in open(told).read().split():
            try:
                importlib.import_module(name)
            except Exception:
                pass
    print(json.dumps(code), flush=True)
"""


class WarmProgram:
    """One program, run again and again with other words. `warm_program` opens and ends it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, words: list[str], folder: Path) -> tuple[int, str]:
        """Its exit code, below 0 where a signal or the time ended it, and what it printed. folder: where it runs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        printed = folder / "printed"
        task: dict[str, Any] = {"words": words, "folder": str(folder), "printed": str(printed)}
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()), printed.read_text(errors="replace")


@contextlib.contextmanager
def warm_program(program: Path, settings: dict[str, str], limit_s: int = 600) -> Iterator[WarmProgram]:
    """A console script of a virtual environment. settings: of its environment variables."""
    command = [str(program.with_name("python")), "-c", SERVER, str(program), str(limit_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings) as process:
        yield WarmProgram(process)
        assert process.stdin is not None
        process.stdin.close()
