"""Which network, processor and tokenizer `train.network` means, before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from components.config.published.networks import PRESETS, TINY_PUBLISHED, is_published, may_be_hub_id
from components.config.train_config import TrainConfig, start_folder
from model_core.adoption.document import PREPROCESSOR, TOKENIZERS
from model_core.adoption.published_files import read_config, read_processor, read_tokenizer
from model_core.network.checkpoints.hub import open_checkpoint
from model_core.network.config import MolmoActConfig
from model_core.network.images import ImageProcessor
from model_core.network.int8.stored import refuse_int8
from model_core.network.presets import SmallSize, molmoact_7b_d, molmoact_7b_o, small_processor, tiny_published
from model_core.spec.errors import CheckpointError, SpecError
from model_core.tokenization.published.special_ids import special_ids_7b_d, special_ids_7b_o
from model_core.tokenization.published.tokenizer import PromptTokenizer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkShape:
    """A network of the published layout without weights. folder: where its weights lie; None: nowhere, or they begin at random."""

    config: MolmoActConfig
    processor: ImageProcessor
    tokenizer: PromptTokenizer
    folder: Path | None = None
    preset: str = ""


def network_shape(train: TrainConfig, *, fetch: bool = False) -> NetworkShape:
    """The shape that `train.network` names. fetch: a hub id that is not on this machine is downloaded.

    Raises `SpecError` for the tiny network, and `CheckpointError` for a folder or hub id that is not there.
    """
    network = train.network
    if not is_published(network):
        raise SpecError(
            f"expected a network of the published layout, got {network!r}. Fix: name a preset ({', '.join(PRESETS)}) or a folder"
        )
    if isinstance(network, Mapping) or network in PRESETS:
        return _preset(network)
    folder = _folder(network, train.published.revision, fetch=fetch)
    config = read_config(folder)
    described = (folder / PREPROCESSOR).is_file()
    processor = read_processor(folder, config) if described else ImageProcessor.for_network(config)
    # without a tokenizer file: the packaged table, where it has the rows of the network
    is_bare = not any((folder / name).is_file() for name in TOKENIZERS) and config.llm.vocab_size == special_ids_7b_d().base_rows
    tokenizer = PromptTokenizer.load(folder) if is_bare else read_tokenizer(folder, config)
    return NetworkShape(config=config, processor=processor, tokenizer=tokenizer, folder=folder)


def check_network_folder(train: TrainConfig) -> None:
    """Look at the folder that `train.network` names, before any work: config, tokenizer, processor, and the headers of the weights.

    Nothing for another network, a preset, or a hub id that is no folder here. Raises `CheckpointError` for what is missing or of another
    network, and for int8 weights.
    """
    network = train.network
    if not isinstance(network, str) or network in PRESETS or not is_published(network):
        return
    if not start_folder(network).is_dir() and may_be_hub_id(network):
        return
    shape = network_shape(train)
    assert shape.folder is not None
    refuse_int8(shape.config.extras, f"train.network {shape.folder}", "trained")
    open_checkpoint(shape.folder, shape.config).check()


def _preset(network: str | Mapping[str, Any]) -> NetworkShape:
    name = network if isinstance(network, str) else str(network["preset"])
    if name == TINY_PUBLISHED:
        chosen = {} if isinstance(network, str) else {key: value for key, value in network.items() if key != "preset"}
        config = tiny_published(SmallSize(**chosen))
        return NetworkShape(config=config, processor=small_processor(config), tokenizer=_tokenizer(False), preset=name)
    config = molmoact_7b_d() if name == "molmoact-7b-d" else molmoact_7b_o()
    return NetworkShape(
        config=config, processor=ImageProcessor.for_network(config), tokenizer=_tokenizer(name == "molmoact-7b-o"), preset=name
    )


@lru_cache(maxsize=2)
def _tokenizer(olmo: bool) -> PromptTokenizer:
    """The packaged Qwen2 table. 7B-O's own lies in its folder: without one, its sentences are counted with this table."""
    return PromptTokenizer.load(special=special_ids_7b_o() if olmo else None)


def _folder(network: str, revision: str, *, fetch: bool) -> Path:
    """The folder of a checkpoint that is named by its place or its hub id."""
    from model_core.network.checkpoints.hub import resolve

    folder = start_folder(network)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"train.network {folder}: expected a checkpoint of the published layout, config.json is missing")
        return folder
    if not may_be_hub_id(network):
        raise CheckpointError(f"train.network: no folder at {folder}. Fix: name the folder of a checkpoint in the published layout")
    if not revision:
        raise CheckpointError(
            f"train.network {network} is no folder here, so it is a hub id, and those need a commit: weights must not change under their "
            "name. Fix: --set train.published.revision=COMMIT (its page lists them)"
        )
    return resolve(network, revision=revision, fetch=fetch)
