"""Weights of one checkpoint in a network of another vocabulary: rows go by what they stand for, not by their place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.config.train_config import start_folder
from components.training.start.comparison import check_contract
from model_core.contracts import read_contracts
from model_core.network.int8.stored import refuse_int8
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError
from model_core.tokenization.compact.layout import CompactLayout
from model_core.tokenization.compact.vocabulary import id_sources

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


def weights_of_start(
    init_from: str, contract: PolicyContract, layout: CompactLayout, fresh: Mapping[str, Tensor], *, only_adapters: bool
) -> dict[str, Tensor]:
    """The state of a network of `layout` that goes on from the checkpoint in `init_from`.

    A word's row is the row of the same word there; words that the checkpoint does not know keep their `fresh` row. Raises
    `CheckpointError` for a checkpoint of something else, and for new words where only adapters are trained: their rows never would be.
    """
    from model_core.checkpoint import load_checkpoint
    from model_core.embodiments import SLOTS

    folder = start_folder(init_from)
    # of a checkpoint of several embodiments the part of this one; of any other the whole, whose contract is compared below
    start = load_checkpoint(folder, embodiment=contract.embodiment.name if len(read_contracts(folder)) > 1 else "")
    refuse_int8(start.model.config.extras, f"train.init_from {folder}", "trained")
    check_contract(folder, start.contract, contract)
    new_words = sorted(set(layout.vocabulary.words) - set(start.layout.vocabulary.words))
    if new_words and only_adapters:
        raise CheckpointError(
            f"train.init_from {folder} does not know the words {new_words}, and train.lora_rank trains no rows of words: they would stay "
            "random. Fix: train all weights (lora_rank 0), or use sentences of words that the checkpoint knows"
        )
    if new_words:
        logger.info("start.new_words %s", ", ".join(new_words))
    before = start.model.state_dict()
    ids, slots = id_sources(start.layout.vocabulary, layout.vocabulary), slot_sources(start.layout, layout)
    state = dict(before)
    state |= _rows(fresh, before, ids)
    state[SLOTS] = taken(fresh[SLOTS], before[SLOTS], slots)
    wrong = [
        name
        for name in sorted(fresh.keys() | state.keys())
        if name not in fresh or name not in state or fresh[name].shape != state[name].shape
    ]
    if wrong:
        raise CheckpointError(f"train.init_from {folder}: weights of another network: {wrong[:6]}. Fix: set train.network as it was there")
    return state


def slot_sources(before: CompactLayout, after: CompactLayout) -> NDArray[np.int64]:
    """For every slot of `after` the slot of the same field and place in `before`, -1 where an instruction may now be longer."""
    sources_S = np.full(after.num_slots, -1, np.int64)
    for field, slots in after.slots.items():
        old = before.slots[field]
        count = min(len(old), len(slots))
        sources_S[slots.start : slots.start + count] = np.arange(old.start, old.start + count)
    return sources_S


def _rows(fresh: Mapping[str, Tensor], before: Mapping[str, Tensor], ids_V: NDArray[np.int64]) -> dict[str, Tensor]:
    import torch

    from model_core.embodiments import EMBEDDING, HEAD, MARKS

    base = len(fresh[EMBEDDING])
    table = torch.cat([before[EMBEDDING], before[MARKS]])
    rows = taken(torch.cat([fresh[EMBEDDING], fresh[MARKS]]), table, ids_V)
    head = taken(fresh[HEAD], before[HEAD], ids_V[: len(fresh[HEAD])])
    return {EMBEDDING: rows[:base], MARKS: rows[base:], HEAD: head}


def taken(fresh: Tensor, before: Tensor, sources: NDArray[np.int64]) -> Tensor:
    """Rows of `before` by their sources, and fresh ones where there is none (-1)."""
    import torch

    rows, known = fresh.detach().clone(), sources >= 0
    rows[torch.from_numpy(known)] = before[torch.from_numpy(sources[known])]
    return rows
