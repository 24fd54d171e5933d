"""What the site is offered, by metadata of The Update Framework: read with its own client, a new one for each check.

The client refuses a changed byte, an older version of anything that it saw, metadata of different times together, and a timestamp whose
time is over by this computer's clock. What it trusts lies in `folder` and survives restarts.
"""

# tuf documents these modules as public, and does not list their names
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_core.spec.errors import StorageError
from model_core.spec.fleet.offers import INDEX, OfferedRelease, parsed_offers
from serving.fleet.intake.http_client import HttpClient, HttpStatus
from serving.fleet.intake.problems import UpdateRefused

if TYPE_CHECKING:
    from tuf.ngclient import Updater

_MOST_LIST_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One file as the metadata describe it. size: in bytes."""

    url: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateMetadata:
    """One site's view of one repository. root: the 1.root.json that was brought here by hand."""

    repository: str
    site: str
    root: Path
    folder: Path
    client: HttpClient

    def check(self) -> Offers:
        """Fetch what is newest. Raises `UpdateRefused`: UNREACHABLE, EXPIRED or METADATA."""
        from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError
        from tuf.ngclient import Updater

        self.folder.mkdir(parents=True, exist_ok=True)
        base = self.repository.rstrip("/")
        try:
            updater = Updater(
                str(self.folder), f"{base}/metadata/", None, f"{base}/targets/", _fetcher(self.client), bootstrap=self.root.read_bytes()
            )
            updater.refresh()
        except ExpiredMetadataError as error:
            raise UpdateRefused("EXPIRED", f"{error}, by this computer's clock. Fix: refresh the repository, or set the clock") from error
        except RepositoryError as error:
            raise UpdateRefused("METADATA", f"the update metadata of {base} do not verify: {error}") from error
        except DownloadError as error:
            raise UpdateRefused("UNREACHABLE", f"{base} does not answer: {error or error.__cause__}") from error
        return Offers(self, updater)


class Offers:
    """What the site is offered, as of one check."""

    def __init__(self, of: UpdateMetadata, updater: Updater) -> None:
        self._of, self._updater = of, updater

    def releases(self) -> tuple[OfferedRelease, ...]:
        """The list, oldest first. Raises `UpdateRefused`."""
        try:
            return parsed_offers(self.content(INDEX, _MOST_LIST_BYTES), self._of.site)
        except StorageError as error:
            raise UpdateRefused("METADATA", str(error)) from error

    def target(self, name: str) -> Target:
        """A file below sites/SITE. Raises `UpdateRefused` NOT_OFFERED where the metadata do not list it."""
        from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError

        path = f"sites/{self._of.site}/{name}"
        try:
            told = self._updater.get_targetinfo(path)
        except ExpiredMetadataError as error:
            raise UpdateRefused("EXPIRED", f"{error}, by this computer's clock. Fix: publish to the site again") from error
        except RepositoryError as error:
            raise UpdateRefused("METADATA", f"the update metadata of site {self._of.site} do not verify: {error}") from error
        except DownloadError as error:
            raise UpdateRefused("UNREACHABLE", f"{self._of.repository} does not answer: {error}") from error
        if told is None:
            raise UpdateRefused("NOT_OFFERED", f"site {self._of.site} is not offered {name}. Fix: publish the release to this site")
        digest = told.hashes["sha256"]
        folder, _, base = path.rpartition("/")
        url = f"{self._of.repository.rstrip('/')}/targets/{folder}/{digest}.{base}"
        return Target(url=url, sha256=digest, size=told.length)

    def content(self, name: str, most: int) -> bytes:
        """The bytes of a small file, as the metadata describe them. Raises `UpdateRefused`."""
        import hashlib

        told = self.target(name)
        if told.size > most:
            raise UpdateRefused("METADATA", f"{name} has {told.size} bytes, expected at most {most}")
        content = self._of.client.exchange(told.url, most=told.size)
        if len(content) != told.size or hashlib.sha256(content).hexdigest() != told.sha256:
            raise UpdateRefused("DIGEST", f"{told.url} is not what the metadata describe")
        return content


def _fetcher(client: HttpClient) -> Any:
    """The library's interface over our client, so that every read of it is bounded in time too."""
    from tuf.api.exceptions import DownloadError, DownloadHTTPError
    from tuf.ngclient import FetcherInterface

    class Fetcher(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            try:
                yield from client.rest(url, 0, 2**40)  # the library counts against its own limits
            except HttpStatus as error:
                raise DownloadHTTPError(str(error), error.status) from error
            except UpdateRefused as error:
                raise DownloadError(str(error)) from error

    return Fetcher()
