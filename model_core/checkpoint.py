"""A checkpoint is one folder whose parts belong together; it is written whole or not at all, and read only when whole.

model.safetensors   weights under the published keys, sealed with the digests of the two files below
config.json         the network (`MolmoActConfig`), with the compact layout
contract.json       what the policy promises (`PolicyContract`)
vqvae/              the depth codebook that decodes its depth tokens (where the labels had one)
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_core.network.config import MolmoActConfig
from model_core.network.model import MolmoAct
from model_core.spec.contract import PolicyContract, digest_of
from model_core.spec.errors import ActwrightError, CheckpointError
from model_core.tiny import layout_of
from model_core.tokenization.compact.layout import CompactLayout
from model_core.tokenization.depth.codec import DepthCodec

WEIGHTS, CONFIG, CONTRACT, VQVAE = "model.safetensors", "config.json", "contract.json", "vqvae"
_SEAL = "actwright_seal"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """What was read: everything a policy needs. depth_codec is None where no codebook lies in the folder."""

    model: MolmoAct
    contract: PolicyContract
    layout: CompactLayout
    depth_codec: DepthCodec | None


def write_checkpoint(
    folder: Path, *, state: Mapping[str, Tensor], config: MolmoActConfig, contract: PolicyContract, vqvae: Path | None = None
) -> Path:
    """Write `folder` (replacing one that is there): equal inputs give equal bytes. `vqvae`: folder of the codebook to copy.

    Raises `CheckpointError` when config, contract and codebook do not belong together.
    """
    layout_of(config, contract)
    if vqvae is not None:
        _check_codebook(DepthCodec.load(vqvae), contract, vqvae)
    waiting = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(waiting, ignore_errors=True)
    waiting.mkdir(parents=True)
    tensors = {name: state[name].detach().to("cpu").contiguous() for name in sorted(state)}
    # one metadata key only: safetensors writes several in random order, and equal checkpoints must have equal bytes
    save_file(tensors, waiting / WEIGHTS, metadata={_SEAL: _seal(config, contract)})
    for name, document in ((CONFIG, config.to_json()), (CONTRACT, contract.to_json())):
        (waiting / name).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if vqvae is not None:
        shutil.copytree(vqvae, waiting / VQVAE)
    _sync(waiting)
    _put_in_place(waiting, folder)
    return folder


def load_checkpoint(folder: Path, *, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint whole. Raises `CheckpointError` naming the part that is missing, torn or of another checkpoint."""
    missing = [name for name in (WEIGHTS, CONFIG, CONTRACT) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} is not a checkpoint: {', '.join(missing)} missing; expected {WEIGHTS}, {CONFIG} and {CONTRACT}")
    config, contract = MolmoActConfig.from_json(folder), _read_contract(folder)
    _check_seal(folder, config, contract)
    layout = layout_of(config, contract)
    codec = DepthCodec.load(folder / VQVAE) if (folder / VQVAE).is_dir() else None
    if codec is not None:
        _check_codebook(codec, contract, folder / VQVAE)
    model = MolmoAct(config)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} does not fit {CONFIG}: {error}") from error
    return Checkpoint(model=model.to(device).eval(), contract=contract, layout=layout, depth_codec=codec)


def _seal(config: MolmoActConfig, contract: PolicyContract) -> str:
    return f"contract:{contract.contract_id} config:{digest_of(config.to_json())}"


def _check_seal(folder: Path, config: MolmoActConfig, contract: PolicyContract) -> None:
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as opened:
            found = (opened.metadata() or {}).get(_SEAL)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} is damaged: {error}. Fix: export it again, or fetch it again") from error
    expected = _seal(config, contract)
    if found != expected:
        raise CheckpointError(
            f"{folder}: the weights were written with '{found}', beside them lies '{expected}'; they do not belong together"
        )


def _read_contract(folder: Path) -> PolicyContract:
    try:
        return PolicyContract.from_json(json.loads((folder / CONTRACT).read_text(encoding="utf-8")))
    except (ValueError, ActwrightError) as error:
        raise CheckpointError(f"{folder / CONTRACT} cannot be read: {error}") from error


def _check_codebook(codec: DepthCodec, contract: PolicyContract, where: Path) -> None:
    wanted = contract.reasoning.codebook_digest
    if wanted and codec.digest != wanted:
        raise CheckpointError(f"{where}: this depth codebook is {codec.digest[:12]}, the contract was made with {wanted[:12]}")


def _sync(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as opened:
                os.fsync(opened.fileno())


def _put_in_place(waiting: Path, folder: Path) -> None:
    """A reader sees the old folder, none, or the new one; never a mixture."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(waiting, folder)
    shutil.rmtree(old, ignore_errors=True)
