"""The folder of audit files and its limit: when room is short, frames of the oldest files go first, records never.

Records are small and say what was decided and done; frames are large and show it. So what is given up is old images, file by
file, oldest first. When there are none left to give up, no new episode begins until a person moves files away.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mcap.records import Channel, Message, Metadata, Schema
from mcap.stream_reader import StreamReader
from mcap.writer import Writer

from model_core.spec.audit.format import NO_HASH, PROFILE, SUFFIX, THINNED
from model_core.spec.audit.foxglove import IMAGE_SCHEMA
from model_core.spec.audit.reading import prove_audit
from model_core.spec.files import atomic_target
from serving.workcell.audit.index import index_path, rows_from, write_index

_NUMBER = re.compile(r"^(\d{6,})-")


class Spool:
    """One folder that one recorder writes to."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.used = 0
        self._thinned: set[Path] = set()
        self._lock = -1

    @property
    def frames_end(self) -> int:
        """Frames may fill the folder up to here; the rest is for records. With more than this, no episode begins."""
        return self.max_bytes - self.max_bytes // 8

    def open(self) -> str:
        """Take the folder; "" or why it cannot be had. Files that a killed recorder left are indexed as far as they can be read."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._lock < 0:
            self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return "another recorder writes to this folder"
        for path in self.files():
            if not index_path(path).is_file():
                write_index(path, rows_from(prove_audit(path.read_bytes(), path)))
        self.measure()
        return ""

    def close(self) -> None:
        """Release the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def files(self) -> list[Path]:
        """All audit files, oldest first."""
        return sorted((p for p in self.folder.glob(f"*{SUFFIX}") if _NUMBER.match(p.name)), key=lambda p: int(p.name.partition("-")[0]))

    def next_path(self, episode_id: str) -> tuple[Path, dict[str, str]]:
        """The name of the next file, and what its first record says of the one before it."""
        files = self.files()
        number = int(files[-1].name.partition("-")[0]) + 1 if files else 1
        before = (
            {"file": files[-1].name, "tip": prove_audit(files[-1].read_bytes(), files[-1]).tip} if files else {"file": "", "tip": NO_HASH}
        )
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", episode_id)[:80].strip("-.")
        return self.folder / f"{number:06d}-{name or 'episode'}{SUFFIX}", before

    def measure(self) -> int:
        """Bytes of everything in the folder."""
        self.used = sum(_size(path) for path in self.folder.rglob("*"))
        return self.used

    def make_room(self) -> str:
        """Take frames out of the oldest files until a quarter is free; "" or why no episode may begin. Raises OSError."""
        self.measure()
        for path in self.files():
            if self.used <= self.max_bytes - self.max_bytes // 4:
                break
            if path not in self._thinned:
                before = _size(path)
                thin(path)
                self._thinned.add(path)
                self.used -= before - _size(path)
        if self.used <= self.frames_end:
            return ""
        return f"the audit spool is full: {self.used} of {self.max_bytes} bytes in {self.folder}; move files away or allow more"


def thin(path: Path) -> int:
    """Rewrite a sealed file without its frames; its records stay byte for byte. Returns how many frames went; 0: nothing was done."""
    found = prove_audit(path.read_bytes(), path)
    if not found.is_sealed or found.problem or not found.frames:
        return 0  # a damaged file is evidence: it stays as it is
    with atomic_target(path) as part, part.open("wb") as file:
        writer = Writer(file, enable_data_crcs=True)
        writer.start(profile=PROFILE, library="actwright")
        _copy(path, writer)
        writer.add_metadata(THINNED, {"images": str(found.thinned + len(found.frames))})
        writer.finish()
    return len(found.frames)


def _copy(path: Path, writer: Writer) -> None:
    schemas: dict[int, tuple[str, int]] = {}
    channels: dict[int, int] = {}
    for item in _records(path):
        if isinstance(item, Schema) and item.id not in schemas and item.name != IMAGE_SCHEMA:
            schemas[item.id] = (item.name, writer.register_schema(item.name, item.encoding, item.data))
        elif isinstance(item, Channel) and item.id not in channels and item.schema_id in schemas:
            channels[item.id] = writer.register_channel(item.topic, item.message_encoding, schemas[item.schema_id][1], item.metadata)
        elif isinstance(item, Message) and item.channel_id in channels:
            writer.add_message(channels[item.channel_id], item.log_time, item.data, item.publish_time, item.sequence)
        elif isinstance(item, Metadata) and item.name != THINNED:
            writer.add_metadata(item.name, item.metadata)


def _records(path: Path) -> Iterator[object]:
    with path.open("rb") as file:
        yield from StreamReader(file).records


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
