"""What is done to gradients where DeepSpeed does not do it as recipes ask: clipped, as a whole at stage 0 and by part at all; dropped.

DeepSpeed's own clipping is over all groups together and tells no norm at stage 0. By part each part's norm is brought to at most
`train.gradient_clip`, as the published optimiser does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from components.training.published.parts import TrainedPart


def clip_whole(parameters: Sequence[nn.Parameter], most: float) -> Tensor:
    """Bring the norm of all gradients together to at most `most` (0: only measure it), in place; returns the norm before. Stage 0."""
    import torch

    return torch.nn.utils.clip_grad_norm_(parameters, most if most > 0 else float("inf"))


def clip_by_part(parts: Sequence[TrainedPart], optimizer: Any, *, most: float, stage: int) -> Tensor:
    """Bring each part's gradient norm to at most `most` (0: only measure it), in place; returns the norm of all before.

    Called between the last backward pass of a step and the step itself, by all processes, with DeepSpeed's own clipping off.
    """
    import torch

    most = most if most > 0 else float("inf")
    if stage == 0:
        return torch.stack([torch.nn.utils.clip_grad_norm_(part.parameters, most) for part in parts]).norm()
    lists = optimizer.fp16_groups if stage == 3 else optimizer.params_in_partition
    owner = {id(parameter): number for number, part in enumerate(parts) for parameter in part.parameters}
    whole = optimizer.fp16_groups if stage == 3 else optimizer.bit16_groups  # a partition may hold none of a group's parameters
    part_of = [owner[id(group[0])] for group in whole]
    squares = torch.zeros(len(parts), device=optimizer.device)
    for number, part in enumerate(part_of):
        squares[part] += optimizer.get_grad_norm_direct(optimizer.averaged_gradients[number], lists[number]).square()
    factors = (most / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for number, part in enumerate(part_of):
        for gradient in optimizer.averaged_gradients[number]:
            gradient.mul_(factors[part])
    return squares.sum().sqrt()


def drop_gradients(parameters: Iterable[nn.Parameter], optimizer: Any, *, stage: int) -> None:
    """Make the step that follows one that changes nothing, neither weights nor Adam's moments and counters.

    At stage 0 Adam passes over parameters without gradient. At the others DeepSpeed leaves out a step whose gradient norm is no number.
    """
    if stage == 0:
        for parameter in parameters:
            parameter.grad = None
        return
    for gradients in optimizer.averaged_gradients.values():
        for gradient in gradients:
            gradient.fill_(float("nan"))
