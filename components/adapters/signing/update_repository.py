"""The repository that robots read: metadata of The Update Framework (TUF 1.0.31), and the files it names.

This module and `repository_files` are the only ones that import `tuf` to write.

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
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.adapters.signing.key_files import ROLES, site_role, sites_in
from components.adapters.signing.repository_files import AGAIN, METADATA, Keys, State, commit, public_key, signed_content, write_signed
from components.artifacts.locks import locked
from components.artifacts.new_folder import new_folder
from model_core.spec.errors import SpecError, StorageError
from model_core.spec.files import atomic_target, atomic_write

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata

TARGETS = "targets"


def make_repository(repository: Path, keys: Keys) -> list[str]:
    """Write a repository without a release for the sites whose public keys are in the folder; returns their names.

    Needs every private key, so it runs where the offline keys are. Raises `SpecError` for a missing key, `DatasetError` where `repository`
    is there already.
    """
    from tuf.api.metadata import Metadata, Targets

    sites = sites_in(keys.folder)
    if not sites:
        raise SpecError(f"{keys.folder} holds no key of a site. Fix: make keys with `actwright fleet keys new FOLDER --site NAME`")
    with new_folder(repository) as folder:
        write_signed(folder, keys, "root", Metadata(_root(keys, 1)))
        write_signed(folder, keys, "targets", Metadata(_delegations(keys, 1)))
        commit(folder, keys, {site_role(site): Metadata(Targets()) for site in sites}, {"targets.json": 1}, (0, 0))
    return sites


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """What a renewal did. added: sites that the repository did not have; replaced: roles with another key; root: the version of it."""

    added: tuple[str, ...]
    replaced: tuple[str, ...]
    root: int


def renew(repository: Path, keys: Keys) -> Renewed:
    """Sign root and targets again for the public keys in the folder: another year, further sites, other keys in place of the former ones.

    Needs the private keys of all roles, of added sites and of sites with another key, and the former root key where it is replaced; so it
    runs where the offline keys are. Robots follow from the root that they have. Until the last file is written they see the former
    repository, if the former keys of snapshot, timestamp and targets are there too to sign what is new; if they are lost, robots refuse
    what they read between the last two files. What each site is offered does not change.
    Raises `SpecError` for a missing key, `StorageError` for a repository whose signatures do not hold.
    """
    from tuf.api.metadata import Metadata, Targets

    with one_writer(repository):
        state = State(repository, keys.former or keys.folder)
        sites = sites_in(keys.folder)
        if gone := sorted(set(state.sites) - set(sites)):
            raise SpecError(
                f"{keys.folder} holds no key of site {gone[0]}. Fix: bring site-{gone[0]}.pub.pem there; no site can be removed"
            )
        added = [site for site in sites if site not in state.sites]
        roles = [*ROLES, *(site_role(site) for site in state.sites)]
        replaced = [role for role in roles if [public_key(keys.folder, role).keyid] != state.keyids(role)]
        changed = {site_role(site): Metadata(Targets()) for site in added}
        changed |= {site_role(site): state.next_site(site) for site in state.sites if site_role(site) in replaced}
        root, targets = _root(keys, state.root.signed.version + 1), _delegations(keys, state.targets.signed.version + 1)
        write_signed(repository, keys, "targets", Metadata(targets))
        signed = signed_content(Metadata(root), "root", keys)  # before anything is visible: the former root key may not be there
        commit(repository, keys, changed, {**state.versions, "targets.json": targets.version}, state.numbers)
        atomic_write(repository / METADATA / f"{root.version}.root.json", signed)
    return Renewed(added=tuple(added), replaced=tuple(replaced), root=root.version)


def _root(keys: Keys, version: int) -> Any:
    from tuf.api.metadata import Root

    root = Root(version=version, expires=keys.expiry("root"), consistent_snapshot=True)
    for role in ROLES:
        root.add_key(public_key(keys.folder, role), role)
    return root


def _delegations(keys: Keys, version: int) -> Any:
    """Which site answers for which paths, by the public keys in the folder."""
    from tuf.api.metadata import DelegatedRole, Delegations, Targets

    known = {site: public_key(keys.folder, site_role(site)) for site in sites_in(keys.folder)}
    roles = {
        site_role(site): DelegatedRole(
            site_role(site), [key.keyid], 1, True, paths=[f"sites/{site}/{name}" for name in ("*", "files/*", "releases/*")]
        )
        for site, key in known.items()
    }
    delegations = Delegations({key.keyid: key for key in known.values()}, roles)
    return Targets(version=version, expires=keys.expiry("targets"), delegations=delegations)


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
    state = State(repository, keys.folder)
    changed: dict[str, Metadata[Any]] = {}
    for site, files in offered.items():
        described = changed[site_role(site)] = state.next_site(site)
        for name, source in files.items():
            told = _described(f"sites/{site}/{name}", source)
            _place(repository, told, source)
            described.signed.targets[told.path] = told
    _change(repository, keys, state, changed)


def withdraw_targets(repository: Path, keys: Keys, withdrawn: Mapping[str, Collection[str]]) -> None:
    """List files for sites no more; the files stay. withdrawn: site -> paths below the site. As `publish_targets`."""
    state = State(repository, keys.folder)
    changed: dict[str, Metadata[Any]] = {}
    for site, names in withdrawn.items():
        described = changed[site_role(site)] = state.next_site(site)
        for name in names:
            described.signed.targets.pop(f"sites/{site}/{name}", None)
    _change(repository, keys, state, changed)


def refresh(repository: Path, keys: Keys) -> Mapping[str, datetime.datetime]:
    """Sign snapshot and timestamp again, with new lifetimes, and the list of each site whose key is in the folder and that has less than
    half of its lifetime left. What is offered does not change. Returns when each role ends, soonest first.
    """
    with one_writer(repository):
        state = State(repository, keys.folder)
        sites = {site_role(site): state.site(site) for site in state.sites}
        changed: dict[str, Metadata[Any]] = {}
        for role, described in sites.items():
            is_late = described.signed.expires - keys.begin() < keys.lifetime(role) / 2
            if is_late and (keys.folder / f"{role}.pem").is_file():
                described.signed.version += 1
                changed[role] = described
        _change(repository, keys, state, changed)
    ends = {"root": state.root.signed.expires, "targets": state.targets.signed.expires}
    ends |= {role: described.signed.expires for role, described in sites.items()}
    ends |= {role: keys.expiry(role) for role in ("snapshot", "timestamp")}
    return dict(sorted(ends.items(), key=lambda one: one[1]))


def _change(repository: Path, keys: Keys, state: State, changed: Mapping[str, Metadata[Any]]) -> None:
    state.check_signers(keys, [*changed, "snapshot", "timestamp"])
    commit(repository, keys, changed, state.versions, state.numbers)


def read_target(repository: Path, keys: Keys, site: str, name: str) -> bytes | None:
    """A file of a site, checked against the site's signed metadata; None where none is offered. Raises `StorageError` for other bytes."""
    from tuf.api.exceptions import LengthOrHashMismatchError

    told = State(repository, keys.folder).site(site).signed.targets.get(f"sites/{site}/{name}")
    if told is None:
        return None
    path = _target_file(repository, told)
    try:
        content = path.read_bytes()
        told.verify_length_and_hashes(content)
    except (OSError, LengthOrHashMismatchError) as error:
        raise StorageError(f"{path} is not what site {site} is offered: {error}. {AGAIN}") from error
    return content


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
