"""What of a published network is trained, part by part, at which rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.config.train_config import TrainConfig
from model_core.network.finetuning.optimizer import GROUPS, parameter_groups

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedPart:
    """Parameters that have a learning rate of their own, and that are clipped together. rate: relative to `train.learning_rate`."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    rate: float = 1.0


def trained_parts(model: nn.Module, config: TrainConfig) -> Sequence[TrainedPart]:
    """The parameters that require gradients, by part; a part without any is left out."""
    rates = {part: getattr(config.published.learning_rates, part) or config.learning_rate for part in GROUPS}
    return [
        TrainedPart(name=group["name"], parameters=tuple(group["params"]), rate=group["base_lr"] / config.learning_rate)
        for group in parameter_groups(model.named_parameters(), rates)
    ]


def trained_counts(parts: Sequence[TrainedPart], module: nn.Module) -> dict[str, int]:
    """How many parameters each part trains, and under "all" how many the network has; nothing for a network without parts."""
    if not parts:
        return {}
    counts = {part.name: sum(map(_size, part.parameters)) for part in parts}
    return {**counts, "all": sum(map(_size, module.parameters()))}


def _size(parameter: nn.Parameter) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel()))  # ZeRO stage 3 leaves an empty tensor in its place
