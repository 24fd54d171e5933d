"""The repository that robots read: metadata of The Update Framework (TUF 1.0.31) and the files it names. The only importer of `tuf`.

metadata/N.root.json, N.targets.json        signed offline: which keys are whose, which site answers for which paths
metadata/N.site-NAME.json                   what one site is offered, signed with that site's key
metadata/N.snapshot.json, timestamp.json    short-lived: which versions belong together, and that they are the newest
targets/sites/NAME/...                      the files, each name with its digest before it (consistent snapshots)

A change becomes visible with the replacement of timestamp.json; a process that ends before leaves files that no metadata names.
Nothing that is read here is signed again before its own signatures were found right.
"""

# tuf and securesystemslib document these modules as public, and do not list their names
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import contextlib
import datetime
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.adapters.signing.key_files import OFFLINE, ROLES, load_private, load_public, site_role, sites_in
from components.artifacts.locks import locked
from components.artifacts.new_folder import new_folder
from model_core.spec.errors import SpecError, StorageError
from model_core.spec.files import atomic_target, atomic_write

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata

METADATA, TARGETS = "metadata", "targets"
LIFETIME_DAYS: Mapping[str, int] = {"root": 365, "targets": 365, "site": 90, "snapshot": 7, "timestamp": 1}
_AGAIN = "Fix: restore the repository from a copy; do not sign what is there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A folder of key files, and the time (UTC, with zone) from which lifetimes count; None: now."""

    folder: Path
    now: datetime.datetime | None = None

    def expiry(self, role: str) -> datetime.datetime:
        """When what is signed now for `role` ends."""
        kind = "site" if role.startswith("site-") else role
        return (self.now or datetime.datetime.now(datetime.UTC)).replace(microsecond=0) + datetime.timedelta(days=LIFETIME_DAYS[kind])


def make_repository(repository: Path, keys: Keys) -> list[str]:
    """Write a repository without a release for the sites whose public keys are in the folder; returns their names.

    Needs every private key, so it runs where the offline keys are. Raises `SpecError` for a missing key, `DatasetError` where `repository`
    is there already.
    """
    from securesystemslib.signer import SSlibKey
    from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, Targets

    sites = sites_in(keys.folder)
    if not sites:
        raise SpecError(f"{keys.folder} holds no key of a site. Fix: make keys with `actwright fleet keys new FOLDER --site NAME`")
    root = Root(expires=keys.expiry("root"), consistent_snapshot=True)
    for role in ROLES:
        root.add_key(SSlibKey.from_crypto(load_public(keys.folder, role)), role)
    known = {site: SSlibKey.from_crypto(load_public(keys.folder, site_role(site))) for site in sites}
    roles = {
        site_role(site): DelegatedRole(
            site_role(site), [key.keyid], 1, True, paths=[f"sites/{site}/{name}" for name in ("*", "files/*", "releases/*")]
        )
        for site, key in known.items()
    }
    delegations = Delegations({key.keyid: key for key in known.values()}, roles)
    top = Targets(expires=keys.expiry("targets"), delegations=delegations)
    parts: dict[str, Any] = {"root": root, "targets": top} | {site_role(site): Targets() for site in sites}
    with new_folder(repository) as folder:
        for role in OFFLINE:
            _write(folder, role, _signed(Metadata(parts[role]), role, keys))
        changed = {role: Metadata(part) for role, part in parts.items() if role not in OFFLINE}
        _commit(folder, keys, changed, {"targets.json": top.version}, (0, 0))
    return sites


@contextlib.contextmanager
def one_writer(repository: Path) -> Iterator[None]:
    """Hold the repository alone among all processes that change it, from before it is read until its change is written."""
    if not (repository / METADATA).is_dir():
        raise StorageError(f"{repository} is no repository of ours. Fix: make one with `actwright fleet repository new`")
    with locked(repository / ".lock"):
        yield


def publish_targets(repository: Path, keys: Keys, offered: Mapping[str, Mapping[str, Path | bytes]]) -> None:
    """Add files to sites, all of them visible at once. offered: site -> path below the site -> file or content. Call it as `one_writer`.

    Needs the private keys of these sites, of snapshot and of timestamp. Raises `StorageError` for a repository whose signatures do not
    hold, `SpecError` for a site that it does not have.
    """
    state = _State(repository, keys)
    changed: dict[str, Metadata[Any]] = {}
    for site, files in offered.items():
        described = changed[site_role(site)] = state.site(site)
        described.signed.version += 1
        for name, source in files.items():
            told = _described(f"sites/{site}/{name}", source)
            _place(repository, told, source)
            described.signed.targets[told.path] = told
    _commit(repository, keys, changed, state.versions, state.numbers)


def refresh(repository: Path, keys: Keys) -> datetime.datetime:
    """Sign snapshot and timestamp again, with new lifetimes; returns when the timestamp ends. What is offered does not change."""
    with one_writer(repository):
        state = _State(repository, keys)
        _commit(repository, keys, {}, state.versions, state.numbers)
    return keys.expiry("timestamp")


def read_target(repository: Path, keys: Keys, site: str, name: str) -> bytes | None:
    """A file of a site, checked against the site's signed metadata; None where none is offered. Raises `StorageError` for other bytes."""
    from tuf.api.exceptions import LengthOrHashMismatchError

    told = _State(repository, keys).site(site).signed.targets.get(f"sites/{site}/{name}")
    if told is None:
        return None
    path = _target_file(repository, told)
    try:
        content = path.read_bytes()
        told.verify_length_and_hashes(content)
    except (OSError, LengthOrHashMismatchError) as error:
        raise StorageError(f"{path} is not what site {site} is offered: {error}. {_AGAIN}") from error
    return content


class _State:
    """The metadata that the newest timestamp names, every signature checked from our own root key on."""

    def __init__(self, repository: Path, keys: Keys) -> None:
        from securesystemslib.signer import SSlibKey

        self._folder = repository / METADATA
        if not (self._folder / "timestamp.json").is_file():
            raise StorageError(f"{repository} is no repository of ours. Fix: make one with `actwright fleet repository new`")
        self.root = self._read("1.root")
        ours = SSlibKey.from_crypto(load_public(keys.folder, "root")).keyid
        if ours not in self.root.signed.roles["root"].keyids:
            raise StorageError(f"{repository} belongs to another root key than {keys.folder}. Fix: name the keys of this repository")
        self._check(self.root, "root", self.root)
        self.timestamp = self._checked("timestamp", "timestamp", self.root)
        self.snapshot = self._checked(f"{self.timestamp.signed.snapshot_meta.version}.snapshot", "snapshot", self.root)
        self.targets = self._checked(f"{self.snapshot.signed.meta['targets.json'].version}.targets", "targets", self.root)

    @property
    def versions(self) -> dict[str, int]:
        """File name -> version, of what the snapshot names."""
        return {name: file.version for name, file in self.snapshot.signed.meta.items()}

    @property
    def numbers(self) -> tuple[int, int]:
        """The versions of snapshot and timestamp."""
        return self.snapshot.signed.version, self.timestamp.signed.version

    def site(self, site: str) -> Metadata[Any]:
        """What the site is offered."""
        role = site_role(site)
        if role not in self.targets.signed.delegations.roles:
            known = ", ".join(sorted(name.removeprefix("site-") for name in self.targets.signed.delegations.roles))
            raise SpecError(f"the repository has no site {site}; there are: {known}. Fix: name one of them")
        return self._checked(f"{self.snapshot.signed.meta[f'{role}.json'].version}.{role}", role, self.targets)

    def _checked(self, name: str, role: str, delegator: Metadata[Any]) -> Metadata[Any]:
        found = self._read(name)
        self._check(found, role, delegator)
        return found

    def _read(self, name: str) -> Metadata[Any]:
        from tuf.api.exceptions import RepositoryError
        from tuf.api.exceptions import StorageError as TufStorageError
        from tuf.api.metadata import Metadata

        try:
            return Metadata.from_file(str(self._folder / f"{name}.json"))
        except (RepositoryError, TufStorageError) as error:
            raise StorageError(f"{self._folder / name}.json cannot be read: {error}. {_AGAIN}") from error

    def _check(self, found: Metadata[Any], role: str, delegator: Metadata[Any]) -> None:
        from tuf.api.exceptions import RepositoryError

        try:
            delegator.signed.verify_delegate(role, found.signed_bytes, found.signatures)
        except (RepositoryError, ValueError) as error:
            raise StorageError(f"the metadata of {role} in {self._folder} carries no signature that holds: {error}. {_AGAIN}") from error


def _commit(
    repository: Path, keys: Keys, changed: Mapping[str, Metadata[Any]], versions: Mapping[str, int], before: tuple[int, int]
) -> None:
    """Write changed sites, then a snapshot of all, then the timestamp, which makes them visible.

    before: versions of snapshot and timestamp so far.
    """
    from tuf.api.metadata import Metadata, MetaFile, Snapshot, Timestamp

    meta = {name: MetaFile(version) for name, version in versions.items()}
    for role, described in changed.items():
        described.signed.expires = keys.expiry(role)
        _write(repository, role, _signed(described, role, keys))
        meta[f"{role}.json"] = MetaFile(described.signed.version)
    snapshot = Snapshot(version=before[0] + 1, expires=keys.expiry("snapshot"), meta=meta)
    content = _signed(Metadata(snapshot), "snapshot", keys)
    _write(repository, "snapshot", content)
    described = MetaFile.from_data(snapshot.version, content[1], ["sha256"])
    timestamp = Timestamp(version=before[1] + 1, expires=keys.expiry("timestamp"), snapshot_meta=described)
    atomic_write(repository / METADATA / "timestamp.json", _signed(Metadata(timestamp), "timestamp", keys)[1])


def _signed(described: Metadata[Any], role: str, keys: Keys) -> tuple[int, bytes]:
    """The version of a piece of metadata and its signed bytes."""
    from securesystemslib.signer import CryptoSigner
    from tuf.api.serialization.json import JSONSerializer

    described.sign(CryptoSigner(load_private(keys.folder, role)))
    return described.signed.version, described.to_bytes(JSONSerializer(compact=True))


def _write(repository: Path, role: str, signed: tuple[int, bytes]) -> None:
    atomic_write(repository / METADATA / f"{signed[0]}.{role}.json", signed[1])


def _described(path: str, source: Path | bytes) -> Any:
    from tuf.api.metadata import TargetFile

    if isinstance(source, bytes):
        return TargetFile.from_data(path, source, ["sha256"])
    return TargetFile.from_file(path, str(source), ["sha256"])


def _target_file(repository: Path, told: Any) -> Path:
    path = repository / TARGETS / told.path
    return path.with_name(f"{told.hashes['sha256']}.{path.name}")


def _place(repository: Path, told: Any, source: Path | bytes) -> None:
    place = _target_file(repository, told)
    if isinstance(source, bytes):
        atomic_write(place, source)
    else:
        with atomic_target(place) as beside:
            shutil.copyfile(source, beside)
