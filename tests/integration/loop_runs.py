"""Running the real command line in a home of its own, for the tests of the loop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from components.artifacts.empty_databases import copy_database

ROOT = Path(__file__).parents[2]
# the miniature loop with less of everything that takes time
SMALL = (
    *("collect.episodes_per_task=3", "train.steps=3", "train.warmup_steps=1", "evaluate.seeds_per_task=1"),
    *("evaluate.horizon_sim_steps=32", "gate.min_trials=1", "workcells.horizon_sim_steps=32"),
)
RUN = ("run", "miniature", *(word for change in SMALL for word in ("--set", change)))
COMMAND = (sys.executable, "-c", "from flows.commands.main import main; main()")


@dataclass(frozen=True, slots=True)
class Home:
    """A home, runs and data folder below `root`; storage is a plain folder unless told otherwise."""

    root: Path
    storage: str = ""

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ACTWRIGHT_", "PREFECT_", "MLFLOW_"))}
        return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **self.settings}

    @property
    def settings(self) -> dict[str, str]:
        """The environment of a command, as far as it is of this home."""
        return {
            "ACTWRIGHT_HOME": str(self.root / "home"),
            "ACTWRIGHT_RUNS": str(self.root / "runs"),
            "ACTWRIGHT_DATA": str(self.root / "work" / "data"),
            "ACTWRIGHT_STORAGE": self.storage or f"folder:{self.root / 'storage'}",
            "ACTWRIGHT_PREFECT_PORT": "0",
            "ACTWRIGHT_MLFLOW_PORT": "0",
            "ACTWRIGHT_POLICY_PORT": "0",
        }

    def actwright(self, *words: str, timeout_s: float = 240, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, in a process group of its own."""
        process = self.start(*words, **extra)
        try:
            out, told = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            out, told = process.communicate()
            raise AssertionError(f"{words} did not end within {timeout_s} s:\n{told[-3000:]}") from None
        return subprocess.CompletedProcess(words, process.returncode, out, told)

    def prepare(self) -> None:
        """Make the folder of its data, and MLflow's tables: that MLflow makes them itself is seen where a home is not of this class."""
        (self.root / "work").mkdir(parents=True, exist_ok=True)
        copy_database("mlflow", self.root / "home" / "mlflow.db")

    def start(self, *words: str, **extra: str) -> subprocess.Popen[str]:
        """Start a command."""
        (self.root / "work").mkdir(parents=True, exist_ok=True)
        if words[0] in ("run", "ingest"):
            self.prepare()
        return subprocess.Popen(
            [*COMMAND, *words],
            cwd=self.root / "work",
            env={**self.environment, **extra},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def digests(self) -> dict[str, str]:
        """Stage -> digest of its only finished step."""
        found: dict[str, str] = {}
        for path in sorted((self.root / "home" / "store").glob("*/*/step.json")):
            document = json.loads(path.read_text())
            assert document["stage"] not in found, f"two finished steps of {document['stage']}"
            found[document["stage"]] = document["digest"]
        return found

    def summary(self) -> dict:
        """runs/latest/summary.json."""
        return json.loads((self.root / "runs" / "latest" / "summary.json").read_text())

    def processes(self) -> list[psutil.Process]:
        """Every living process that works for this home."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("ACTWRIGHT_HOME") == str(self.root / "home"):
                    found.append(process)
            except psutil.Error:
                continue
        return found


@contextlib.contextmanager
def serving(root: Path, environment: Mapping[str, str], *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`actwright serve WORDS` in `root`: the process, and what it told when it was ready. Its stderr is serve.err; Ctrl-C ends it well."""
    with (root / "serve.err").open("w") as said:
        process = subprocess.Popen([*COMMAND, "serve", *words], cwd=root, env=environment, stdout=subprocess.PIPE, stderr=said, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (root / "serve.err").read_text()
        yield process, json.loads(line)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def kill_tree(pid: int) -> None:
    """SIGKILL a process and everything below it."""
    try:
        top = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    for process in [*top.children(recursive=True), top]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def eventually(claim: Callable[[], object], timeout_s: float, every_s: float = 0.25) -> object:
    """What `claim` gives once it is true; raises AssertionError after `timeout_s`."""
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        found = claim()
        if found:
            return found
        time.sleep(every_s)
    raise AssertionError(f"not within {timeout_s} s")
