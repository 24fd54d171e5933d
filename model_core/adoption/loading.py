"""Open an adopted folder: every small file compared with what was adopted, then tokenizer and processor, the weights last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from model_core.adoption.document import CONFIG, VQVAE, LanguageChoices, read_adoption
from model_core.adoption.published_files import read_config, read_processor, read_tokenizer, refuse_pickle
from model_core.contracts import CONTRACT, chosen_contract, read_contracts
from model_core.network.checkpoints.hub import load_pretrained
from model_core.network.config import MolmoActConfig
from model_core.network.images import ImageProcessor
from model_core.network.int8.stored import is_int8
from model_core.network.model import MolmoAct
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError
from model_core.tokenization.depth.codec import DepthCodec
from model_core.tokenization.published.tokenizer import PromptTokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PublishedParts:
    """What the published language of a checkpoint is made of. max_positions: tokens that the network has positions for."""

    tokenizer: PromptTokenizer
    processor: ImageProcessor
    choices: LanguageChoices
    max_positions: int

    @property
    def dtype(self) -> torch.dtype:
        """In which the weights are kept and decoded."""
        return DTYPES[self.choices.dtype]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdoptedModel:
    """An adopted folder, read whole. depth_codec: None where no codebook lies in it."""

    model: MolmoAct
    contract: PolicyContract
    parts: PublishedParts
    depth_codec: DepthCodec | None


def open_parts(folder: Path, config: MolmoActConfig, choices: LanguageChoices) -> PublishedParts:
    """Tokenizer and processor of a folder. Raises `CheckpointError` where they, or the number format that was chosen, do not fit the
    network."""
    if choices.dtype != "float32" and is_int8(config.extras):
        raise CheckpointError(
            f"{folder} has int8 weights, whose activations are float32; {choices.dtype} was chosen. Fix: adopt it with --dtype float32"
        )
    return PublishedParts(
        processor=read_processor(folder, config, published=choices.images == "published"),
        tokenizer=read_tokenizer(folder, config),
        choices=choices,
        max_positions=config.llm.max_position_embeddings,
    )


def load_adopted(folder: Path, *, device: torch.device | str = "cpu", embodiment: str = "") -> AdoptedModel:
    """Read an adopted folder. Raises `CheckpointError` naming the part that is missing, changed or does not fit; weights are read last."""
    if not (folder / CONTRACT).is_file():
        raise CheckpointError(f"{folder} was adopted, and its {CONTRACT} is missing. Fix: adopt it again with --replace")
    contract = chosen_contract(read_contracts(folder), embodiment, folder)
    adoption = read_adoption(folder).of(contract.embodiment.name)
    if contract.policy_id != adoption.policy_id:
        raise CheckpointError(
            f"the contract of {contract.embodiment.name} in {folder} is policy {contract.policy_id}, the folder was adopted as "
            f"{adoption.policy_id}; it was changed since. Fix: adopt the folder again with --replace"
        )
    adoption.check(folder)
    refuse_pickle(folder)
    config = read_config(folder)
    parts = open_parts(folder, config, adoption.language)
    codec = DepthCodec.load(folder / VQVAE) if (folder / VQVAE / CONFIG).is_file() else None
    wanted = contract.reasoning.codebook_digest
    if wanted and (codec is None or codec.digest != wanted):
        got = "none" if codec is None else codec.digest[:12]
        raise CheckpointError(f"{folder / VQVAE}: expected the depth codebook {wanted[:12]} of the contract, got {got}")
    model = load_pretrained(folder, dtype=parts.dtype, device=device)
    return AdoptedModel(model=model, contract=contract, parts=parts, depth_codec=codec)
