"""Pieces of a training state as safetensors files, one a process, and ranges of parameters read from whatever files there are.

    state_00000.safetensors   keys "<what>:<first element>:<parameter>", what being weight, exp_avg, exp_avg_sq or step; flat tensors
    state_00000.json          written after it: its digest, and that this process is done

The header of a file names its ranges, so that a reader opens all headers and loads only what overlaps with what it needs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts.files import sha256_file
from components.training.state.pieces import STEP, Piece
from model_core.spec.errors import CheckpointError
from model_core.spec.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor


def state_name(rank: int) -> str:
    """The file of one process."""
    return f"state_{rank:05d}.safetensors"


def record_path(folder: Path, rank: int) -> Path:
    """Where a process says that its file is on disk: the file's name and SHA-256."""
    return (folder / state_name(rank)).with_suffix(".json")


def keyed(piece: Piece) -> dict[str, Tensor]:
    """The tensors of a piece under the keys that they have in a file. The counter of steps is written with the piece that begins at 0."""
    tensors = {f"{what}:{piece.start}:{piece.name}": value for what, value in piece.values.items()}
    if piece.step is not None and piece.start == 0:
        tensors[f"{STEP}:0:{piece.name}"] = piece.step.reshape(1)
    return tensors


def write_state(folder: Path, rank: int, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]) -> None:
    """Write one process's file and, when it is on disk, its digest beside it. sizes: elements of each parameter."""
    from safetensors.torch import save_file

    path = folder / state_name(rank)
    save_file(dict(tensors), path, metadata={"sizes": json.dumps(sizes, sort_keys=True)})
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    atomic_write(record_path(folder, rank), json.dumps({path.name: sha256_file(path)}))


def written_digests(folder: Path, world_size: int) -> dict[str, str] | None:
    """File -> SHA-256 of all processes' files, once each of them has written its own; None before."""
    found: dict[str, str] = {}
    for rank in range(world_size):
        record = record_path(folder, rank)
        if not record.is_file():
            return None
        found |= json.loads(record.read_text())
    return found


class SavedState:
    """The files of one checkpoint, opened for reading. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._files = folder, ExitStack()
        self._ranges: dict[tuple[str, str], list[tuple[int, int, str, Any]]] = {}
        self._sizes: dict[str, int] = {}

    def __enter__(self) -> SavedState:
        from safetensors import safe_open

        for path in sorted(self._folder.glob("state_*.safetensors")):
            file = self._files.enter_context(safe_open(path, "pt"))
            self._sizes |= json.loads(file.metadata()["sizes"])
            for key in file.keys():  # noqa: SIM118 (not a dict)
                what, start, name = key.split(":", 2)
                length = file.get_slice(key).get_shape()[0]
                self._ranges.setdefault((what, name), []).append((int(start), int(start) + length, key, file))
        for ranges in self._ranges.values():
            ranges.sort(key=lambda one: one[0])
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def read_into(self, piece: Piece) -> None:
        """Fill the piece's tensors. Raises `CheckpointError` for a parameter that is missing, has another size, or has a gap."""
        if self._sizes.get(piece.name) != piece.size:
            raise CheckpointError(
                f"{self._folder.name}: {piece.name} has {piece.size} elements here, {self._sizes.get(piece.name, 0)} in the checkpoint. "
                "Fix: resume with the network that wrote it, or train into another folder"
            )
        for what, value in piece.values.items():
            self._fill(what, piece, value)

    def step_of(self, name: str) -> float:
        """Adam's counter of steps of a trained parameter."""
        found = self._ranges.get((STEP, name))
        if not found:
            raise CheckpointError(
                f"{self._folder.name}: {name} was not trained when this was written. Fix: resume with the parts that were trained then, "
                "or train into another folder"
            )
        return float(found[0][3].get_tensor(found[0][2])[0])

    def _fill(self, what: str, piece: Piece, value: Tensor) -> None:
        import torch

        flat = value.view(-1) if value.is_contiguous() else torch.empty(value.numel(), dtype=value.dtype, device=value.device)
        at, end = piece.start, piece.start + value.numel()
        for first, last, key, file in self._ranges.get((what, piece.name), []):
            if first <= at < last:
                stop = min(last, end)
                flat[at - piece.start : stop - piece.start].copy_(file.get_slice(key)[at - first : stop - first])
                at = stop
        if at < end:
            raise CheckpointError(f"{self._folder.name}: {what} of {piece.name} misses the elements {at} to {end}")
        if not value.is_contiguous():
            value.copy_(flat.view(value.shape))
