"""The list of releases that a site is offered: sites/NAME/releases.json of the repository, oldest first.

    {"form": 1, "site": NAME, "releases": [{"number", "digest", "model_version", "minimum_agent", "base", "override"}, ...]}

`number` grows by one with each release that the site is offered: an agent takes none below the highest that ran, unless it is told
which older ones are known to be good.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import StorageError
from model_core.spec.fleet.release import Override, Release

INDEX = "releases.json"
_FORM = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedRelease:
    """One row. number: from 1. base: digest of the release whose files it uses, "" for none."""

    number: int
    digest: str
    model_version: str
    minimum_agent: str
    base: str = ""
    override: Override | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    form: int
    site: str
    releases: tuple[OfferedRelease, ...]


def offered(release: Release, number: int) -> OfferedRelease:
    """The row of a release."""
    return OfferedRelease(
        number=number,
        digest=release.digest,
        model_version=release.model_version,
        minimum_agent=release.minimum_agent,
        base=release.base.digest if release.base else "",
        override=release.override,
    )


def written_offers(site: str, rows: Sequence[OfferedRelease]) -> str:
    """The text of a site's list."""
    return json.dumps(to_document(_Index(form=_FORM, site=site, releases=tuple(rows))), indent=1, sort_keys=True) + "\n"


def parsed_offers(content: bytes, site: str) -> tuple[OfferedRelease, ...]:
    """The rows of a site's list, oldest first. Raises `StorageError` for a list that is not this site's, or not ours."""
    try:
        index = from_document(_Index, json.loads(content), where=INDEX)
    except ValueError as error:  # SpecError is one
        raise StorageError(f"{INDEX} of site {site} cannot be read: {error}. Fix: use a newer Actwright") from error
    numbers = [row.number for row in index.releases]
    if index.form != _FORM or index.site != site or numbers != list(range(1, len(numbers) + 1)):
        raise StorageError(
            f"{INDEX} of site {site} is of form {index.form} and site {index.site}, with {len(numbers)} rows, "
            f"expected form {_FORM}, this site, and numbers from 1 on. Fix: use a newer Actwright, or publish the list again"
        )
    return index.releases
