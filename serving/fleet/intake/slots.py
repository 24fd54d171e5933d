"""The two places for a release, made of links to the store's files; one answers while the other takes the next release in.

slots/a/signed/   exactly the folder that was signed: release.json, release.sig, bundle/, evidence/, ...
slots/a/bundle/   the whole bundle, with the files that the release takes from its base: what the policy service reads
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_core.adoption.document import digest_of_file
from model_core.bundle import BundleManifest, read_manifest
from model_core.spec.errors import CheckpointError
from model_core.spec.files import atomic_write
from model_core.spec.fleet.release import BUNDLE, DOCUMENT, SIGNATURE, Release, check_may_reach_robots, parsed_release, read_release
from serving.fleet.intake.file_store import FileStore
from serving.fleet.intake.problems import UpdateRefused

_SIGNED = "signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Who must have signed a release: a public key (PEM), or authorities (PEM) that its certificate must lead to."""

    public_key: Path | None = None
    authorities: tuple[Path, ...] = ()


class Slots:
    """Both of them, below `folder`."""

    def __init__(self, folder: Path, store: FileStore, trust: Trust) -> None:
        self._folder, self._store, self._trust = folder, store, trust

    def bundle(self, slot: str) -> Path:
        """What the service of a slot reads."""
        return self._folder / slot / BUNDLE

    def clear(self, slot: str) -> None:
        """Empty a slot."""
        shutil.rmtree(self._folder / slot, ignore_errors=True)

    def assemble(self, slot: str, document: bytes, signature: bytes) -> Release:
        """Put a release together from files of the store, in place of what is there."""
        release = parsed_release(document, DOCUMENT)
        self.clear(slot)
        signed = self._folder / slot / _SIGNED
        atomic_write(signed / DOCUMENT, document)
        atomic_write(signed / SIGNATURE, signature)
        for path, file in release.files.items():
            _link(self._store.path(file.sha256), signed / path)
        for path, file in release.all_files.items():
            if path.startswith(f"{BUNDLE}/"):
                _link(self._store.path(file.sha256), self._folder / slot / path)
        return release

    def verify(self, slot: str, digest: str) -> Release:
        """The release in a slot, after its signature and every byte were found right.

        Raises `UpdateRefused`: SIGNATURE, DIGEST or MAY_NOT_RUN.
        """
        signed = self._folder / slot / _SIGNED
        release = self.check_bytes(slot, digest)
        _verify_signature(signed, signed / SIGNATURE, self._trust)
        try:
            check_may_reach_robots(release)
        except ValueError as error:
            raise UpdateRefused("MAY_NOT_RUN", str(error)) from error
        return release

    def check_bytes(self, slot: str, digest: str) -> Release:
        """The release in a slot, after every byte that its service will read was hashed and found right. Raises `UpdateRefused` DIGEST.

        Asked before each start of a service: a power cut may have taken what was written last, a disk may have changed it.
        """
        release = self.release(slot)
        if release.digest != digest:
            raise UpdateRefused("DIGEST", f"slot {slot} holds release {release.digest[:16]}, expected {digest[:16]}")
        for path, file in release.all_files.items():
            if path.startswith(f"{BUNDLE}/"):
                self._check(self._folder / slot / path, file.sha256)
        wanted = {path for path in release.all_files if path.startswith(f"{BUNDLE}/")}
        there = {path.relative_to(self._folder / slot).as_posix() for path in self.bundle(slot).rglob("*") if not path.is_dir()}
        if there != wanted:
            raise UpdateRefused("DIGEST", f"slot {slot} holds {', '.join(sorted(there ^ wanted)[:3])}, other than release.json lists")
        return release

    def release(self, slot: str) -> Release:
        """The release in a slot; nothing is hashed. Raises `UpdateRefused` DIGEST."""
        try:
            return read_release(self._folder / slot / _SIGNED)
        except CheckpointError as error:
            raise UpdateRefused("DIGEST", str(error)) from error

    def manifest(self, slot: str) -> BundleManifest:
        """What the service of a slot must say that it serves. Raises `UpdateRefused` DIGEST."""
        try:
            return read_manifest(self.bundle(slot))
        except CheckpointError as error:
            raise UpdateRefused("DIGEST", str(error)) from error

    def used(self, slots: Iterable[str]) -> set[str]:
        """Digests of the store's files that these slots are made of."""
        found: set[str] = set()
        for slot in slots:
            with contextlib.suppress(UpdateRefused):
                found |= {file.sha256 for file in self.release(slot).all_files.values()}
        return found

    def _check(self, path: Path, sha256: str) -> None:
        got = digest_of_file(path) if path.is_file() and not path.is_symlink() else "no such file"
        if got != sha256:
            self._store.discard(sha256)  # it is the same file
            raise UpdateRefused("DIGEST", f"{path} is not what was released: expected sha256 {sha256[:12]}, got {got[:12]}")


def _verify_signature(folder: Path, signature: Path, trust: Trust) -> None:
    from model_signing import hashing, verifying

    config: Any = verifying.Config()
    try:
        if trust.public_key is not None:
            config.use_elliptic_key_verifier(public_key=trust.public_key)
        else:
            config.use_certificate_verifier(certificate_chain=list(trust.authorities))
        every_file = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
        config.set_hashing_config(every_file).verify(folder, signature)
    except Exception as error:  # the library reports a wrong signature, a changed file and a torn statement by many classes
        raise UpdateRefused("SIGNATURE", f"the signature of {folder} does not hold: {str(error) or type(error).__name__}") from error


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)
