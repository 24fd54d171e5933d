"""A safetensors file of this disk, mapped: a row costs the reading of its bytes and nothing else."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from components.data.packing.tensor_file import TensorFile
from model_core.spec.errors import DatasetError


class MappedTensors:
    """Tensors of one file by name and row. The arrays share the file's pages: they are read-only."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path.name} cannot be read: {error}. Fix: `dvc pull`, or make it again") from error
        self._view = memoryview(self._map)
        self.header = TensorFile.read(path.name, len(self._map), self._bytes)

    def _bytes(self, first: int, count: int) -> memoryview:
        return self._view[first : first + count]

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's metadata."""
        return self.header.metadata

    def rows(self, name: str, first: int, count: int) -> NDArray[Any]:
        """Rows first .. first+count-1 of a tensor."""
        return self.header.places[name].rows(self._bytes, first, count)

    def whole(self, name: str) -> NDArray[Any]:
        """A whole tensor."""
        return self.rows(name, 0, self.header.places[name].shape[0])

    def names(self) -> tuple[str, ...]:
        """The names of the tensors."""
        return tuple(self.header.places)
