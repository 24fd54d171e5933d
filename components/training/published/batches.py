"""Examples as the batch of one forward pass, packed or padded as the recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from components.config.published.training import PublishedTraining

if TYPE_CHECKING:
    from model_core.network.finetuning.packing import PublishedBatch, TrainingExample


def make_batch(examples: Sequence[TrainingExample], published: PublishedTraining, pad_id: int, divisor: float) -> PublishedBatch:
    """The batch of these examples, where each answer token counts 1 / `divisor`."""
    from model_core.network.finetuning.packing import packed_batch, padded_batch

    scaled = [replace(example, weight=example.weight / divisor) for example in examples]
    return packed_batch(scaled) if published.packing else padded_batch(scaled, length=published.max_tokens, pad_id=pad_id)
