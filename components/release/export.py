"""The champion's bundle in a folder that a service watches over: <folder>/bundle, replaced in one step, never half there.

<folder>/bundles/<digest>    what was packed: checkpoint, probes, bundle.json; checked against its own list of files, at every export
<folder>/bundle              a relative link to one of them, exchanged by one rename
<folder>/champion.json       which champion the bundle is: model and fencing number; an older champion never replaces a newer one
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.artifacts.locks import locked
from components.config.judging.champion_entry import ChampionEntry
from components.release.bundle import find_packed
from model_core.bundle import PACK_AGAIN, BundleManifest, checked_manifest
from model_core.spec.errors import CheckpointError, JobError
from model_core.spec.files import atomic_write

BUNDLE, BUNDLES, FENCE = "bundle", "bundles", "champion.json"
# a pod that still reads the one before must find its files
_KEPT = 3


def export_bundle(bento: Path, folder: Path, champion: ChampionEntry | None = None) -> dict[str, Any]:
    """Copy the bundle of a built Bento below `folder` and let folder/bundle name it; the same bundle again changes nothing, unless what
    is there was damaged meanwhile: then it is replaced.

    champion: the entry that made it champion; where the folder holds a greater number of that model, nothing is written.
    Returns {bundle, digest, model_version, contract_id, changed, number}. Safe for several writers at once. Raises `CheckpointError` for a
    Bento whose bundle is missing or damaged, `JobError` where folder/bundle is something that we did not put there, or of a newer champion.
    """
    source = _bundle_of(bento)
    manifest = checked_manifest(source)
    link, digest = folder / BUNDLE, manifest.digest[:16]
    if link.exists() and not link.is_symlink():
        raise JobError(f"{link} is no link of ours; move it away, or export to another folder")
    target = folder / BUNDLES / digest
    with _fenced(folder, champion):
        changed = not (link.is_symlink() and os.readlink(link) == f"{BUNDLES}/{digest}" and _is_whole(target, manifest))
        if changed:
            _copy_in(source, target, manifest)
            _point(link, f"{BUNDLES}/{digest}")
            _forget_old(folder / BUNDLES, keep=digest)
    return {
        "bundle": str(link),
        "digest": digest,
        "model_version": manifest.model_version,
        "contract_id": manifest.contract_id,
        "changed": changed,
        "number": champion.number if champion else 0,
    }


@contextlib.contextmanager
def _fenced(folder: Path, champion: ChampionEntry | None) -> Iterator[None]:
    """One champion's export at a time, and none of an older one: one that asked who is champion, and was late, finds a greater number."""
    if champion is None:
        yield
        return
    with locked(folder / f".{FENCE}.lock"):
        there = json.loads((folder / FENCE).read_text(encoding="utf-8")) if (folder / FENCE).exists() else {}
        if there.get("model") == champion.model and int(there.get("number", 0)) > champion.number:
            raise JobError(
                f"{folder} holds champion number {there['number']} of {champion.model}, expected {champion.number} or less: version "
                f"{champion.version} was champion earlier. Fix: run the same command again, it asks who is champion now"
            )
        # the number first: a process that ends after it leaves the older bundle, and the next export of this number goes on
        atomic_write(folder / FENCE, json.dumps({"model": champion.model, "number": champion.number, "version": champion.version}) + "\n")
        yield


def _bundle_of(bento: Path) -> Path:
    bundle = find_packed(bento).bundle
    if bundle is None:
        raise CheckpointError(f"{bento} holds a checkpoint and no bundle; {PACK_AGAIN}")
    return bundle


def _is_whole(target: Path, manifest: BundleManifest) -> bool:
    """Whether `target` holds this bundle, byte for byte: its name says only what was once put there."""
    try:
        return checked_manifest(target).digest == manifest.digest
    except CheckpointError:
        return False


def _copy_in(source: Path, target: Path, manifest: BundleManifest) -> None:
    """Beside its place first, then moved there; a second writer of the same bundle finds it done. A damaged one makes room."""
    target.parent.mkdir(parents=True, exist_ok=True)
    waiting = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
    try:
        shutil.copytree(source, waiting / BUNDLE)
        waiting.chmod(0o755)
        if target.is_dir() and not _is_whole(target, manifest):
            os.replace(target, waiting / "damaged")
        if not target.is_dir():
            os.replace(waiting / BUNDLE, target)
    except FileExistsError:
        pass
    except OSError:
        if not target.is_dir():  # else another writer was faster with the same bundle
            raise
    finally:
        shutil.rmtree(waiting, ignore_errors=True)


def _point(link: Path, goal: str) -> None:
    waiting = Path(tempfile.mkdtemp(prefix=".link-", dir=link.parent))
    try:
        os.symlink(goal, waiting / BUNDLE)
        os.replace(waiting / BUNDLE, link)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)


def _forget_old(folder: Path, keep: str) -> None:
    others = sorted((p for p in folder.iterdir() if p.name != keep and not p.name.startswith(".")), key=lambda p: p.stat().st_mtime)
    for old in others[: -(_KEPT - 1)]:
        shutil.rmtree(old, ignore_errors=True)
