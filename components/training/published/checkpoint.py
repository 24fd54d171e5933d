"""A trained network of the published layout as a folder: weights, processor, tokenizer files, statistics, contract and depth codebook."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.training.published.shapes import NetworkShape
from model_core.adoption.document import PREPROCESSOR, TOKENIZERS, VQVAE, LanguageChoices
from model_core.network.checkpoints.hub import beside, save_pretrained
from model_core.network.checkpoints.published_names import CONFIG_NAMES, PREPROCESSOR_NAMES, PROCESSOR
from model_core.network.checkpoints.weights import write_json
from model_core.network.settings_file import read_settings
from model_core.port.adopt import adopt_trained
from model_core.spec.contract import PolicyContract
from model_core.tokenization.published.text_encoding import TABLE, packaged_table
from model_core.tokenization.published.tokenizer_files import tokenizer_files

if TYPE_CHECKING:
    from model_core.network.model import MolmoAct

PROCESSOR_FILE = "processor_config.json"


def write_published(
    folder: Path,
    model: MolmoAct,
    network: NetworkShape,
    contracts: Sequence[PolicyContract],
    *,
    vqvae: Path | None,
    wording: Literal["released", "finetuned"],
) -> Path:
    """Write the published layout with what the published code reads beside it, and adopt it, so that it is served like any other.

    contracts: of each embodiment that it was trained for. vqvae: folder of the codebook to copy. wording: whose sentences were learned.
    """
    names = CONFIG_NAMES if network.folder is None else {}
    model.config = replace(model.config, norm_stats=norm_stats(contracts), extras={**names, **model.config.extras})
    save_pretrained(model, folder, processor=network.processor)
    _write_settings(folder, network)
    if vqvae is not None:
        shutil.copytree(vqvae, folder / VQVAE)
    adopt_trained(folder, contracts, LanguageChoices(wording=wording))
    return folder


def _write_settings(folder: Path, network: NetworkShape) -> None:
    """Tokenizer and processor files: those of the network that the training began with, and what it lacks for the published code."""
    named: Mapping[str, Any] = PREPROCESSOR_NAMES
    if network.folder is not None:
        for name in beside(network.folder):
            shutil.copyfile(network.folder / name, folder / name)
            if name == PREPROCESSOR:  # it also names the classes that it is opened with
                named = read_settings(folder, PREPROCESSOR)
    write_json(folder / PREPROCESSOR, {**named, **network.processor.to_json()})
    own = folder / TABLE
    is_qwen2 = not own.is_file() or own.read_bytes() == packaged_table().read_bytes()
    if is_qwen2 and not any((folder / name).is_file() for name in TOKENIZERS if name != TABLE):
        for name, content in tokenizer_files().items():
            (folder / name).write_bytes(content)
    if not (folder / PROCESSOR_FILE).is_file():
        write_json(folder / PROCESSOR_FILE, PROCESSOR)


def norm_stats(contracts: Sequence[PolicyContract]) -> dict[str, Any]:
    """The statistics of contracts under the published keys, each named by its embodiment."""
    found: dict[str, Any] = {}
    for contract in contracts:
        stats = contract.stats
        action = {"q01": list(stats.q01), "q99": list(stats.q99), "mask": list(stats.mask)}
        found[contract.embodiment.name] = {"action": action, "num_transitions": stats.count}
    return found
