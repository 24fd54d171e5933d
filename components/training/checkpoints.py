"""Which training checkpoints on disk are complete.

    checkpoints/step_00000200/...            what the processes wrote (`state/state_files.py`)
    checkpoints/step_00000200/manifest.json  written last, atomically: size and SHA-256 of every file, step, data, config

A folder without a manifest, or whose files differ from it, is incomplete: it is skipped and removed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from components.artifacts.files import sha256_file
from model_core.spec.errors import CheckpointError
from model_core.spec.files import atomic_write

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointManifest:
    """What one training checkpoint is. files: path inside the folder -> SHA-256. step: optimiser steps done.

    world_size and zero_stage say who wrote it; any number of processes at any stage may go on from it. passed: steps whose samples were
    passed over for spikes of the loss before it, so that step n has the samples n + passed.
    """

    step: int
    data_digest: str
    config_digest: str
    world_size: int
    zero_stage: int
    passed: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    format: int = _FORMAT


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint after `step` steps; sorts by step."""
    return f"step_{step:08d}"


def finalize(folder: Path, about: CheckpointManifest) -> CheckpointManifest:
    """Flush the files of `folder` to disk and write the manifest, which makes the checkpoint complete.

    about: the manifest; a file that its `files` do not name is hashed here.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST}
    for path in files.values():
        _sync(path)
    manifest = replace(about, files={name: about.files.get(name) or sha256_file(path) for name, path in files.items()})
    atomic_write(folder / MANIFEST, json.dumps(asdict(manifest), indent=1, sort_keys=True))
    _sync(folder)
    return manifest


def last_complete(root: Path, *, remove_incomplete: bool = True, at_most: int | None = None) -> tuple[Path, CheckpointManifest] | None:
    """The newest complete checkpoint under `root`, every file verified; None when there is none. at_most: of a later step it may not be.

    Incomplete folders (also newer ones) are logged and, with `remove_incomplete`, deleted: no training may resume from them.
    """
    found: tuple[Path, CheckpointManifest] | None = None
    folders = [folder for folder in root.glob("step_*") if at_most is None or folder.name <= checkpoint_name(at_most)]
    for folder in sorted(folders, reverse=True):
        problem, manifest = _inspect(folder, verify=found is None)
        if problem:
            logger.warning("checkpoint.incomplete folder=%s reason=%s", folder.name, problem)
            if remove_incomplete:
                shutil.rmtree(folder, ignore_errors=True)
        elif found is None and manifest is not None:
            found = (folder, manifest)
    return found


def check_belongs(manifest: CheckpointManifest, *, data_digest: str, config_digest: str, where: str) -> None:
    """Refuse to resume from a checkpoint of other data or of another config; raises `CheckpointError`."""
    if manifest.data_digest != data_digest:
        raise CheckpointError(
            f"{where}: this training began on data set {manifest.data_digest[:16]}, now it is given {data_digest[:16]}; "
            "a run does not change its data. Fix: use the old data set, or train into another folder"
        )
    if manifest.config_digest != config_digest:
        raise CheckpointError(
            f"{where}: this training began with config {manifest.config_digest[:16]}, now it is given {config_digest[:16]}; "
            "resuming would change the loss curve. Fix: restore the recipe and what the folder in train.init_from held, go on on a machine "
            "whose precision is the first one's (train.precision auto takes what each is fast in), or train into another folder"
        )


def retain(root: Path, keep: int) -> list[Path]:
    """Delete all but the newest `keep` complete checkpoints; returns what was deleted."""
    complete = sorted(folder for folder in root.glob("step_*") if (folder / MANIFEST).is_file())
    return _delete(complete[: max(0, len(complete) - keep)])


def forget(root: Path, *, after: int) -> list[Path]:
    """Delete the checkpoints after that of step `after`, to which a training went back; returns what was deleted."""
    return _delete(sorted(folder for folder in root.glob("step_*") if folder.name > checkpoint_name(after)))


def _delete(folders: list[Path]) -> list[Path]:
    for folder in folders:
        # The manifest goes first: a half-deleted checkpoint must not look complete.
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    return folders


def _inspect(folder: Path, *, verify: bool) -> tuple[str, CheckpointManifest | None]:
    """(what is wrong or "", the manifest). Without `verify` only the presence of the manifest is checked."""
    try:
        document = json.loads((folder / MANIFEST).read_text())
        manifest = CheckpointManifest(**document)
    except FileNotFoundError:
        return "it was never finished", None
    except (OSError, ValueError, TypeError) as error:
        return f"its manifest cannot be read: {error}", None
    if manifest.format != _FORMAT:
        return f"its format is {manifest.format}, not {_FORMAT}", None
    for name, digest in manifest.files.items() if verify else ():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing", None
        if sha256_file(path) != digest:
            return f"{name} is not what was written", None
    return "", manifest


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
