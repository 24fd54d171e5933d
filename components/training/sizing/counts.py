"""Parameters of a network by part, and of the adapters that would sit on it. No weight is made."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache

from model_core.network.checkpoints.layout import Shapes, expected_shapes
from model_core.network.config import MolmoActConfig
from model_core.network.finetuning.optimizer import group_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCounts:
    """Numbers of parameters. decoder, connector, vision: all of each part. trained: what an optimiser gets. adapters: of them, those
    that are added. layers: those that every token passes. block: of the largest unit that is gathered at once (a decoder block, an
    embedding table or the head)."""

    decoder: int
    connector: int
    vision: int
    trained: int
    adapters: int
    layers: int
    block: int

    @property
    def total(self) -> int:
        """All parameters of the network, without adapters."""
        return self.decoder + self.connector + self.vision

    @property
    def held(self) -> int:
        """All parameters that are in memory."""
        return self.total + self.adapters


def shapes_of(config: MolmoActConfig) -> Shapes:
    """Every key of a network of this configuration with its shape."""
    return _shapes(json.dumps(config.to_json(), sort_keys=True))


@lru_cache(maxsize=4)
def _shapes(document: str) -> Shapes:
    return expected_shapes(MolmoActConfig.from_json(json.loads(document)))


def parameter_counts(config: MolmoActConfig, lora_rank: int = 0, *, frozen_tower: bool = False) -> ParameterCounts:
    """Counts of a network of this configuration. lora_rank: of adapters on every linear layer; 0: all weights are trained. frozen_tower:
    nothing of the vision tower is trained."""
    shapes = shapes_of(config)
    parts = {"llm": 0, "connector": 0, "vit": 0}
    layers = adapters = 0
    first_block = whole = 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        parts[group_of(name)] += size
        if "transformer.blocks." in name:
            layers += size
            first_block += size if "transformer.blocks.0." in name else 0
        elif group_of(name) == "llm":
            whole = max(whole, size)
        if is_linear(name, shape) and not (frozen_tower and group_of(name) == "vit"):
            adapters += lora_rank * sum(shape)
    total = sum(parts.values())
    return ParameterCounts(
        decoder=parts["llm"],
        connector=parts["connector"],
        vision=parts["vit"],
        trained=adapters if lora_rank else total - (parts["vit"] if frozen_tower else 0),
        adapters=adapters,
        layers=layers,
        block=max(first_block, whole),
    )


def is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a key is the weight of a linear layer, which an adapter would sit on: embeddings and positions end otherwise."""
    return name.endswith(".weight") and len(shape) == 2
