"""A trained network of the published layout as a folder: weights, processor, tokenizer files, statistics, contract and depth codebook."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.training.published.shapes import NetworkShape
from model_core.adoption.document import PREPROCESSOR, TOKENIZERS, VQVAE, LanguageChoices
from model_core.network.checkpoints.hub import beside, save_pretrained
from model_core.port.adopt import adopt_trained
from model_core.spec.contract import PolicyContract
from model_core.tokenization.published.text_encoding import TABLE, packaged_table

if TYPE_CHECKING:
    from model_core.network.model import MolmoAct


def write_published(
    folder: Path,
    model: MolmoAct,
    network: NetworkShape,
    contract: PolicyContract,
    *,
    vqvae: Path | None,
    wording: Literal["released", "finetuned"],
) -> Path:
    """Write the published layout with what the published code reads beside it, and adopt it, so that it is served like any other.

    vqvae: folder of the codebook to copy. wording: whose sentences were learned.
    """
    model.config = replace(model.config, norm_stats=norm_stats(contract))
    save_pretrained(model, folder, processor=network.processor)
    if network.folder is not None:
        for name in beside(network.folder):
            if name != PREPROCESSOR:
                shutil.copyfile(network.folder / name, folder / name)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        (folder / TABLE).write_bytes(packaged_table().read_bytes())
    if vqvae is not None:
        shutil.copytree(vqvae, folder / VQVAE)
    adopt_trained(folder, contract, contract.embodiment.name, LanguageChoices(wording=wording))
    return folder


def norm_stats(contract: PolicyContract) -> dict[str, Any]:
    """The statistics of a contract under the published keys, named by the embodiment."""
    stats = contract.stats
    action = {"q01": list(stats.q01), "q99": list(stats.q99), "mask": list(stats.mask)}
    return {contract.embodiment.name: {"action": action, "num_transitions": stats.count}}
