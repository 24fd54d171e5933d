"""Files of weights: safetensors and `model.pt`, read piecewise, written atomically. Which file a key is read from: `shards`.

Reading maps a file, copies a tensor in pieces into memory of the wanted dtype, and gives the mapped pages back
after each piece: peak memory is the model plus one piece, whatever the shards are.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_core.network.checkpoints.rounding import LostValues
from model_core.spec.errors import CheckpointError
from model_core.spec.files import atomic_target, atomic_write

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
PICKLE_FILE = "model.pt"
SHARDS = "model-*-of-*.safetensors"
PIECE_BYTES = 64 * 2**20
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Where one tensor lies and what it is. `copy_to` puts it into memory of another dtype or device, and counts what that loses."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    copy_to: Callable[[Tensor, LostValues], None]

    @property
    def bytes(self) -> int:
        """Size as stored."""
        return math.prod(self.shape) * self.dtype.itemsize

    def load(self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu", *, lost: LostValues | None = None) -> Tensor:
        """The tensor in its own memory, in `dtype` (default: as stored). lost: gets the counts of what `dtype` cannot hold."""
        out = torch.empty(self.shape, dtype=dtype or self.dtype, device=device)
        self.copy_to(out, LostValues() if lost is None else lost)
        return out


def read_header(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    """Key and place of each tensor of one safetensors file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, 100_000_000):
            raise CheckpointError(f"{path} is not a safetensors file: header length {length} of {size} bytes")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path} has a torn header: {error}") from error
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        dtype = DTYPES.get(entry["dtype"])
        if dtype is None:
            raise CheckpointError(f"{path}: {key} is stored as {entry['dtype']}, which is not supported")
        if end - begin != math.prod(shape) * dtype.itemsize or begin < 0 or 8 + length + end > size:
            raise CheckpointError(f"{path} is torn: {key} {list(shape)} does not fit its {end - begin} bytes of {size}")
        yield key, StoredTensor(file=path, shape=shape, dtype=dtype, copy_to=_MappedCopy(path, 8 + length + begin, dtype))


@dataclass(frozen=True, slots=True)
class _MappedCopy:
    path: Path
    offset: int
    dtype: torch.dtype

    def __call__(self, out: Tensor, lost: LostValues) -> None:
        """Copy the stored numbers into `out` piece by piece; the mapped pages are released after each."""
        flat = out.view(-1)
        if not flat.numel():
            return
        step = PIECE_BYTES // self.dtype.itemsize
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
            for begin in range(0, flat.numel(), step):
                count = min(step, flat.numel() - begin)
                at = self.offset + begin * self.dtype.itemsize
                piece = torch.frombuffer(mapped, dtype=self.dtype, count=count, offset=at)
                flat[begin : begin + count].copy_(piece)
                lost.count(piece, flat[begin : begin + count])
                del piece  # the mapping cannot be closed while a tensor looks into it
                page = at - at % mmap.PAGESIZE
                mapped.madvise(mmap.MADV_DONTNEED, page, at + count * self.dtype.itemsize - page)


def read_pickle(path: Path) -> dict[str, StoredTensor]:
    """`model.pt` through the weights-only loader, mapped: never arbitrary pickle."""
    import pickle

    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{path} cannot be read by the safe weights-only loader, and it is not read any other way "
            f"(a pickle can run code); convert it where it was written. The loader reported: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} must hold a plain state dict of tensors")
    return {
        key: StoredTensor(file=path, shape=tuple(value.shape), dtype=value.dtype, copy_to=_TensorCopy(value))
        for key, value in state.items()
    }


@dataclass(frozen=True, slots=True)
class _TensorCopy:
    value: Tensor

    def __call__(self, out: Tensor, lost: LostValues) -> None:
        """Copy a tensor of a mapped `model.pt`."""
        out.copy_(self.value)
        lost.count(self.value, out)


def write_shards(
    folder: Path, tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype, Callable[[], Tensor]]], *, max_shard_bytes: int
) -> list[Path]:
    """Write `model.safetensors`, or shards of at most `max_shard_bytes` with their index; one shard is in memory at a time.

    tensors: key -> (shape, dtype, function that gives it). Files appear under their names only when complete, the index last.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    shards: list[list[str]] = [[]]
    room = max_shard_bytes
    total = 0
    for key, (shape, dtype, _) in tensors.items():
        size = math.prod(shape) * dtype.itemsize
        if shards[-1] and size > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(key)
        room -= size
        total += size
    names = [SINGLE_FILE] if len(shards) == 1 else [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    for name, keys in zip(names, shards, strict=True):
        part = {key: tensors[key][2]().contiguous() for key in keys}
        with atomic_target(folder / name) as beside:
            save_file(part, beside, metadata={"format": "pt"})
    if len(shards) > 1:
        weight_map = {key: name for name, keys in zip(names, shards, strict=True) for key in keys}
        write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})
        names.append(INDEX_FILE)
    _remove_stale(folder, set(names))
    return [folder / name for name in names]


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, keys sorted."""
    atomic_write(path, json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _remove_stale(folder: Path, kept: set[str]) -> None:
    """Drop weight files of an earlier save, which a reader could prefer over the new ones."""
    for path in [*folder.glob(SHARDS), folder / SINGLE_FILE, folder / INDEX_FILE]:
        if path.name not in kept:
            path.unlink(missing_ok=True)
