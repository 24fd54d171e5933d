"""Where the files of a source are on this machine, and what they hold: a folder, or a data set of the hub at one commit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from components.artifacts.files import sha256_file
from components.config.source_config import SourceConfig
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write

_READ: dict[str, str] = {}  # state of a set's files -> digest of their contents, of this process


def located(cfg: SourceConfig) -> Path:
    """The folder (or file) of a source; a data set of the hub is fetched at its revision unless this machine has it already.

    Raises `DatasetError` where there is nothing, and where a data set of the hub is not here and cannot be fetched.
    """
    if cfg.hub:
        return _from_hub(cfg)
    path = Path(cfg.path).expanduser()
    if not cfg.path or not path.exists():
        raise DatasetError(f"source {cfg.name!r}: there is nothing at {cfg.path!r}. Fix: set path to its folder, or hub and revision")
    return path.resolve()


def _from_hub(cfg: SourceConfig) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(cfg.hub, repo_type="dataset", revision=cfg.revision))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DatasetError(
            f"source {cfg.name!r}: data set {cfg.hub} at revision {cfg.revision} is not on this machine and cannot be fetched ({said}). "
            "Fix: connect to the network once, or copy the data set here and set path instead of hub and revision"
        ) from error


def contents_digest(place: Path, cache: Path | None = None) -> str:
    """SHA-256 over the relative path and content of every file, as `dataset_digest` gives it. A file that is linked often is read once.

    cache: folder in which digests are kept by name, size, place and time of change of all files, so that an unchanged set is not
    read again.
    """
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    if not files:
        raise DatasetError(f"{place} holds no file. Fix: name the folder of a data set")
    try:
        stats = [path.stat() for path in files]
    except FileNotFoundError as error:
        raise _gone(place, error) from error
    names = [path.name if path == place else path.relative_to(place).as_posix() for path in files]
    known = [[name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev] for name, s in zip(names, stats, strict=True)]
    state = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    note = None if cache is None else cache / f"{state}.txt"
    if state not in _READ and note is not None and note.is_file():
        _READ[state] = note.read_text(encoding="ascii").strip()
    if state in _READ:
        return _READ[state]
    digests: dict[tuple[int, int], str] = {}
    total = hashlib.sha256()
    for path, name, stat in zip(files, names, stats, strict=True):
        same = (stat.st_dev, stat.st_ino)
        if same not in digests:
            try:
                digests[same] = sha256_file(path)
            except FileNotFoundError as error:
                raise _gone(place, error) from error
        total.update(f"{name}\0{digests[same]}\n".encode())
    _READ[state] = total.hexdigest()
    if note is not None:
        atomic_write(note, _READ[state] + "\n")
    return _READ[state]


def _gone(place: Path, error: FileNotFoundError) -> DatasetError:
    name = Path(str(error.filename)).name
    return DatasetError(f"{place} changed while it was read: {name} is gone. Fix: run again when nothing is written there any more")
