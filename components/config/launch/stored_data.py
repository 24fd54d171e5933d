"""The data set of a training on a cluster, where each machine fetches it from an object store."""

from __future__ import annotations

import re
from dataclasses import dataclass

from model_core.spec.errors import require

CACHE = "/cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredData:
    """Where machines fetch the frozen data set, and where they keep it.

    storage, bucket: as ACTWRIGHT_STORAGE and ACTWRIGHT_BUCKET. digest: of its files; "" until it is sent, when the job is submitted.
    cache_claim: a volume of each machine's own that outlives its pods; "": every pod fetches. cache: where pods mount it.
    """

    storage: str
    bucket: str = "actwright"
    digest: str = ""
    cache_claim: str = ""
    cache: str = CACHE

    def __post_init__(self) -> None:
        require(
            self.storage != "embedded",
            "machines of a cluster cannot reach the embedded object store. Fix: set ACTWRIGHT_STORAGE=s3://HOST:PORT, or say --data claim",
        )
        require(re.fullmatch(r"([0-9a-f]{64})?", self.digest) is not None, "digest: expected 64 hex digits", got=self.digest)
        require(self.cache.startswith("/"), "cache: expected an absolute path", got=self.cache)

    @property
    def folder(self) -> str:
        """Where a pod finds the data set."""
        return data_folder(self.cache, self.digest or "DIGEST")


def data_folder(cache: str, digest: str) -> str:
    """Where a cache keeps the data set of this digest."""
    return f"{cache.rstrip('/')}/data/{digest}"
