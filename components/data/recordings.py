"""Recordings of workcells, in folders and in object storage: cells upload them, and the next ingest fetches them."""

from __future__ import annotations

import contextlib
import fcntl
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from components.adapters.storage.folder_transfer import COMPLETE, Transfer, download_folder, upload_folder
from components.adapters.storage.object_store import ObjectStore
from components.artifacts.files import dataset_digest
from components.config.records import Progress
from components.data.lerobot import layout
from components.data.lerobot.reader import DatasetReader
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError, WireError
from model_core.spec.protocol.episode_file import BEING_RECORDED, decode_episode, episode_digest

RECORDINGS = "recordings"

SUFFIXES = (".episode", ".msgpack")
_HEADS: dict[tuple[object, ...], RecordingHead] = {}  # state of a file -> what it holds, of this process


def upload_recordings(store: ObjectStore, spool: Path, progress: Progress) -> Transfer:
    """Put a cell's finished recordings under recordings/<digest of the folder>; the same recordings are stored once."""
    return upload_folder(store, spool, f"{RECORDINGS}/{dataset_digest(spool)[:24]}", progress)


def pending_recordings(store: ObjectStore) -> tuple[str, ...]:
    """Prefixes of completed uploads of recordings, in order: what the next data set may be made from."""
    ending = f"/{COMPLETE}"
    return tuple(o.key.removesuffix(ending) for o in store.list(f"{RECORDINGS}/") if o.key.endswith(ending))


def fetch_recordings(store: ObjectStore, folder: Path, progress: Progress) -> tuple[Path, ...]:
    """Fetch every completed upload into `folder`, one subfolder each; those that are there are not fetched again."""
    fetched: list[Path] = []
    for prefix in pending_recordings(store):
        target = folder / prefix.removeprefix(f"{RECORDINGS}/")
        download_folder(store, prefix, target, progress)
        fetched.append(target)
    return tuple(fetched)


def is_dataset(source: Path) -> bool:
    """Whether the folder is a LeRobot data set."""
    return (source / layout.INFO).exists()


def recordings_in(source: Path) -> list[Path]:
    """The recordings of cells below a folder, sorted."""
    return sorted(p for p in source.rglob("*") if p.suffix in SUFFIXES and not p.name.startswith("."))


def count_of(source: Path) -> int:
    """How many episodes a source has; raises `DatasetError` for none."""
    if not source.is_dir():
        raise DatasetError(f"{source} is not a folder. Fix: name a LeRobot data set or a folder of recordings")
    # the rows, not their number: a set whose parts contradict each other is refused before anything is done
    count = len(DatasetReader(source).rows) if is_dataset(source) else len(recordings_in(source))
    if count == 0:
        raise DatasetError(f"{source.name} holds no recordings ({', '.join('*' + s for s in SUFFIXES)}) and is not a LeRobot data set")
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingHead:
    """What a recording holds, without its arrays. fault: why it cannot be read; then episode is None. digest: of the whole episode."""

    path: Path
    episode: Episode | None = None
    length: int = 0
    digest: str = ""
    fault: str = ""


def read_head(path: Path) -> RecordingHead:
    """Read what a recording holds and check all of its bytes. A file that did not change is read once by a process."""
    try:
        stat = path.stat()
        state = (path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)
        if state not in _HEADS:
            data = path.read_bytes()
            episode = decode_episode(data, images=False, depth=False)
            length = len(episode)
            nothing = np.zeros((0, 0), np.float32)
            episode = replace(episode, proprio_TP=nothing, actions_TA=nothing, executed_TA=nothing, timestamps_T=np.zeros(0))
            episode = replace(episode, geometry={}, tcp_T3=None, intervention_T=None)
            _HEADS[state] = RecordingHead(path=path, episode=episode, length=length, digest=episode_digest(data))
        return _HEADS[state]
    except (OSError, WireError) as error:
        return RecordingHead(path=path, fault=str(error))


def still_recorded(folder: Path) -> str:
    """The name of a file that shows that a cell records into `folder` or below it now; "" where there is none.

    A cell keeps a file locked while it runs, and an episode that is being written has a name of its own until it is whole.
    """
    for path in sorted(folder.rglob(f".*{BEING_RECORDED}")):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return path.name
    return next((path.name for suffix in SUFFIXES for path in sorted(folder.rglob(f".*{suffix}.*.tmp"))), "")
