"""The metadata of an update repository as files: read with every signature checked from our own root key on, and written so that a change
becomes visible at once."""

# tuf and securesystemslib document these modules as public, and do not list their names
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.adapters.signing.key_files import load_private, load_public, site_role
from model_core.spec.errors import SpecError, StorageError
from model_core.spec.files import atomic_write

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata

METADATA = "metadata"
LIFETIME_DAYS: Mapping[str, int] = {"root": 365, "targets": 365, "site": 90, "snapshot": 7, "timestamp": 1}
AGAIN = "Fix: restore the repository from a copy; do not sign what is there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A folder of key files, and the time (UTC, with zone) from which lifetimes count; None: now. former: the folder of the keys that these
    replace, whose holders sign too as far as they are there; None where none is replaced."""

    folder: Path
    now: datetime.datetime | None = None
    former: Path | None = None

    def begin(self) -> datetime.datetime:
        """From when lifetimes count."""
        return (self.now or datetime.datetime.now(datetime.UTC)).replace(microsecond=0)

    def lifetime(self, role: str) -> datetime.timedelta:
        """How long what is signed for `role` lasts."""
        return datetime.timedelta(days=LIFETIME_DAYS["site" if role.startswith("site-") else role])

    def expiry(self, role: str) -> datetime.datetime:
        """When what is signed now for `role` ends."""
        return self.begin() + self.lifetime(role)

    def signers(self, role: str) -> list[Path]:
        """The folders whose keys sign for `role`. The former root key has to: robots follow from the root that they know."""
        if self.former is None or (role != "root" and not (self.former / f"{role}.pem").is_file()):
            return [self.folder]
        return [self.folder, self.former]


class State:
    """The metadata that the newest timestamp names, every signature checked from our own root key on."""

    def __init__(self, repository: Path, keys: Path) -> None:
        self._folder = repository / METADATA
        if not (self._folder / "timestamp.json").is_file():
            raise StorageError(f"{repository} is no repository of ours. Fix: make one with `actwright fleet repository new`")
        self.root = self._newest_root()
        if public_key(keys, "root").keyid not in self.root.signed.roles["root"].keyids:
            raise StorageError(f"{repository} belongs to another root key than {keys}. Fix: name the keys of this repository")
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

    @property
    def sites(self) -> list[str]:
        """Those that the repository has, sorted."""
        return sorted(role.removeprefix("site-") for role in self.targets.signed.delegations.roles)

    def site(self, site: str) -> Metadata[Any]:
        """What the site is offered."""
        role = site_role(site)
        if site not in self.sites:
            raise SpecError(f"the repository has no site {site}; there are: {', '.join(self.sites)}. Fix: name one of them")
        return self._checked(f"{self.snapshot.signed.meta[f'{role}.json'].version}.{role}", role, self.targets)

    def next_site(self, site: str) -> Metadata[Any]:
        """What the site is offered, under its next version: to be changed and signed."""
        described = self.site(site)
        described.signed.version += 1
        return described

    def keyids(self, role: str) -> list[str]:
        """Whose signature `role` needs."""
        delegated = self.targets.signed.delegations.roles
        return list((delegated[role] if role in delegated else self.root.signed.roles[role]).keyids)

    def check_signers(self, keys: Keys, roles: Iterable[str]) -> None:
        """Raises `SpecError` for a private key that is not the one of its role here: robots would refuse what it signs."""
        from securesystemslib.signer import CryptoSigner

        for role in roles:
            if CryptoSigner(load_private(keys.folder, role)).public_key.keyid not in self.keyids(role):
                raise SpecError(
                    f"{keys.folder / role}.pem is not the key of {role} in {self._folder.parent}. "
                    "Fix: name the folder of keys that the repository was renewed with last"
                )

    def _newest_root(self) -> Metadata[Any]:
        """The last of the roots, each signed by the keys of the one before it too."""
        root = self._read("1.root")
        self._check(root, "root", root)
        while (self._folder / f"{root.signed.version + 1}.root.json").is_file():
            before, root = root, self._read(f"{root.signed.version + 1}.root")
            self._check(root, "root", before)
            self._check(root, "root", root)
        return root

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
            raise StorageError(f"{self._folder / name}.json cannot be read: {error}. {AGAIN}") from error

    def _check(self, found: Metadata[Any], role: str, delegator: Metadata[Any]) -> None:
        from tuf.api.exceptions import RepositoryError

        try:
            delegator.signed.verify_delegate(role, found.signed_bytes, found.signatures)
        except (RepositoryError, ValueError) as error:
            raise StorageError(f"the metadata of {role} in {self._folder} carries no signature that holds: {error}. {AGAIN}") from error


def public_key(folder: Path, role: str) -> Any:
    """The key of a role as the metadata name it."""
    from securesystemslib.signer import SSlibKey

    return SSlibKey.from_crypto(load_public(folder, role))


def commit(
    repository: Path, keys: Keys, changed: Mapping[str, Metadata[Any]], versions: Mapping[str, int], before: tuple[int, int]
) -> None:
    """Write changed sites, then a snapshot of all, then the timestamp, which makes them visible.

    before: versions of snapshot and timestamp so far.
    """
    from tuf.api.metadata import Metadata, MetaFile, Snapshot, Timestamp

    meta = {name: MetaFile(version) for name, version in versions.items()}
    for role, described in changed.items():
        described.signed.expires = keys.expiry(role)
        write_signed(repository, keys, role, described)
        meta[f"{role}.json"] = MetaFile(described.signed.version)
    snapshot = Snapshot(version=before[0] + 1, expires=keys.expiry("snapshot"), meta=meta)
    content = write_signed(repository, keys, "snapshot", Metadata(snapshot))
    described = MetaFile.from_data(snapshot.version, content, ["sha256"])
    timestamp = Timestamp(version=before[1] + 1, expires=keys.expiry("timestamp"), snapshot_meta=described)
    atomic_write(repository / METADATA / "timestamp.json", signed_content(Metadata(timestamp), "timestamp", keys))


def write_signed(repository: Path, keys: Keys, role: str, described: Metadata[Any]) -> bytes:
    """Sign a piece of metadata and write it under its version; returns its bytes."""
    content = signed_content(described, role, keys)
    atomic_write(repository / METADATA / f"{described.signed.version}.{role}.json", content)
    return content


def signed_content(described: Metadata[Any], role: str, keys: Keys) -> bytes:
    """Sign a piece of metadata with every key that has to; returns its bytes."""
    from securesystemslib.signer import CryptoSigner
    from tuf.api.serialization.json import JSONSerializer

    described.signatures.clear()
    for folder in keys.signers(role):
        described.sign(CryptoSigner(load_private(folder, role)), append=True)
    return described.to_bytes(JSONSerializer(compact=True))
