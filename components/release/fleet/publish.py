"""Offer a release to the robots of sites: its files under their digests, its document, and the site's list of releases.

Below sites/NAME in the repository:
releases.json               {form, site, releases: [{number, digest, model_version, minimum_agent, base, override}, ...]}, oldest first
releases/<digest>.json      release.json
releases/<digest>.sig       its signature by `model-signing`
files/<sha256>              one file of one or several releases; a robot fetches those that it does not have
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.adapters.signing.folder_signature import Trust
from components.adapters.signing.update_repository import Keys, one_writer, publish_targets, read_target
from components.release.fleet.release_document import DOCUMENT, SIGNATURE, Release, check_may_reach_robots
from components.release.fleet.verify import verify_release
from model_core.spec.documents import to_document
from model_core.spec.errors import SpecError, StorageError

INDEX = "releases.json"


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
        offered: dict[str, dict[str, Path | bytes]] = {}
        for site in dict.fromkeys(sites):
            index = offered_releases(repository, keys, site)
            if all(row["digest"] != release.digest for row in index):
                offered[site] = _files(folder, release, site, index)
        if offered:
            publish_targets(repository, keys, offered)
    own = sum((folder / name).stat().st_size for name in (DOCUMENT, SIGNATURE))
    return Offer(
        release=release,
        sites=tuple(dict.fromkeys(sites)),
        added=tuple(offered),
        carried_bytes=release.carried_bytes,
        fetch_bytes=release.carried_bytes + own,
    )


def offered_releases(repository: Path, keys: Keys, site: str) -> list[dict[str, Any]]:
    """The rows of a site's list, oldest first; empty where nothing was published. Raises `StorageError` for a list that is not ours."""
    content = read_target(repository, keys, site, INDEX)
    if content is None:
        return []
    document = json.loads(content)
    if document.get("form") != 1 or document.get("site") != site:
        raise StorageError(
            f"{INDEX} of site {site} is of form {document.get('form')} and site {document.get('site')}. Fix: use a newer Actwright"
        )
    return list(document["releases"])


def _files(folder: Path, release: Release, site: str, index: list[dict[str, Any]]) -> dict[str, Path | bytes]:
    if release.base is not None and all(row["digest"] != release.base.digest for row in index):
        raise SpecError(
            f"site {site} is not offered the base {release.base.digest[:16]} of release {release.digest[:16]}. Fix: publish the base first"
        )
    files: dict[str, Path | bytes] = {f"files/{file.sha256}": folder / path for path, file in release.files.items()}
    files |= {f"releases/{release.digest}.{end}": folder / name for end, name in (("json", DOCUMENT), ("sig", SIGNATURE))}
    document = {"form": 1, "site": site, "releases": [*index, _row(release, len(index) + 1)]}
    return files | {INDEX: (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()}


def _row(release: Release, number: int) -> dict[str, Any]:
    return {
        "number": number,
        "digest": release.digest,
        "model_version": release.model_version,
        "minimum_agent": release.minimum_agent,
        "base": release.base.digest if release.base else "",
        "override": to_document(release.override) if release.override else None,
    }
