"""Rewrite a whole checkpoint between the published and the training-side layout: weights, and all that makes them a policy.

    published <-> training-side   weights, config with norm_stats, tokenizer and processor files, depth codebook
    contract, adoption            come along; an adoption is written for the new files, after the old ones were compared with it
    compact checkpoints           are sealed again, so that there and back gives the same bytes
    adapters                      are merged in float32 into the published layout, which then has no contract: it acts otherwise

A training-side folder is a way station: a `model.pt` is a pickle, and is neither served nor packed.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from model_core.adoption.document import ADOPTION, VQVAE, is_adopted, read_adoption
from model_core.adoption.published_files import small_digests, weight_sizes
from model_core.checkpoint import write_checkpoint
from model_core.contracts import CONTRACT, CONTRACTS, read_contracts
from model_core.network.checkpoints.hub import (
    CheckpointFiles,
    beside,
    check_destination,
    convert,
    load_pretrained,
    open_checkpoint,
    resolve,
    save_pretrained,
)
from model_core.network.checkpoints.layout import Layout
from model_core.network.checkpoints.weights import SINGLE_FILE
from model_core.network.config import MolmoActConfig
from model_core.network.finetuning.lora import load_adapters, merge_lora
from model_core.network.int8.stored import refuse_int8
from model_core.spec.errors import CheckpointError
from model_core.spec.files import atomic_write
from model_core.tiny import LAYOUT_KEY

_VAE_FILE = "vae-final.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionRequest:
    """What is asked of a conversion.

    target: layout to write; None: the other one. dtype: None: as stored. config: of a folder without config.json. adapters: folder of
    LoRA adapters (peft's form) to merge.
    """

    target: Layout | None = None
    dtype: torch.dtype | None = None
    config: MolmoActConfig | None = None
    adapters: Path | None = None

    @staticmethod
    def named(*, to: str | None, dtype: str | None, config: MolmoActConfig | None, adapters: Path | None) -> ConversionRequest:
        """The request with layout ("olmo" or "published") and number format ("bfloat16" ...) as words, None for what was not chosen."""
        layouts: dict[str | None, Layout | None] = {None: None, "olmo": "olmo", "published": "published"}
        return ConversionRequest(
            target=layouts[to], dtype=None if dtype is None else getattr(torch, dtype), config=config, adapters=adapters
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What was written. carried: what lies beside the weights, by path. notes: what a person should read, a sentence each."""

    files: CheckpointFiles
    carried: tuple[str, ...]
    notes: tuple[str, ...]


def convert_checkpoint(source: str | Path, destination: Path, request: ConversionRequest) -> Converted:
    """Rewrite `source`, a folder or a hub id, into `destination`, a folder without weights.

    Raises `CheckpointError` before anything is written: for keys, numbers or adapters that do not fit, for an adopted folder whose files
    changed since, and where `destination` holds weights.
    """
    folder = resolve(source)
    adopted = is_adopted(folder)
    if adopted:
        read_adoption(folder).check(folder)
    if request.adapters is not None:
        return _merged(folder, destination, request, request.adapters)
    contracts = read_contracts(folder) if (folder / CONTRACT).is_file() else {}
    files = convert(folder, destination, target=request.target, dtype=request.dtype, config=request.config)
    notes = _carry_codebook(folder, destination)
    for name in (CONTRACT, *(f"{CONTRACTS}/{name}.json" for name in contracts if (folder / CONTRACTS).is_dir())):
        if (folder / name).is_file():
            atomic_write(destination / name, (folder / name).read_bytes())
    if LAYOUT_KEY in files.config.extras and contracts and files.layout == "published":
        _seal(files, destination)
        files = replace(open_checkpoint(destination), rounded_to_zero=files.rounded_to_zero)
    if adopted:
        adoption = replace(read_adoption(folder), files=small_digests(destination), weights=weight_sizes(files))
        atomic_write(destination / ADOPTION, adoption.to_text())
    if contracts and files.layout == "olmo":
        notes.append("the contract lies beside the weights; the training-side layout is not served: convert it back for that")
    return Converted(files=files, carried=_carried(files, destination), notes=tuple(notes))


def converted_line(source: str | Path, destination: Path, made: Converted) -> dict[str, str | int | list[str]]:
    """What was written, for a log line."""
    tensors = made.files.tensors.values()
    return {
        "source": str(source),
        "destination": str(destination),
        "layout": made.files.layout,
        "dtype": ",".join(sorted({str(stored.dtype).removeprefix("torch.") for stored in tensors})),
        "rounded_to_zero": made.files.rounded_to_zero,
        "tensors": len(made.files.tensors),
        "bytes": sum(stored.bytes for stored in tensors),
        "carried": list(made.carried),
        "notes": list(made.notes),
    }


def _merged(folder: Path, destination: Path, request: ConversionRequest, adapters: Path) -> Converted:
    """Adapters added into the weights of `folder`, in float32, stored as the folder's weights are."""
    if request.target == "olmo":
        raise CheckpointError("adapters are merged into the published layout. Fix: leave out --to, then convert the result")
    files = open_checkpoint(folder, request.config)
    refuse_int8(files.config.extras, folder, "merged with adapters")
    check_destination(folder, destination)
    if LAYOUT_KEY in files.config.extras:
        raise CheckpointError(f"{folder} is a checkpoint of the compact language; its trainings write merged checkpoints already")
    stored = {tensor.dtype for tensor in files.tensors.values()}
    model = load_pretrained(folder, dtype=torch.float32, config=request.config)
    merge_lora(load_adapters(model, adapters))
    save_pretrained(model, destination, dtype=request.dtype or (stored.pop() if len(stored) == 1 else torch.float32))
    for name in beside(folder):
        atomic_write(destination / name, (folder / name).read_bytes())
    notes = _carry_codebook(folder, destination)
    notes.append(
        "merged: it acts otherwise than the checkpoint it was made of, so contract and adoption did not come along. Put the statistics of "
        f"the data it was tuned on into config.json (norm_stats), then: actwright model adopt {destination} ..."
    )
    written = open_checkpoint(destination)
    return Converted(files=written, carried=_carried(written, destination), notes=tuple(notes))


def _carry_codebook(folder: Path, destination: Path) -> list[str]:
    """Copy the depth codebook, ours or the published file; a sentence where there is none."""
    if (folder / VQVAE).is_dir():
        shutil.copytree(folder / VQVAE, destination / VQVAE, dirs_exist_ok=True)
    if (folder / _VAE_FILE).is_file():
        shutil.copyfile(folder / _VAE_FILE, destination / _VAE_FILE)
    found = (folder / VQVAE).is_dir() or (folder / _VAE_FILE).is_file()
    return [] if found else [f"{folder} holds no depth codebook ({_VAE_FILE} or {VQVAE}/), so none came along"]


def _seal(files: CheckpointFiles, destination: Path) -> None:
    """Write the compact checkpoint as every other one is written, weights sealed with config and contract, in place of the bare files."""
    contracts = list(read_contracts(destination).values())
    vqvae = destination / VQVAE
    with TemporaryDirectory(dir=destination, prefix=".sealing-") as waiting:
        sealed = write_checkpoint(
            Path(waiting) / "sealed",
            state={name: stored.load() for name, stored in files.tensors.items()},
            config=files.config,
            contract=contracts[0],
            vqvae=vqvae if vqvae.is_dir() else None,
            further=contracts[1:],
        )
        for path in {stored.file for stored in files.tensors.values()} | set(destination.glob("*.index.json")):
            if path.name != SINGLE_FILE:
                path.unlink()
        for path in sorted(path for path in sealed.rglob("*") if path.is_file()):
            os.replace(path, destination / path.relative_to(sealed))


def _carried(files: CheckpointFiles, destination: Path) -> tuple[str, ...]:
    weights = {stored.file for stored in files.tensors.values()}
    found = (path for path in destination.rglob("*") if path.is_file() and path not in weights and not path.name.startswith("model."))
    return tuple(sorted(path.relative_to(destination).as_posix() for path in found))
