"""The published optimiser: AdamW over three groups of weights, each with its own learning rate and its own clipped gradient norm.

    vit          the vision tower
    connector    pooling, projector, padding embedding, and the embedding rows of the image tokens
    llm          everything else

The rate rises linearly from zero over the warm-up, then falls along a cosine to a tenth. No weight decay. Adapters of a layer are in the
group of that layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model_core.spec.errors import require

GROUPS = ("llm", "connector", "vit")
BETAS = (0.9, 0.95)
EPS = 1e-6
FINAL_SHARE = 0.1
WARMUP_STEPS = 200


def group_of(name: str) -> str:
    """The group of a parameter, by its published key."""
    if name.startswith("model.vision_backbone.image_vit."):
        return "vit"
    if name.startswith("model.vision_backbone.") or name.endswith("new_embedding"):
        return "connector"
    return "llm"


def parameter_groups(parameters: Iterable[tuple[str, nn.Parameter]], rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Groups for `torch.optim`, of named parameters that require gradients: `name`, `params`, `lr` and the base rate `base_lr`.

    rates: base learning rate of each group. Raises `SpecError` for a group that has parameters and no rate.
    """
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            found.setdefault(group_of(name), []).append(parameter)
    missing = [group for group in found if group not in rates]
    require(not missing, f"rates must name a learning rate for the groups {sorted(found)}", got=dict(rates))
    return [
        {"name": group, "params": found[group], "lr": float(rates[group]), "base_lr": float(rates[group])}
        for group in GROUPS
        if group in found
    ]


def make_adamw(model: nn.Module, rates: Mapping[str, float]) -> torch.optim.AdamW:
    """The published AdamW over what of `model` requires gradients. See `parameter_groups`."""
    return torch.optim.AdamW(parameter_groups(model.named_parameters(), rates), betas=BETAS, eps=EPS, weight_decay=0.0)


def rate_at(
    step: int, base: float, *, steps: int, warmup_steps: int = WARMUP_STEPS, final_share: float = FINAL_SHARE, flat_until: int = 0
) -> float:
    """The learning rate of optimiser step `step`, the first of which is 1: base * step / warmup_steps, then a cosine to base * final_share
    at `steps`. flat_until: the step up to which the rate stays at base after the warm-up (published: not at all)."""
    require(step >= 0 and 0 <= warmup_steps < steps, "a schedule needs 0 <= warm-up < steps and a step", got=(step, warmup_steps, steps))
    if step < warmup_steps:
        return base * step / warmup_steps
    begin = max(warmup_steps, flat_until)
    done = min(max(0, step - begin) / max(1, steps - begin), 1.0)
    return base * (final_share + (1.0 - final_share) * (1.0 + math.cos(math.pi * done)) / 2.0)


def set_rates(optimizer: torch.optim.Optimizer, step: int, *, steps: int, warmup_steps: int = WARMUP_STEPS) -> dict[str, float]:
    """Give every group its rate of `step`; returns them by the group's name."""
    for group in optimizer.param_groups:
        group["lr"] = rate_at(step, group["base_lr"], steps=steps, warmup_steps=warmup_steps)
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


@torch.no_grad()
def clip_gradients(groups: Iterable[Mapping[str, Any]], max_norm: float) -> dict[str, Tensor]:
    """Bring the gradient norm of each group down to `max_norm`, in place; returns the norms before, by the group's name."""
    require(max_norm > 0, "a gradient norm to clip at must be positive", got=max_norm)
    return {group["name"]: nn.utils.clip_grad_norm_(group["params"], max_norm) for group in groups}
