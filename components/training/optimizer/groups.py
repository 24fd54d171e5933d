"""The optimiser's groups: which parameters decay, and at which rate each part of a model learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from components.training.published.parts import TrainedPart


def groups_of(module: nn.Module, parts: Sequence[TrainedPart], weight_decay: float) -> tuple[list[dict[str, Any]], list[float]]:
    """The optimiser's groups and the rate of each relative to `train.learning_rate`; without parts all parameters share one."""
    found: list[tuple[dict[str, Any], float]] = []
    for part in parts:
        found += [(group, part.rate) for group in decayed(part.parameters, weight_decay)]
    found = found or [(group, 1.0) for group in parameter_groups(module, weight_decay)]
    return [group for group, _ in found], [rate for _, rate in found]


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay for matrices, none for biases, norms and scalars; frozen parameters are left out."""
    return decayed([p for p in module.parameters() if p.requires_grad], weight_decay)


def decayed(trained: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """One group with decay for the matrices among these, one without for the rest."""
    matrices, vectors = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
