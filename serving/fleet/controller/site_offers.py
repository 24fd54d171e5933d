"""What each site is offered, by the signed update metadata that its robots read: a release that a site's delegation does not list is
proposed to none of its cells.

The controller is a client of the repository like any robot: it checks the metadata from the root that a person brought, and keeps what it
saw last where the repository does not answer. What expired or does not verify offers nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from model_core.spec.fleet.offers import OfferedRelease
from serving.fleet.intake.http_client import HttpClient
from serving.fleet.intake.problems import UpdateRefused
from serving.fleet.intake.update_metadata import Offers, UpdateMetadata

logger = logging.getLogger(__name__)
_TIMEOUT_S = 10.0


class SiteOffers:
    """The newest view of one repository, for any thread. folder: where the metadata that are trusted are kept."""

    def __init__(self, repository: str, root: Path, folder: Path, ca_file: Path | None = None) -> None:
        client = HttpClient(timeout_s=_TIMEOUT_S, ca_file=ca_file)
        self._metadata = UpdateMetadata(repository=repository, site="", root=root, folder=folder, client=client)
        self._reading = threading.Lock()
        self._rows: Mapping[str, Mapping[str, OfferedRelease]] = {}
        self.problems: Mapping[str, str] = {}

    @property
    def rows(self) -> Mapping[str, Mapping[str, OfferedRelease]]:
        """Site -> digest -> the row of each release that it is offered, as last read."""
        return self._rows

    @property
    def digests(self) -> Mapping[str, frozenset[str]]:
        """Site -> what it is offered."""
        return {site: frozenset(rows) for site, rows in self._rows.items()}

    def read(self, sites: Iterable[str]) -> None:
        """Check the metadata again for these sites. What fails is kept in `problems`, by site."""
        with self._reading:
            rows, problems = dict(self._rows), dict[str, str]()
            for site in sorted(set(sites)):
                try:
                    rows[site] = self._offered(site)
                except UpdateRefused as error:
                    problems[site] = f"{error.code}: {error}"
                    if error.code != "UNREACHABLE":
                        rows[site] = {}
            for site, problem in problems.items():
                if self.problems.get(site) != problem:
                    logger.warning("offers.unread site=%s reason=%s", site, problem)
            self._rows, self.problems = rows, problems

    def _offered(self, site: str) -> dict[str, OfferedRelease]:
        offers = replace(self._metadata, site=site).check()
        return {row.digest: row for row in offers.releases() if _is_target(offers, row.digest)}


def _is_target(offers: Offers, digest: str) -> bool:
    """Whether the site's signed targets hold the release's document and signature: a row of the list alone is no offer."""
    try:
        return all(bool(offers.target(f"releases/{digest}.{kind}").sha256) for kind in ("json", "sig"))
    except UpdateRefused as error:
        if error.code != "NOT_OFFERED":
            raise
        return False
