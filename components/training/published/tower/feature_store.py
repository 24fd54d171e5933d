"""Features of views on disk, a file each, named by what they are of. Nothing else is lost with a file than the time to compute it again.

    <folder>/<tower>/<two digits>/<view>.safetensors      tower, view: SHA-256 (hex); the file holds a checksum of its numbers

Several processes and several trainings may use one folder: equal names hold equal numbers, and a file appears whole.
"""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from model_core.spec.errors import JobError
from model_core.spec.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

_NAME, _CHECKSUM = "features", "crc32"
GIB = 2**30


class FeatureStore:
    """The features that one tower gave. folder: of all towers. tower: digest of this one. computed_views: how many were not there."""

    def __init__(self, folder: Path, tower: str) -> None:
        self.folder = folder / tower
        self.computed_views = 0

    def read(self, view: str) -> Tensor | None:
        """The features of a view; None where they are not there, or the file is damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path(view), framework="pt") as opened:
                features_CPD = opened.get_tensor(_NAME)
                expected = (opened.metadata() or {}).get(_CHECKSUM)
        except (OSError, SafetensorError):
            return None
        return features_CPD if _checksum(features_CPD) == expected else None

    def write(self, view: str, features_CPD: Tensor) -> None:
        """Keep the features of a view. Raises `JobError` where the disk does not take them."""
        from safetensors.torch import save

        self.computed_views += 1
        content = save({_NAME: features_CPD.contiguous()}, metadata={_CHECKSUM: _checksum(features_CPD)})
        try:
            atomic_write(self._path(view), content, durable=False)
        except OSError as error:
            raise JobError(
                f"features cannot be written to {self.folder}: {error}. Fix: free disk space and run again, or leave out "
                "train.published.feature_cache"
            ) from error

    def require_room(self, views: int, bytes_of_view: int) -> None:
        """Raise `JobError` unless so many views fit on the disk, beside those that are there already."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JobError(f"train.published.feature_cache: {error}. Fix: name a folder that can be written to") from error
        there = sum(1 for _ in self.folder.glob("*/*.safetensors"))
        needed, free = max(0, views - there) * bytes_of_view, shutil.disk_usage(self.folder).free
        if needed > free:
            raise JobError(
                f"train.published.feature_cache: up to {views:,} views of {bytes_of_view / 2**20:.1f} MiB need {needed / GIB:.1f} GiB "
                f"more, {self.folder} has {free / GIB:.1f} GiB free. Fix: name a folder on a larger disk, or leave the cache out"
            )

    def _path(self, view: str) -> Path:
        return self.folder / view[:2] / f"{view}.safetensors"


def _checksum(features_CPD: Tensor) -> str:
    import torch

    return f"{zlib.crc32(features_CPD.contiguous().flatten().view(torch.uint8).numpy().tobytes()):08x}"
