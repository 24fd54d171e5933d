"""Write a checkpoint a second time with int8 weights: another folder, another model, which answers almost as the first.

    linear layers         int8, one scale for each output (`network.int8`), rounded from the stored weights
    all other weights     as stored (embedding tables, norms, biases, positions, convolutions)
    contract, statistics  the same; tokenizer, processor and codebook come along
    adoption              for the new files; activations are float32

The published code reads no int8 weights: what it would open the folder by (its own code) stays behind.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from model_core.adoption.document import ADOPTION, VQVAE, is_adopted, not_adopted, read_adoption
from model_core.adoption.published_files import read_weights, small_digests, weight_sizes
from model_core.checkpoint import load_checkpoint, write_checkpoint
from model_core.contracts import CONTRACT, chosen_contract, contract_file, read_contracts
from model_core.network.checkpoints.hub import BESIDE, DEFAULT_SHARD_BYTES, CheckpointFiles, check_destination
from model_core.network.checkpoints.weights import write_json, write_shards
from model_core.network.config import MolmoActConfig
from model_core.network.int8.conversion import int8_config, int8_state, linear_weights, scale_key
from model_core.network.int8.linear import rounded
from model_core.network.int8.stored import REPORT, is_int8_folder
from model_core.spec.errors import CheckpointError
from model_core.spec.files import atomic_write


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Copy:
    """What was written. rounded: names of the weights that are int8 now. source_bytes, bytes: of all weights. notes: a sentence each."""

    folder: Path
    rounded: tuple[str, ...]
    source_bytes: int
    bytes: int
    notes: tuple[str, ...] = ()


def write_int8(source: Path, destination: Path, *, embodiment: str = "") -> Int8Copy:
    """Write the int8 copy of `source`, a checkpoint of ours or an adopted folder, into `destination`, a folder without weights.

    embodiment: which of several. Of an adopted folder one shard is in memory at a time. Raises `CheckpointError`, before a weight is
    read, for a folder that is not whole, not adopted, changed since, or int8 already, and where `destination` holds weights; and for
    weights that are not finite.
    """
    check_destination(source, destination)
    if is_int8_folder(source):
        raise CheckpointError(f"{source} has int8 weights already. Fix: serve it, `actwright serve {source}`")
    if is_adopted(source):
        return _adopted_copy(source, destination, embodiment)
    if advice := not_adopted(source):
        raise CheckpointError(f"{source}: {advice}")
    return _compact_copy(source, destination, embodiment)


def keep_report(folder: Path, text: str) -> Path:
    """Write the report beside the weights that it is about; of an adopted folder it is one of the files that the adoption holds for."""
    atomic_write(folder / REPORT, text)
    if is_adopted(folder):
        atomic_write(folder / ADOPTION, replace(read_adoption(folder), files=small_digests(folder)).to_text())
    return folder / REPORT


def _adopted_copy(source: Path, destination: Path, embodiment: str) -> Int8Copy:
    embodiment = chosen_contract(read_contracts(source), embodiment, source).embodiment.name
    adoption = read_adoption(source).of(embodiment)
    adoption.check(source)
    files = read_weights(source, MolmoActConfig.from_json(source))
    linear = linear_weights(files.config)
    write_shards(destination, _tensors(files, linear), max_shard_bytes=DEFAULT_SHARD_BYTES)
    write_json(destination / "config.json", int8_config(files.config).to_json())
    for name in BESIDE:
        if (source / name).is_file():
            atomic_write(destination / name, (source / name).read_bytes())
    if (source / VQVAE).is_dir():
        shutil.copytree(source / VQVAE, destination / VQVAE, dirs_exist_ok=True)
    atomic_write(destination / CONTRACT, contract_file(source, embodiment).read_bytes())
    written = read_weights(destination, MolmoActConfig.from_json(destination))
    language = replace(adoption.language, dtype="float32")
    copied = replace(adoption, files=small_digests(destination), weights=weight_sizes(written), language=language)
    atomic_write(destination / ADOPTION, copied.to_text())
    notes = [] if adoption.language.dtype == "float32" else [f"{source} is served in {adoption.language.dtype}, the copy in float32"]
    return Int8Copy(folder=destination, rounded=tuple(sorted(linear)), source_bytes=_size(files), bytes=_size(written), notes=tuple(notes))


def _compact_copy(source: Path, destination: Path, embodiment: str) -> Int8Copy:
    found = load_checkpoint(source, embodiment=embodiment)
    before, config, vqvae = found.model.state_dict(), found.model.config, source / VQVAE
    after = int8_state(before, config)
    write_checkpoint(destination, state=after, config=int8_config(config), contract=found.contract, vqvae=vqvae if vqvae.is_dir() else None)
    names = tuple(sorted(name for name, value in after.items() if value.dtype is torch.int8))
    return Int8Copy(folder=destination, rounded=names, source_bytes=_bytes(before), bytes=_bytes(after))


def _tensors(files: CheckpointFiles, linear: frozenset[str]) -> Mapping[str, tuple[tuple[int, ...], torch.dtype, Callable[[], Tensor]]]:
    """What is written, by key; a weight is rounded when its shard is, and read once for its numbers and its scales."""
    found: dict[str, tuple[tuple[int, ...], torch.dtype, Callable[[], Tensor]]] = {}

    @lru_cache(maxsize=1)
    def both(name: str) -> tuple[Tensor, Tensor]:
        return rounded(files.tensors[name].load(torch.float32), name)

    for name, stored in files.tensors.items():
        if name not in linear:
            found[name] = (stored.shape, stored.dtype, stored.load)
            continue
        found[name] = (stored.shape, torch.int8, lambda name=name: both(name)[0])
        found[scale_key(name)] = (stored.shape[:1], torch.float32, lambda name=name: both(name)[1])
    return found


def _size(files: CheckpointFiles) -> int:
    return sum(stored.bytes for stored in files.tensors.values())


def _bytes(state: Mapping[str, Tensor]) -> int:
    return sum(value.numel() * value.itemsize for value in state.values())
