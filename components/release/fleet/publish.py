"""Offer a release to the robots of sites: its files under their digests, its document, and the site's list of releases.

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
from components.adapters.signing.update_repository import Keys, one_writer, publish_targets, read_target
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
            index = offered_releases(repository, keys, site)
            if all(row.digest != release.digest for row in index):
                added[site] = _files(folder, release, site, index)
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


def offered_releases(repository: Path, keys: Keys, site: str) -> tuple[OfferedRelease, ...]:
    """The rows of a site's list, oldest first; empty where nothing was published. Raises `StorageError` for a list that is not ours."""
    content = read_target(repository, keys, site, INDEX)
    return () if content is None else parsed_offers(content, site)


def _files(folder: Path, release: Release, site: str, index: Sequence[OfferedRelease]) -> dict[str, Path | bytes]:
    if release.base is not None and all(row.digest != release.base.digest for row in index):
        raise SpecError(
            f"site {site} is not offered the base {release.base.digest[:16]} of release {release.digest[:16]}. Fix: publish the base first"
        )
    files: dict[str, Path | bytes] = {f"files/{file.sha256}": folder / path for path, file in release.files.items()}
    files |= {f"releases/{release.digest}.{end}": folder / name for end, name in (("json", DOCUMENT), ("sig", SIGNATURE))}
    return files | {INDEX: written_offers(site, [*index, offered(release, len(index) + 1)]).encode()}
