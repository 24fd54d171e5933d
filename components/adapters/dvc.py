"""DVC: which data. The stages of `dvc.yaml` made by a flow are recorded, pushed, fetched and compared here.

DVC runs as a program in the folder that holds `dvc.yaml`; its cache and its lock file are its own. What is secret (keys) or of
this machine (addresses) goes into `.dvc/config.local`, which git never sees.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.artifacts.files import write_private
from components.config.paths import REPOSITORY
from components.config.stages import DATA_STAGES
from model_core.spec.errors import DatasetError, StorageError
from model_core.spec.files import atomic_write, takes_nothing_more, why_full

logger = logging.getLogger(__name__)
REMOTE = "actwright"
LOCK_FILE = "dvc.lock"
LOCK_TRIES = 8
INIT_TRIES = 4
_LOCK_SIGNS = ("Unable to acquire lock", "rwlock", "is busy")
_UNREACHABLE_SIGNS = (
    "Could not connect to the endpoint",
    "Connection refused",
    "ConnectionError",
    "EndpointConnectionError",
    "Name or service not known",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Where versions are pushed: "s3://bucket/prefix" with endpoint and keys, or a folder."""

    url: str
    endpoint_url: str = ""
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DvcVersion:
    """The version of the data as DVC has it: stage -> MD5 of its output folder, and the digest that names them together."""

    outputs: Mapping[str, str]
    version: str


class DvcStore:
    """The DVC repository at `root`. Every call may take a second: DVC is a program.

    Raises `DatasetError` with DVC's own last lines when it refuses, `StorageError` when the remote does not answer.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self, remote: Remote | None = None) -> None:
        """Make `root` a DVC repository if it is none, give it the stages, and set the remote for this machine."""
        if not self._is_repository():
            self._initialise()
        if not (self.root / "dvc.yaml").exists():
            shutil.copyfile(REPOSITORY / "dvc.yaml", self.root / "dvc.yaml")
        if remote is not None:
            self._set_remote(remote)

    def _initialise(self) -> None:
        """`dvc init`, again where one was stopped, or is at work still for a command that was killed: they take each other's files away."""
        for attempt in range(1, INIT_TRIES + 1):
            again = ("--force",) if (self.root / ".dvc").is_dir() else ()
            try:
                self._run("init", *again, *self._scm_option())
                self._turn_analytics_off()
            except DatasetError:
                if attempt == INIT_TRIES:
                    raise
                time.sleep(attempt)
            else:
                return

    def _turn_analytics_off(self) -> None:
        """What `dvc config core.analytics false` writes after `dvc init`, without a second start of DVC."""
        config = self.root / ".dvc" / "config"
        lines = config.read_text(encoding="utf-8").splitlines() or ["[core]"]
        atomic_write(config, "\n".join([*lines, "    analytics = false"]) + "\n")

    def _is_repository(self) -> bool:
        """Whether `root` is a whole DVC repository; one whose making was stopped has an empty config and nothing else."""
        folder = self.root / ".dvc"
        config = folder / "config"
        is_whole = config.is_file() and config.stat().st_size > 0
        return is_whole or any((folder / name).exists() for name in ("cache", "config.local"))

    def record(self, stages: Sequence[str] = DATA_STAGES) -> DvcVersion:
        """Record what is in data/<stage> as the result of those stages, as if `dvc repro` had made it."""
        self._run("commit", "--force", *stages)
        return self.version(stages)

    def push(self, stages: Sequence[str] = DATA_STAGES) -> int:
        """Send the recorded outputs to the remote; returns how many files were sent. Calling it again sends only what is missing."""
        return _counted(self._run("push", "--remote", REMOTE, *stages), "pushed")

    def pull(self, stages: Sequence[str] = DATA_STAGES) -> int:
        """Fetch the outputs named in dvc.lock into data/, their content checked; returns how many were fetched."""
        try:
            return _counted(self._run("pull", "--remote", REMOTE, "--force", *stages), "fetched")
        except DatasetError as error:
            if "Checkout failed" not in str(error):
                raise
            raise DatasetError(
                f"{error}. An object is missing on the remote, or its bytes are not those of its name. Fix: on a machine that has this "
                "version, delete the damaged object and push again"
            ) from error

    @property
    def cache(self) -> Path:
        """Where the objects of this machine are: DVC's default place below `root`."""
        return self.root / ".dvc" / "cache" / "files" / "md5"

    def repro(self, stages: Sequence[str] = ()) -> str:
        """Run what is out of date; returns DVC's report."""
        return self._run("repro", *stages, timeout_s=3600)

    def status(self) -> Mapping[str, Any]:
        """Stage -> what changed since it was recorded; empty when nothing did."""
        return json.loads(self._run("status", "--json") or "{}")

    def version(self, stages: Sequence[str] = DATA_STAGES) -> DvcVersion:
        """The hashes in dvc.lock. Raises `DatasetError` when a stage was never recorded."""
        import hashlib

        known = self._recorded()
        absent = [s for s in stages if s not in known]
        if absent:
            raise DatasetError(f"DVC has no record of {', '.join(absent)} in {LOCK_FILE}. Fix: run the data stages, or `dvc repro`")
        outputs = {stage: str(known[stage]["outs"][0]["md5"]) for stage in stages}
        text = "\n".join(f"{stage} {outputs[stage]}" for stage in sorted(outputs))
        return DvcVersion(outputs=outputs, version=hashlib.sha256(text.encode()).hexdigest())

    def track(self, folder: Path) -> str:
        """Let DVC keep a folder below `root` as it is now; returns its MD5, which names this version. Nothing in it is changed."""
        place = folder.resolve().relative_to(self.root.resolve()).as_posix()
        self._run("add", place)
        return self.tracked()[place]

    def tracked(self) -> dict[str, str]:
        """Folder below `root` -> MD5 of every folder and file that DVC keeps: results of stages, and what `track` was called for."""
        import yaml

        found: dict[str, str] = {}
        for path in sorted((self.root / "data").glob("**/*.dvc")):
            for out in yaml.safe_load(path.read_text(encoding="utf-8")).get("outs", ()):
                found[(path.parent / out["path"]).relative_to(self.root).as_posix()] = str(out.get("md5", ""))
        for stage in self._recorded().values():
            found |= {str(out["path"]): str(out.get("md5", "")) for out in stage.get("outs", ())}
        return found

    def _recorded(self) -> Mapping[str, Any]:
        """Stage -> what dvc.lock holds of it. DVC writes the file in place: for a moment another command's is empty, or cut in a line."""
        import yaml

        lock, text = self.root / LOCK_FILE, ""
        if not lock.exists():
            return {}
        for _ in range(100):
            text = lock.read_text(encoding="utf-8")
            if text.endswith("\n"):
                break
            time.sleep(0.02)
        try:
            return dict(yaml.safe_load(text).get("stages", {}))
        except (yaml.YAMLError, AttributeError) as error:
            raise DatasetError(
                f"{lock}: expected a map, as DVC writes it, got {text[:40]!r}. Fix: take it from git, or run `dvc repro`"
            ) from error

    def _set_remote(self, remote: Remote) -> None:
        settings = {"url": remote.url, "verify": "true"}  # without it a damaged object is fetched and called up to date
        if remote.url.startswith("s3://"):
            settings |= {"endpointurl": remote.endpoint_url, "region": remote.region}
            settings |= {"access_key_id": remote.access_key, "secret_access_key": remote.secret_key}
        lines = ["[core]", f"    remote = {REMOTE}", f"['remote \"{REMOTE}\"']", *(f"    {k} = {v}" for k, v in settings.items() if v)]
        # Written by hand: on a command line the keys would be visible to every user of this machine.
        write_private(self.root / ".dvc" / "config.local", "\n".join(lines) + "\n")

    def _scm_option(self) -> list[str]:
        found = subprocess.run(["git", "rev-parse", "--show-toplevel"], cwd=self.root, capture_output=True, text=True, check=False)
        if found.returncode != 0:
            return ["--no-scm"]
        return [] if Path(found.stdout.strip()).resolve() == self.root.resolve() else ["--subdir"]

    def _run(self, *words: str, timeout_s: float = 600) -> str:
        """Run one DVC command; waits while another one holds this repository's lock.

        Never with `--quiet`: DVC 3.67.1 then ends without a word of its error, so neither a held lock nor a full disk can be told.
        """
        program = Path(sys.executable).parent / "dvc"
        environment = {
            **os.environ,
            "DVC_NO_ANALYTICS": "true",
            "DO_NOT_TRACK": "1",
            "PATH": f"{program.parent}:{os.environ.get('PATH', '')}",
        }
        attempt = 0
        while True:
            attempt += 1
            try:
                done = subprocess.run(
                    [str(program), *words], cwd=self.root, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
                )
            except FileNotFoundError as error:
                raise DatasetError("DVC is not installed. Fix: run 'make setup'") from error
            except subprocess.TimeoutExpired as error:
                raise DatasetError(f"dvc {words[0]} did not end within {timeout_s:.0f} s in {self.root.name}") from error
            if done.returncode == 0:
                return done.stdout.strip()
            if not any(sign in done.stderr for sign in _LOCK_SIGNS) or attempt == LOCK_TRIES:
                break
            logger.info("dvc.waiting command=%s: another dvc holds the lock", words[0])
            time.sleep(0.5 * attempt)
        if takes_nothing_more(self.root):  # its own last lines do not always say it
            raise StorageError(f"dvc {words[0]}: {why_full(self.root)} and run again, finished work is kept")
        output = " | ".join(line for line in (done.stderr or done.stdout).strip().splitlines()[-6:] if line.strip())
        if any(sign in output for sign in _UNREACHABLE_SIGNS):
            raise StorageError(
                f"dvc {words[0]}: the remote store does not answer ({output}). Fix: start it again, then run again; "
                "what was sent is not sent again"
            )
        raise DatasetError(f"dvc {words[0]} failed in {self.root.name}: {output}")


def _counted(report: str, verb: str) -> int:
    """The number in DVC's "3 files pushed"; 0 for "Everything is up to date."."""
    words = report.replace(",", "").split()
    return next((int(words[i - 2]) for i, word in enumerate(words) if word == verb and i >= 2 and words[i - 2].isdigit()), 0)
