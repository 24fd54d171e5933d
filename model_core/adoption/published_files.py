"""What a folder in the published layout must hold before anything large is read: each look gives its value, or one clear error.

Looked at are config.json (with `norm_stats`), the processor's settings, the tokenizer, and the headers of the weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from model_core.adoption.document import CONFIG, PREPROCESSOR, TOKENIZERS, VQVAE, digest_of_file
from model_core.network.checkpoints.hub import CheckpointFiles, open_checkpoint
from model_core.network.checkpoints.shards import only_set
from model_core.network.checkpoints.weights import INDEX_FILE, PICKLE_FILE
from model_core.network.config import MolmoActConfig
from model_core.network.images import ImageProcessor
from model_core.network.int8.stored import REPORT
from model_core.spec.errors import CheckpointError, ContractError, SpecError
from model_core.spec.stats import UnnormStats
from model_core.tiny import LAYOUT_KEY
from model_core.tokenization.action_codec import NUM_BINS
from model_core.tokenization.published.actions import PublishedStats
from model_core.tokenization.published.special_ids import SpecialIds, special_ids_7b_d, special_ids_of_file
from model_core.tokenization.published.tokenizer import PromptTokenizer

# Beside the tokenizer's table: they change no id that is used here, and belong to a folder that the published code opens.
_FURTHER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "generation_config.json")
_FURTHER += ("processor_config.json", "chat_template.json", "chat_template.jinja", REPORT)
# Tables take a second to read, are opened more than once (adopted, opened, packed), and never change: by name, digest and special ids.
_READ: dict[tuple[str, str, SpecialIds], PromptTokenizer] = {}
_MOST_READ = 2


def read_config(folder: Path) -> MolmoActConfig:
    """The network. Raises `CheckpointError` where there is none, or one of the compact language."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder. Fix: give the folder of a checkpoint in the published layout")
    config = MolmoActConfig.from_json(folder)
    if LAYOUT_KEY in config.extras:
        raise CheckpointError(
            f"{folder} is a checkpoint of the compact language, which has its contract already. Fix: serve it, `actwright serve {folder}`"
        )
    if config.n_action_bins != NUM_BINS:
        raise CheckpointError(f"{folder / CONFIG}: n_action_bins is {config.n_action_bins}, the published language has {NUM_BINS} symbols")
    return config


def chosen_stats(folder: Path, config: MolmoActConfig, key: str, dims: Sequence[str], *, beside: Path | None = None) -> UnnormStats:
    """The action statistics of `norm_stats[key]` for dimensions with these names. beside: a file that holds them instead of config.json, as
    the published preprocessing writes it (dataset_statistics.json).

    Raises `CheckpointError` where the key is not there or was not chosen, and `ContractError` for another number of dimensions and for a
    mask by which the published decoding does not go (`PublishedStats.sound`).
    """
    where = f"{folder / CONFIG}: norm_stats" if beside is None else str(beside)
    entries = config.norm_stats if beside is None else _statistics_file(beside)
    known = ", ".join(entries)
    if not entries:
        raise CheckpointError(
            f"{where} is missing or empty, so that actions cannot be brought back to units. "
            "Fix: put the release's config.json there, or add the statistics of the data that the checkpoint was tuned on"
        )
    if not key:
        raise CheckpointError(f"{where} has {len(entries)} keys ({known}); none was chosen. Fix: name one with --norm-key")
    if key not in entries:
        raise CheckpointError(f"{where} has no key {key!r}; it has {known}. Fix: name one of these with --norm-key")
    action = _mapping(entries[key], "action", f"{where}[{key!r}]")
    q01, q99 = (_numbers(action, name, f"{where}[{key!r}].action") for name in ("q01", "q99"))
    if not len(q01) == len(q99) == len(dims):
        raise ContractError(
            f"{where}[{key!r}]: q01 has {len(q01)} and q99 {len(q99)} dimensions, the embodiment has {len(dims)} ({', '.join(dims)}). "
            "Fix: give the embodiment file of the robot that this key is of, or choose another key"
        )
    mask = action.get("mask")
    if mask is not None and (not isinstance(mask, list) or len(mask) != len(dims) or not all(isinstance(value, bool) for value in mask)):
        raise CheckpointError(f"{where}[{key!r}].action: expected mask as {len(dims)} truth values, got {mask!r:.80}")
    count = entries[key].get("num_transitions", 0)
    try:
        stats = PublishedStats(q01=tuple(q01), q99=tuple(q99), mask=None if mask is None else tuple(mask)).sound()
    except SpecError as error:
        raise CheckpointError(f"{where}[{key!r}]: {error}") from error
    except ContractError as error:
        raise ContractError(f"{where}[{key!r}]: {error}") from error
    return replace(stats, count=count if isinstance(count, int) else 0)


def read_processor(folder: Path, config: MolmoActConfig, *, published: bool = False) -> ImageProcessor:
    """The image processor of a folder. Raises `CheckpointError` where its settings are missing, or do not fit the network."""
    path = folder / PREPROCESSOR
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: how images are cut and scaled is not known. Fix: put the release's file there")
    try:
        processor = ImageProcessor.from_json(path)
    except SpecError as error:
        raise CheckpointError(f"{path}: {error}. Fix: put the file of this checkpoint there") from error
    for name, got, expected in (
        ("base_image_input_size", processor.base_image_input_size, config.vit.image_default_input_size),
        ("image_patch_size", processor.image_patch_size, config.vit.image_patch_size),
        ("image_pooling_h x image_pooling_w", (processor.image_pooling_h, processor.image_pooling_w), (2, 2)),
    ):
        if got != expected:
            raise CheckpointError(
                f"{path}: {name} is {got}, the network of {CONFIG} reads {expected}. Fix: put the processor's file of this checkpoint there"
            )
    return processor.as_published() if published else processor


def read_tokenizer(folder: Path, config: MolmoActConfig) -> PromptTokenizer:
    """The tokenizer of a folder. Raises as `special_ids`. A table that this process has read already is not read again."""
    special = special_ids(folder, config)
    file = next(name for name in TOKENIZERS if (folder / name).is_file())
    key = (file, digest_of_file(folder / file), special)
    if key not in _READ:
        while len(_READ) >= _MOST_READ:
            _READ.pop(next(iter(_READ)))
        _READ[key] = PromptTokenizer.load(folder, special=special)
    return _READ[key]


def special_ids(folder: Path, config: MolmoActConfig) -> SpecialIds:
    """The ids of a folder's tokenizer that are not text. Raises `CheckpointError` where there is none, or one of another vocabulary."""
    file = next((name for name in TOKENIZERS if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(
            f"{folder} holds no tokenizer; expected {', '.join(TOKENIZERS)}. Fix: copy the release's tokenizer files there"
        )
    special = special_ids_of_file(folder / file) if file == "tokenizer.json" else special_ids_7b_d()
    for name, got, expected in (
        ("rows before the image tokens", special.base_rows, config.llm.vocab_size),
        ("id of <im_patch>", special.im_patch, config.image_patch_id),
    ):
        if got != expected:
            raise CheckpointError(
                f"{folder / file} is of another vocabulary than the network: {name}: tokenizer {got}, {CONFIG} {expected}. "
                "Fix: put the tokenizer of this checkpoint there"
            )
    return special


def read_weights(folder: Path, config: MolmoActConfig) -> CheckpointFiles:
    """The headers of the weights. Raises `CheckpointError` for a missing shard, a pickle, and keys or shapes that do not fit the config."""
    refuse_pickle(folder)
    files = open_checkpoint(folder, config)
    files.check()
    return files


def refuse_pickle(folder: Path) -> None:
    """Raise `CheckpointError` for weights as a pickle."""
    if only_set(folder) == PICKLE_FILE:
        raise CheckpointError(
            f"{folder} holds {PICKLE_FILE}, which is a pickle and is not served. Fix: actwright model convert {folder} OUT --to published"
        )


def small_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each small file that an adoption holds for, the depth codebook's among them, by path."""
    codebook = sorted(path.relative_to(folder).as_posix() for path in (folder / VQVAE).glob("*") if path.is_file())
    return {name: digest_of_file(folder / name) for name in (*small_files(folder), *codebook)}


def weight_sizes(weights: CheckpointFiles) -> dict[str, int]:
    """Bytes of each file that holds weights."""
    files = {stored.file for stored in weights.tensors.values()}
    return {path.name: path.stat().st_size for path in sorted(files)}


def small_files(folder: Path) -> list[str]:
    """Names of the files that decide an answer, or that the published code opens, without the weights."""
    names = [CONFIG, PREPROCESSOR, INDEX_FILE, *TOKENIZERS, *_FURTHER]
    return [name for name in names if (folder / name).is_file()]


def _statistics_file(path: Path) -> Mapping[str, Any]:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}. Fix: name the file of statistics") from error
    if not isinstance(found, dict):
        raise CheckpointError(f'{path}: expected {{"KEY": {{"action": {{"q01": [...], "q99": [...], "mask": [...]}}}}}}, got {found!r:.60}')
    return cast(Mapping[str, Any], found)


def _mapping(values: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = values.get(key) if isinstance(values, Mapping) else None
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{where}: expected a mapping {key!r}, got {found!r:.60}")
    return cast(Mapping[str, Any], found)


def _numbers(action: Mapping[str, Any], name: str, where: str) -> list[float]:
    found = action.get(name)
    is_list = isinstance(found, list) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)
    if not is_list or not all(math.isfinite(value) for value in cast(list[float], found)):
        raise CheckpointError(f"{where}: expected {name} as a list of finite numbers, got {found!r:.80}")
    return cast(list[float], found)
