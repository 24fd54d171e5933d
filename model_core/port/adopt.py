"""Adopt a folder in the published layout: write beside its files the contract and the choices that serving it needs.

What the published files say is read (statistics, network, processor, tokenizer); what they don't say is taken from the embodiment and the
choices of a person, never guessed. Everything is checked, down to the headers of the weights, before anything is written.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model_core.adoption.document import ADOPTION, CONFIG, VQVAE, AdoptedEmbodiment, Adoption, LanguageChoices
from model_core.adoption.loading import PublishedParts, open_parts
from model_core.adoption.published_files import (
    chosen_stats,
    read_config,
    read_processor,
    read_weights,
    small_digests,
    special_ids,
    weight_sizes,
)
from model_core.contracts import CONTRACT, CONTRACTS, check_names
from model_core.network.checkpoints.hub import CheckpointFiles
from model_core.port.published import LEVELS, PublishedPort
from model_core.spec.contract import EmbodimentSpec, PolicyContract, ReasoningSpec
from model_core.spec.errors import CheckpointError, require
from model_core.spec.files import atomic_write
from model_core.spec.stats import UnnormStats
from model_core.tokenization.depth.codec import DepthCodec

_VAE_FILE = "vae-final.pt"
_OPENS = 1.0  # the gripper value that opens in the released data


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptionRequest:
    """What a person states about a folder.

    norm_key: which statistics of `norm_stats`. chunk_length: rows of a chunk that the checkpoint was trained to answer. execute_horizon:
    rows that a robot executes before it asks again; 0: all of them. statistics: a file that holds `norm_key`; None: config.json does.
    """

    embodiment: EmbodimentSpec
    norm_key: str
    chunk_length: int
    execute_horizon: int = 0
    statistics: Path | None = None
    language: LanguageChoices = field(default_factory=LanguageChoices)

    def __post_init__(self) -> None:
        require(1 <= self.chunk_length <= 64, "chunk_length must be 1..64", got=self.chunk_length)
        require(0 <= self.execute_horizon <= self.chunk_length, "execute_horizon must be 1..chunk_length", got=self.execute_horizon)

    @property
    def dims(self) -> list[str]:
        """Names of the action dimensions."""
        return [dim.name for dim in self.embodiment.action.dims]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What was written. notes: what a person should read, a sentence each."""

    contract: PolicyContract
    adoption: Adoption
    notes: tuple[str, ...]


def adopt(folder: Path, request: AdoptionRequest, *, replace: bool = False) -> Adopted:
    """Check `folder` and write contract.json and adoption.json into it (and the depth codebook in our format, where it has one).

    Raises `CheckpointError` for files that are missing or do not fit each other, `ContractError` for an embodiment of other dimensions,
    and `CheckpointError` where the folder has a contract already, unless `replace`.
    """
    config = read_config(folder)
    if (folder / CONTRACT).exists() and not replace:
        raise CheckpointError(
            f"{folder} has a {CONTRACT} already. Fix: serve it, adopt it for a further robot with --beside, or write another "
            "contract with --replace"
        )
    stats = chosen_stats(folder, config, request.norm_key, request.dims, beside=request.statistics)
    read_processor(folder, config)
    special_ids(folder, config)  # of another vocabulary: told before the table is read
    weights = read_weights(folder, config)
    parts = open_parts(folder, config, request.language)
    codec = _codebook(folder)
    contract = contract_of(request, stats, parts, codec)
    port = PublishedPort(parts, contract)
    if codec is not None:
        codec.save(folder / VQVAE)
    return _write(folder, port, weights, request.norm_key)


def adopt_trained(folder: Path, contracts: Sequence[PolicyContract], language: LanguageChoices) -> None:
    """Adopt a folder that a training has just written for these embodiments, each with statistics under its own name: no question is left.

    Raises `CheckpointError` where its files do not fit each other, `SpecError` for names that cannot stand beside each other.
    """
    config = read_config(folder)
    weights, parts = read_weights(folder, config), open_parts(folder, config, language)
    first, *further = [PublishedPort(parts, contract) for contract in contracts]
    adopted = _write(folder, first, weights, first.contract.embodiment.name)
    if not further:
        return
    check_names(contract.embodiment.name for contract in contracts)
    chosen = {
        contract.embodiment.name: AdoptedEmbodiment(norm_key=contract.embodiment.name, policy_id=contract.policy_id, language=language)
        for contract in contracts
    }
    for contract in contracts:
        atomic_write(folder / CONTRACTS / f"{contract.embodiment.name}.json", contract_text(contract))
    atomic_write(folder / ADOPTION, dataclasses.replace(adopted.adoption, embodiments=chosen).to_text())


def _write(folder: Path, port: PublishedPort, weights: CheckpointFiles, norm_key: str) -> Adopted:
    adoption = Adoption(
        norm_key=norm_key,
        policy_id=port.contract.policy_id,
        files=small_digests(folder),
        weights=weight_sizes(weights),
        language=port.parts.choices,
    )
    shutil.rmtree(folder / CONTRACTS, ignore_errors=True)  # of several, which it was adopted for before
    atomic_write(folder / CONTRACT, contract_text(port.contract))
    atomic_write(folder / ADOPTION, adoption.to_text())
    return Adopted(contract=port.contract, adoption=adoption, notes=tuple(notes_of(port, weights)))


def contract_of(request: AdoptionRequest, stats: UnnormStats, parts: PublishedParts, codec: DepthCodec | None) -> PolicyContract:
    """What a folder promises a robot. Raises `CheckpointError` for a depth codebook of another tokenizer."""
    body, codes = request.embodiment, parts.tokenizer.special.num_depth
    if codec is not None and codec.config.num_tokens != codes:
        raise CheckpointError(
            f"the depth codebook has {codec.config.num_tokens} codes, the tokenizer {codes}. Fix: use those of one release"
        )
    reasoning = ReasoningSpec(
        depth_codes=codes,
        codebook_digest="" if codec is None else codec.digest,
        trace_camera=body.cameras[0].name,
        spelling="published",
        levels=LEVELS,
    )
    return PolicyContract(
        embodiment=body,
        stats=stats,
        reasoning=reasoning,
        chunk_length=request.chunk_length,
        execute_horizon=request.execute_horizon or request.chunk_length,
    )


def _codebook(folder: Path) -> DepthCodec | None:
    """The depth codebook of a folder: ours, or the published file."""
    if (folder / VQVAE / CONFIG).is_file():
        return DepthCodec.load(folder / VQVAE)
    return DepthCodec.load_published(folder / _VAE_FILE) if (folder / _VAE_FILE).is_file() else None


def contract_text(contract: PolicyContract) -> str:
    """The content of a contract's file."""
    return json.dumps(contract.to_json(), indent=1, sort_keys=True) + "\n"


def notes_of(port: PublishedPort, weights: CheckpointFiles) -> list[str]:
    """What a person should read of an adoption, a sentence each."""
    contract, choices = port.contract, port.parts.choices
    body, stats = contract.embodiment, contract.stats
    order = ", ".join(camera.name for camera in body.cameras)
    notes = [f"cameras are shown in this order: {order}; traces are drawn on {body.cameras[0].name}"]
    if body.gripper_dim and body.gripper_open != _OPENS:
        notes.append(f"gripper: {body.gripper_open:g} opens, as the embodiment says; in the released data 1 opens")
    low_A, high_A = stats.unnormalize(np.full(len(stats), -1.0)), stats.unnormalize(np.full(len(stats), 1.0))
    for dim, low, high in zip(body.action.dims, low_A.tolist(), high_A.tolist(), strict=True):
        if low < dim.low - 1e-9 or high > dim.high + 1e-9:
            notes.append(
                f"action {dim.name}: answers reach {low:.4g}..{high:.4g} {dim.unit}, the embodiment allows {dim.low:g}..{dim.high:g}; "
                "an answer beyond is refused"
            )
    if contract.reasoning.codebook_digest == "":
        notes.append(f"no depth codebook ({_VAE_FILE} or {VQVAE}/): depth tokens are answered, and cannot be drawn as distances")
    stored = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.tensors.values()})
    notes.append(
        f"wording {choices.wording}, decoding {choices.decoding}, images {choices.images}, steering {choices.steering}, "
        f"weights {choices.dtype} (stored as {', '.join(stored)})"
    )
    return notes
