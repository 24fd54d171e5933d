"""A run's records on disk before they are anywhere else: one JSON line each, and a cursor of what was delivered.

    <root>/<run id>.jsonl        the records, in order, only ever appended to
    <root>/<run id>.files/       files that records refer to, until they are delivered
    <root>/<run id>.cursor.json  {"offset": bytes delivered, "server_run_id": "..."}, replaced atomically

A truncated last line (the process was killed while writing) is removed when the spool is opened again. Knows nothing of
where records go.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.artifacts.locks import try_locked
from model_core.spec.errors import TrackingError, require
from model_core.spec.files import atomic_write


class RecordSpool:
    """The records of one run. One process writes; delivery is guarded by a file lock."""

    def __init__(self, root: Path, run_id: str) -> None:
        require(re.fullmatch(r"[\w.-]{1,120}", run_id) is not None, "a run id is 1..120 letters, digits, '.', '_' or '-'", got=repr(run_id))
        self.run_id = run_id
        self.path = root / f"{run_id}.jsonl"
        self._files = root / f"{run_id}.files"
        self._cursor_path = root / f"{run_id}.cursor.json"
        root.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def all_in(root: Path) -> list[RecordSpool]:
        """Every spool under `root`, by name."""
        return [RecordSpool(root, path.name.removesuffix(".jsonl")) for path in sorted(root.glob("*.jsonl"))]

    def repair(self) -> None:
        """Remove a truncated last line. Only the writing process may do this, before its first append."""
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)

    def append(self, record: dict[str, Any]) -> None:
        """Add one record; it survives this process. Raises `TrackingError` when the disk does not take it."""
        line = json.dumps(record, separators=(",", ":")) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise TrackingError(
                f"cannot keep a record of run {self.run_id} in {self.path}: {error}; free disk space and run again"
            ) from error

    def keep(self, source: Path) -> str:
        """Copy a file into the spool and return the name to put into a record."""
        try:
            self._files.mkdir(exist_ok=True)
            folder = self._files / f"{len(list(self._files.iterdir())):06d}"
            while folder.exists():
                folder = self._files / f"{int(folder.name) + 1:06d}"
            folder.mkdir()
            shutil.copyfile(source, folder / source.name)
        except OSError as error:
            raise TrackingError(f"cannot keep {source} for run {self.run_id} in {self._files}: {error}; free disk space") from error
        return f"{folder.name}/{source.name}"

    def kept(self, name: str) -> Path:
        """Where a kept file is."""
        return self._files / name

    def records(self, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
        """Whole records from byte `start` on, each with the offset of its end."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(start)
            end = start
            for line in file:
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                yield json.loads(line), end

    @property
    def offset(self) -> int:
        """Bytes delivered."""
        return int(self._cursor().get("offset", 0))

    @property
    def server_run_id(self) -> str:
        """The server's name of this run, "" before it was delivered."""
        return str(self._cursor().get("server_run_id", ""))

    @property
    def pending(self) -> bool:
        """Whether something waits to be delivered."""
        return self.path.exists() and self.offset < self.path.stat().st_size

    def delivered(self, offset: int, server_run_id: str) -> None:
        """Move the cursor; files of delivered records may be dropped by the caller."""
        atomic_write(self._cursor_path, json.dumps({"offset": offset, "server_run_id": server_run_id}), durable=False)

    def drop(self, name: str) -> None:
        """Forget a kept file after its delivery."""
        shutil.rmtree(self.kept(name).parent, ignore_errors=True)

    @contextmanager
    def delivering(self) -> Iterator[bool]:
        """Yields True while this process alone delivers, False when another one does."""
        with try_locked(self._cursor_path.with_suffix(".lock")) as alone:
            yield alone

    def _cursor(self) -> dict[str, Any]:
        try:
            return json.loads(self._cursor_path.read_text())
        except FileNotFoundError:
            return {}
