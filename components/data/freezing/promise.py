"""What the checkpoints of a frozen data set will promise: statistics of the training split, words, levels, as one contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.config.data_config import FreezeConfig
from components.data.action_dims import action_notes, check_passed_through, gripper_mask
from components.data.labelling.reasoning import reasoning_of
from components.data.sources.interface import EpisodeSource
from components.data.sources.open import instructions_of
from model_core.contracts import read_contracts
from model_core.spec.contract import EmbodimentSpec, PolicyContract
from model_core.spec.episode import Episode
from model_core.spec.errors import ActwrightError, DatasetError
from model_core.spec.stats import UnnormStats
from model_core.tokenization.compact.vocabulary import closed_words


def make_contract(
    cfg: FreezeConfig, source: EpisodeSource, episodes: Sequence[Episode], training: Sequence[Episode], labels: Path
) -> tuple[PolicyContract, list[str]]:
    """The contract, and what a person should know of its statistics.

    episodes: all that are frozen, without images; training: those of the training split. Raises `DatasetError` for a mask of another
    length, a dimension that is passed through and does not lie in -1..1, and statistics of other actions; `CheckpointError` for a damaged
    depth codebook.
    """
    embodiment = source.embodiment
    mask = cfg.mask or tuple(bool(is_other) for is_other in ~gripper_mask(embodiment))
    if len(mask) != len(embodiment.action):
        raise DatasetError(
            f"freeze.mask has {len(mask)} values, the embodiment {embodiment.name!r} has {len(embodiment.action)} action dimensions; "
            "leave it empty to normalise every dimension but the gripper"
        )
    check_passed_through(episodes, mask, embodiment)
    contract = PolicyContract(
        embodiment=embodiment,
        stats=_kept_statistics(Path(cfg.statistics), embodiment, mask)
        if cfg.statistics
        else UnnormStats.of(np.concatenate([episode.actions_TA for episode in training]), mask),
        reasoning=reasoning_of(labels, embodiment),
        chunk_length=cfg.chunk_length,
        execute_horizon=cfg.execute_horizon,
        words=tuple(cfg.words) or closed_words(instructions_of(source)),
        dataset_version=source.digest,
    )
    return contract, action_notes(training, contract.stats, embodiment)


def _kept_statistics(folder: Path, embodiment: EmbodimentSpec, mask: tuple[bool, ...]) -> UnnormStats:
    """The statistics of an earlier checkpoint, whose dimensions must be these ones; of several embodiments those of this name."""
    try:
        contracts = read_contracts(folder)
    except ActwrightError as error:
        raise DatasetError(f"freeze.statistics: {error}. Fix: name the folder of a whole checkpoint") from error
    earlier = contracts.get(embodiment.name, next(iter(contracts.values())))
    dims = [(dim.name, dim.unit, mode) for dim, mode in zip(embodiment.action.dims, embodiment.action.modes, strict=True)]
    theirs = earlier.embodiment.action
    kept = [(dim.name, dim.unit, mode) for dim, mode in zip(theirs.dims, theirs.modes, strict=True)]
    if dims != kept or mask != earlier.stats.mask:
        raise DatasetError(
            f"freeze.statistics {folder}: expected statistics of {dims} with mask {mask}, got {kept} with mask {earlier.stats.mask}. "
            "Fix: name a checkpoint of the same actions, or leave freeze.statistics empty"
        )
    return earlier.stats
