"""Loss of held-out rows of web sources, answers given: of each by itself, beside the robot's losses and in none of their means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from components.config.published.training import WEB
from components.config.train_config import TrainConfig
from components.training.published.batches import make_batch
from components.training.published.validation import LossOf, spread
from components.training.published.web.examples import WebExamples

if TYPE_CHECKING:
    from model_core.network.model import MolmoAct


def web_values(module: MolmoAct, sources: Sequence[WebExamples], config: TrainConfig, loss_of: LossOf) -> dict[str, float]:
    """{"validation_loss/web/<source>", "validation_accuracy/web/<source>"}: means over answer tokens, each by its weight. Evenly spaced
    rows; a source that holds none out is left out."""
    found: dict[str, float] = {}
    for one in sources:
        places, name = spread(np.arange(len(one)), config.published.validation_samples), f"{WEB}/{one.source.name}"
        tokens = sum(one.answer_tokens(place) for place in places)
        sums = np.zeros(2)
        for begin in range(0, len(places), config.micro_batch):
            examples = [one.example(place) for place in places[begin : begin + config.micro_batch]]
            _, parts = loss_of(module, make_batch(examples, config.published, pad_id=0, divisor=tokens))
            sums += [float(parts["loss_ce"]), float(parts["accuracy"])]
        if places:
            found |= {f"validation_loss/{name}": float(sums[0]), f"validation_accuracy/{name}": float(sums[1])}
    return found
