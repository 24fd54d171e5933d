"""A trained network of the published layout as a folder: weights, processor, tokenizer files, statistics, contract and depth codebook."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.training.published.shapes import NetworkShape
from model_core.adoption.document import PREPROCESSOR, VQVAE
from model_core.contracts import CONTRACT
from model_core.network.checkpoints.hub import BESIDE, save_pretrained
from model_core.network.checkpoints.weights import write_json
from model_core.spec.contract import PolicyContract

if TYPE_CHECKING:
    from model_core.network.model import MolmoAct


def write_published(folder: Path, model: MolmoAct, network: NetworkShape, contract: PolicyContract, vqvae: Path | None) -> Path:
    """Write the published layout with what the published code reads beside it, and our contract. vqvae: folder of the codebook to copy."""
    model.config = replace(model.config, norm_stats=norm_stats(contract))
    save_pretrained(model, folder, processor=network.processor)
    if network.folder is not None:
        for name in BESIDE:
            if name != CONTRACT and name != PREPROCESSOR and (network.folder / name).is_file():
                shutil.copyfile(network.folder / name, folder / name)
    if vqvae is not None:
        shutil.copytree(vqvae, folder / VQVAE)
    write_json(folder / CONTRACT, contract.to_json())
    return folder


def norm_stats(contract: PolicyContract) -> dict[str, Any]:
    """The statistics of a contract under the published keys, named by the embodiment."""
    stats = contract.stats
    action = {"q01": list(stats.q01), "q99": list(stats.q99), "mask": list(stats.mask)}
    return {contract.embodiment.name: {"action": action, "num_transitions": stats.count}}
