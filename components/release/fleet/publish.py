"""Offer a release to the robots of sites, or withdraw it: its files under their digests, its document, and the site's list of releases.

Below sites/NAME in the repository:
releases.json               the list, oldest first (`model_core.spec.fleet.offers`)
releases/<digest>.json      release.json
releases/<digest>.sig       its signature by `model-signing`
files/<sha256>              one file of one or several releases; a robot fetches those that it does not have
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.adapters.signing.folder_signature import Trust
from components.adapters.signing.repository_files import Keys
from components.adapters.signing.update_repository import one_writer, publish_targets, read_target, withdraw_targets
from components.release.fleet.verify import verify_release
from model_core.spec.errors import SpecError
from model_core.spec.fleet.offers import INDEX, OfferedRelease, offered, parsed_offers, written_offers
from model_core.spec.fleet.release import DOCUMENT, SIGNATURE, Release, check_may_reach_robots


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What publishing did. sites: where the release is offered now. added: the sites among them where it was not before. carried_bytes: of
    the files of the release; fetch_bytes: carried files, document and signature, which is what a robot without any of them fetches."""

    release: Release
    sites: tuple[str, ...]
    added: tuple[str, ...]
    carried_bytes: int
    fetch_bytes: int


def publish(folder: Path, repository: Path, sites: Sequence[str], keys: Keys, trust: Trust) -> Offer:
    """Verify a release and offer it to `sites`, all at once; where it is offered already nothing changes.

    Raises `CheckpointError` for a release that does not verify, `SpecError` for one that may not reach robots, whose base a site is not
    offered, or for an unknown site, `StorageError` for a damaged repository.
    """
    release = verify_release(folder, trust)
    check_may_reach_robots(release)
    if not sites:
        raise SpecError("no site is named. Fix: --site NAME, once for each")
    with one_writer(repository):
        added: dict[str, dict[str, Path | bytes]] = {}
        for site in dict.fromkeys(sites):
            if not is_offered(repository, keys, site, release.digest):
                _check_base(release, repository, keys, site)
                added[site] = _files(folder, release, site, offered_releases(repository, keys, site))
        if added:
            publish_targets(repository, keys, added)
    own = sum((folder / name).stat().st_size for name in (DOCUMENT, SIGNATURE))
    return Offer(
        release=release,
        sites=tuple(dict.fromkeys(sites)),
        added=tuple(added),
        carried_bytes=release.carried_bytes,
        fetch_bytes=release.carried_bytes + own,
    )


def withdraw(digest: str, repository: Path, sites: Sequence[str], keys: Keys) -> tuple[str, ...]:
    """Offer a release to `sites` no more; returns those where it was offered. Its number in their lists stays, and so do its files.

    Raises `SpecError` for an unknown site, and where a site is offered another release that is built on this one; `StorageError` for a
    damaged repository.
    """
    with one_writer(repository):
        found = [site for site in dict.fromkeys(sites) if is_offered(repository, keys, site, digest)]
        for site in found:
            built_on = [row.digest for row in offered_releases(repository, keys, site) if row.base == digest]
            if left := [one for one in built_on if is_offered(repository, keys, site, one)]:
                raise SpecError(f"release {left[0][:16]} of site {site} is built on {digest[:16]}. Fix: withdraw {left[0]} first")
        if found:
            withdraw_targets(repository, keys, {site: _signed_names(digest) for site in found})
    return tuple(found)


def is_offered(repository: Path, keys: Keys, site: str, digest: str) -> bool:
    """Whether the site's signed metadata list the release: its row alone may be of one that was withdrawn."""
    return read_target(repository, keys, site, _signed_names(digest)[0]) is not None


def _check_base(release: Release, repository: Path, keys: Keys, site: str) -> None:
    base = release.base
    if base is not None and not is_offered(repository, keys, site, base.digest):
        raise SpecError(
            f"site {site} is not offered the base {base.digest[:16]} of release {release.digest[:16]}. Fix: publish the base first"
        )


def _signed_names(digest: str) -> tuple[str, str]:
    """Its document and its signature, below a site."""
    return f"releases/{digest}.json", f"releases/{digest}.sig"


def offered_releases(repository: Path, keys: Keys, site: str) -> tuple[OfferedRelease, ...]:
    """The rows of a site's list, oldest first, those of withdrawn releases too; empty where nothing was published.

    Raises `StorageError` for a list that is not ours.
    """
    content = read_target(repository, keys, site, INDEX)
    return () if content is None else parsed_offers(content, site)


def _files(folder: Path, release: Release, site: str, index: Sequence[OfferedRelease]) -> dict[str, Path | bytes]:
    """What the site is offered with the release. One that was withdrawn has its row and its number already."""
    files: dict[str, Path | bytes] = {f"files/{file.sha256}": folder / path for path, file in release.files.items()}
    files |= dict(zip(_signed_names(release.digest), (folder / DOCUMENT, folder / SIGNATURE), strict=True))
    if any(row.digest == release.digest for row in index):
        return files
    return files | {INDEX: written_offers(site, [*index, offered(release, len(index) + 1)]).encode()}
