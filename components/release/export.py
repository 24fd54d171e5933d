"""The champion's bundle in a folder that a service watches over: <folder>/bundle, replaced in one step, never half there.

<folder>/bundles/<digest>    what was packed: checkpoint, probes, bundle.json; checked against its own list of files, at every export
<folder>/bundle              a relative link to one of them, exchanged by one rename
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from components.release.bundle import find_packed
from model_core.bundle import PACK_AGAIN, BundleManifest, checked_manifest
from model_core.spec.errors import CheckpointError, JobError

BUNDLE, BUNDLES = "bundle", "bundles"
# a pod that still reads the one before must find its files
_KEPT = 3


def export_bundle(bento: Path, folder: Path) -> dict[str, Any]:
    """Copy the bundle of a built Bento below `folder` and let folder/bundle name it; the same bundle again changes nothing, unless what
    is there was damaged meanwhile: then it is replaced.

    Returns {bundle, digest, model_version, contract_id, changed}. Safe for several writers at once. Raises `CheckpointError` for a
    Bento whose bundle is missing or damaged, `JobError` where folder/bundle is something that we did not put there.
    """
    source = _bundle_of(bento)
    manifest = checked_manifest(source)
    link, digest = folder / BUNDLE, manifest.digest[:16]
    if link.exists() and not link.is_symlink():
        raise JobError(f"{link} is no link of ours; move it away, or export to another folder")
    target = folder / BUNDLES / digest
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
    }


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
