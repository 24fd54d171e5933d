"""Check a release: every byte of it, that its parts say the same, and who signed it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from components.adapters.signing.folder_signature import Trust, verify_folder
from components.config.judging.verdict import GateVerdict
from model_core.adoption.document import ADOPTION, digest_of_file
from model_core.bundle import MANIFEST, read_manifest
from model_core.spec.contract import digest_of
from model_core.spec.documents import from_document
from model_core.spec.errors import CheckpointError, require
from model_core.spec.fleet.release import BUNDLE, DOCUMENT, SIGNATURE, VERDICT, Judgement, Release, ReleaseFile, read_release

_AGAIN = "Fix: fetch or make the release again; do not run this one"


def verify_release(folder: Path, trust: Trust, base: Path | None = None) -> Release:
    """The release, after its signature and every file were found right. base: where the base's files are, for a release that needs one.

    Raises `CheckpointError` naming the first thing that is wrong.
    """
    release = read_release(folder)
    named = re.fullmatch(r"[0-9a-f]{16}", folder.resolve().name)
    _claim(named is None or release.digest.startswith(named[0]), f"{folder} holds release {release.digest[:16]}, which its name is not")
    verify_folder(folder, folder / SIGNATURE, trust)
    check_content(folder, release)
    if release.base is not None and base is not None:
        check_base(release, base)
    return release


def check_content(folder: Path, release: Release) -> None:
    """Exactly the files that `release` lists are below `folder`, and bundle and verdict say what release.json says."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    extra = sorted(there - set(release.files) - {DOCUMENT, SIGNATURE})
    _claim(not extra, f"{folder} holds {', '.join(extra[:3])}, which release.json does not list")
    for path, file in sorted(release.files.items()):
        _check_file(folder / path, file)
    if f"{BUNDLE}/{MANIFEST}" in release.files:
        manifest = read_manifest(folder / BUNDLE)
        listed = {path.removeprefix(f"{BUNDLE}/"): file.sha256 for path, file in release.all_files.items() if path.startswith(f"{BUNDLE}/")}
        listed.pop(MANIFEST)
        _claim(dict(manifest.files) == listed, f"{folder}: {MANIFEST} lists other files than release.json")
        same = (manifest.model_version, manifest.contract_id, manifest.reasoning)
        told = (release.model_version, release.contract_id, release.reasoning)
        _claim(same == told, f"{folder}: {MANIFEST} is of {same}, release.json of {told}")
    _check_weights(folder, release)
    _check_judgement(folder, release)


def judgement_of(verdict: GateVerdict) -> Judgement:
    """What release.json says of a verdict."""
    return Judgement(
        outcome=verdict.decided, promote=verdict.promote, evaluated=verdict.candidate, study=verdict.study, ledger=verdict.head
    )


def check_base(release: Release, base: Path) -> None:
    """Raises `CheckpointError` unless the release in `base` is the one that is referred to, with all bytes that are taken from it."""
    if release.base is None:
        return
    found = read_release(base)
    _claim(found.digest == release.base.digest, f"{base} is release {found.digest[:16]}, expected the base {release.base.digest[:16]}")
    check_content(base, found)
    carried = {(file.sha256, file.size) for file in found.files.values()}
    for path, file in release.base.files.items():
        _claim((file.sha256, file.size) in carried, f"{base} does not carry {path}, sha256 {file.sha256[:12]}")


def _check_weights(folder: Path, release: Release) -> None:
    """The digest of the checkpoint, which the verdict names, follows from the files; an adopted one counts by the names in its adoption."""
    within = f"{BUNDLE}/checkpoint/"
    files = {path.removeprefix(within): file.sha256 for path, file in release.all_files.items() if path.startswith(within)}
    if ADOPTION not in files:
        _claim(digest_of(files) == release.checkpoint, f"{folder}: the files of the checkpoint are not those of {release.checkpoint[:16]}")


def _check_judgement(folder: Path, release: Release) -> None:
    if release.judgement is None:
        _claim(VERDICT not in release.files, f"{folder}: {VERDICT} is there, and release.json tells of no verdict")
        return
    _claim(VERDICT in release.files, f"{folder}: release.json tells of a verdict, and {VERDICT} is not there")
    verdict = from_document(GateVerdict, json.loads((folder / VERDICT).read_text(encoding="utf-8")), where=str(folder / VERDICT))
    _claim(judgement_of(verdict) == release.judgement, f"{folder}: {VERDICT} says {verdict.decided!r}, other than release.json")


def _check_file(path: Path, file: ReleaseFile) -> None:
    _claim(path.is_file() and not path.is_symlink(), f"{path} is missing, or no plain file")
    size = path.stat().st_size
    _claim(size == file.size, f"{path} has {size} bytes, expected {file.size}")
    got = digest_of_file(path)
    _claim(got == file.sha256, f"{path} is not what was released: expected sha256 {file.sha256[:12]}, got {got[:12]}")


def _claim(holds: bool, message: str) -> None:
    require(holds, f"{message}. {_AGAIN}", error=CheckpointError)
