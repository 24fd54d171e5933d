"""A checkpoint is one folder whose parts belong together; it is written whole or not at all, and read only when whole.

model.safetensors   weights under the published keys, sealed with the digests of the two files below
config.json         the network (`MolmoActConfig`), with the compact layout
contract.json       what the policy promises (`PolicyContract`)
contracts/          what it promises to each embodiment, where its network acts for several; contract.json is the first of them
vqvae/              the depth codebook that decodes its depth tokens (where the labels had one)

A checkpoint of several embodiments is read as the ordinary network of one of them (`model_core.embodiments`). A folder in the published
layout is read as it is, once it was adopted (`model_core.adoption`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_core.adoption.document import CONFIG, VQVAE, is_adopted, not_adopted
from model_core.adoption.loading import PublishedParts, load_adopted
from model_core.adoption.one_embodiment import copy_adopted
from model_core.contracts import CONTRACT, CONTRACTS, check_names, chosen_contract, read_contracts
from model_core.embodiments import is_joint, joint_of, part_of
from model_core.network.checkpoints.layout import type_problems
from model_core.network.config import MolmoActConfig
from model_core.network.model import MolmoAct
from model_core.spec.contract import PolicyContract, digest_of
from model_core.spec.errors import CheckpointError
from model_core.tiny import layout_of
from model_core.tokenization.compact.layout import CompactLayout
from model_core.tokenization.depth.codec import DepthCodec

__all__ = ["CONFIG", "CONTRACT", "VQVAE", "WEIGHTS", "Checkpoint", "load_checkpoint", "write_checkpoint", "write_part"]

WEIGHTS = "model.safetensors"
_SEAL = "actwright_seal"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """What was read: everything a policy needs, as `model_core.port` asks for it.

    language: of a compact checkpoint its layout, of a published one its tokenizer, image processor and choices. depth_codec: None where no
    codebook lies in the folder.
    """

    model: MolmoAct
    contract: PolicyContract
    language: CompactLayout | PublishedParts
    depth_codec: DepthCodec | None

    @property
    def layout(self) -> CompactLayout:
        """The layout of the compact language. Raises `CheckpointError` for a checkpoint of the published one."""
        if isinstance(self.language, CompactLayout):
            return self.language
        raise CheckpointError("this checkpoint answers in the published language; expected one of the compact language, with a layout")


def write_checkpoint(
    folder: Path,
    *,
    state: Mapping[str, Tensor],
    config: MolmoActConfig,
    contract: PolicyContract,
    vqvae: Path | None = None,
    further: Sequence[PolicyContract] = (),
) -> Path:
    """Write `folder` (replacing one that is there): equal inputs give equal bytes. `vqvae`: folder of the codebook to copy.

    further: contracts of the other embodiments that the network acts for. Raises `CheckpointError` when config, contracts and codebook do
    not belong together.
    """
    contracts = {one.embodiment.name: one for one in (contract, *further)}
    _check_fit(config, contracts)
    if vqvae is not None:
        _check_codebook(DepthCodec.load(vqvae), contract, vqvae)
    waiting = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(waiting, ignore_errors=True)
    waiting.mkdir(parents=True)
    tensors = {name: state[name].detach().to("cpu").contiguous() for name in sorted(state)}
    # one metadata key only: safetensors writes several in random order, and equal checkpoints must have equal bytes
    save_file(tensors, waiting / WEIGHTS, metadata={_SEAL: _seal(config, contracts)})
    documents = {CONFIG: config.to_json(), CONTRACT: contract.to_json()}
    if further:
        (waiting / CONTRACTS).mkdir()
        documents |= {f"{CONTRACTS}/{name}.json": one.to_json() for name, one in contracts.items()}
    for name, document in documents.items():
        (waiting / name).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if vqvae is not None:
        shutil.copytree(vqvae, waiting / VQVAE)
    _sync(waiting)
    _put_in_place(waiting, folder)
    return folder


def load_checkpoint(folder: Path, *, device: torch.device | str = "cpu", embodiment: str = "") -> Checkpoint:
    """Read a checkpoint whole. embodiment: which of several is read. Raises `CheckpointError` naming the part that is missing, torn or of
    another checkpoint, and where one of several embodiments must be named.
    """
    if is_adopted(folder):
        found = load_adopted(folder, device=device, embodiment=embodiment)
        return Checkpoint(model=found.model, contract=found.contract, language=found.parts, depth_codec=found.depth_codec)
    if advice := not_adopted(folder):
        raise CheckpointError(f"{folder}: {advice}")
    missing = [name for name in (WEIGHTS, CONFIG, CONTRACT) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} is not a checkpoint: {', '.join(missing)} missing; expected {WEIGHTS}, {CONFIG} and {CONTRACT}")
    config, contracts = MolmoActConfig.from_json(folder), read_contracts(folder)
    _check_seal(folder, config, contracts)
    _check_fit(config, contracts)
    contract = chosen_contract(contracts, embodiment, folder)
    codec = DepthCodec.load(folder / VQVAE) if (folder / VQVAE).is_dir() else None
    if codec is not None:
        _check_codebook(codec, contract, folder / VQVAE)
    try:
        state = load_file(folder / WEIGHTS)
        if is_joint(config):
            MolmoAct(config).load_state_dict(state)  # whole before anything is taken out of it
            config, state = part_of(config, state, joint_of(config, contracts), contract)
        model = MolmoAct(config)
        if wrong := type_problems({name: value.dtype for name, value in state.items()}, config):
            raise CheckpointError(f"{folder / WEIGHTS} does not fit {CONFIG}: " + "; ".join(wrong))
        model.load_state_dict(state)
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} does not fit {CONFIG}: {error}") from error
    return Checkpoint(model=model.to(device).eval(), contract=contract, language=layout_of(config, contract), depth_codec=codec)


def write_part(checkpoint: Path, embodiment: str, folder: Path) -> Path:
    """Write the ordinary checkpoint of one embodiment of several into `folder`, which an earlier one may lie in. Raises as
    `load_checkpoint`."""
    if is_adopted(checkpoint):
        shutil.rmtree(folder, ignore_errors=True)
        return copy_adopted(checkpoint, embodiment, folder)
    part = load_checkpoint(checkpoint, embodiment=embodiment)
    vqvae = checkpoint / VQVAE
    return write_checkpoint(
        folder,
        state=part.model.state_dict(),
        config=part.model.config,
        contract=part.contract,
        vqvae=vqvae if vqvae.is_dir() else None,
    )


def _check_fit(config: MolmoActConfig, contracts: Mapping[str, PolicyContract]) -> None:
    """Raise `CheckpointError` where the network is not the one that its contracts imply."""
    if is_joint(config):
        check_names(contracts)
        joint_of(config, contracts)
    elif len(contracts) == 1:
        layout_of(config, next(iter(contracts.values())))
    else:
        raise CheckpointError(f"weights of one embodiment lie beside contracts of {', '.join(contracts)}")


def _seal(config: MolmoActConfig, contracts: Mapping[str, PolicyContract]) -> str:
    promised = "+".join(contracts[name].contract_id for name in sorted(contracts))
    return f"contract:{promised} config:{digest_of(config.to_json())}"


def _check_seal(folder: Path, config: MolmoActConfig, contracts: Mapping[str, PolicyContract]) -> None:
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as opened:
            found = (opened.metadata() or {}).get(_SEAL)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} is damaged: {error}. Fix: export it again, or fetch it again") from error
    expected = _seal(config, contracts)
    if found != expected:
        raise CheckpointError(
            f"{folder}: the weights were written with '{found}', beside them lies '{expected}'; they do not belong together"
        )


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
