"""Which pieces of the training state a process holds, at any ZeRO stage: views into the tensors that DeepSpeed and Adam work on.

A piece is a range of one parameter, flattened. Ranges of parameters mean the same for any number of processes and at any stage, so what
N processes wrote, M others read (`state_files`). DeepSpeed's own ways to another number of processes are not taken: a plain checkpoint
refuses it, and its universal one goes to no other stage, leaves buffers and frozen weights as they were built, and at stage 3 gives all
groups the rate and decay of the first (docs/library_facts.md).

Stage 0 has whole parameters with Adam's state beside each. Stages 1 and 2 keep one flat float32 tensor a group and process, in which a
parameter may begin or end; stage 3 the same share of every parameter, padded, in flat tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHT, STEP = "weight", "step"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """Elements `start` to `start` + length of the flattened tensor `name`, which has `size` elements.

    values: "weight" and, of trained ones, Adam's moments: views of the live tensors, (length,) or, where it is whole, of its own shape.
    step: Adam's counter of steps, shared by all pieces of one flat tensor; none of buffers and frozen weights.
    """

    name: str
    start: int
    size: int
    values: Mapping[str, Tensor]
    step: Tensor | None = None


def share(size: int, rank: int, world_size: int) -> tuple[int, int]:
    """(first, length) of this process's part of `size` elements: equal shares in order, the last one may be short or empty."""
    each = -(-size // world_size)
    first = min(size, rank * each)
    return first, min(size, first + each) - first


def trained_pieces(named: Mapping[str, nn.Parameter], optimizer: Any, *, stage: int) -> Iterator[Piece]:
    """What this process updates of the trained parameters: whole ones at stage 0, its partition at the others.

    named: trained parameters by name. optimizer: DeepSpeed's. Adam's state is made where no step was done yet.
    """
    if stage == 0:
        for name, parameter in named.items():
            state = adam_state(optimizer, parameter)
            values = {WEIGHT: parameter.detach(), **{key: state[key] for key in MOMENTS}}
            yield Piece(name=name, start=0, size=parameter.numel(), values=values, step=state[STEP])
        return
    places = _places_stage_3 if stage == 3 else _places_stage_2
    for name, parameter in named.items():
        for flat, offset, start, length, size in places(optimizer, parameter):
            state = adam_state(optimizer.optimizer, flat)
            values = {WEIGHT: flat.detach(), **{key: state[key] for key in MOMENTS}}
            cut = {key: value.narrow(0, offset, length) for key, value in values.items()}
            yield Piece(name=name, start=start, size=size, values=cut, step=state[STEP])


def publish(optimizer: Any, *, stage: int) -> None:
    """After weights were set in the optimiser's partitions: let the parameters that forward passes use be equal. All processes call it."""
    if stage in (1, 2):
        optimizer.update_lp_params()
    if stage == 3:
        for number, flat in enumerate(optimizer.fp32_partitioned_groups_flat):
            optimizer.fp16_partitioned_groups_flat[number].data.copy_(flat.data)
            optimizer._unflatten_partitioned_parameters(number)
        if optimizer.persistent_parameters:  # small ones are kept whole: they are gathered again
            optimizer.persistent_parameters[0].partition(optimizer.persistent_parameters)
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)


def adam_state(optimizer: Any, tensor: Tensor) -> dict[str, Tensor]:
    """Adam's state of a tensor, made as Adam makes it where it is missing. A counter of its own: tensors never share one."""
    import torch

    state: dict[str, Tensor] = optimizer.state[tensor]
    if not state:
        state[STEP] = torch.zeros((), dtype=torch.float32, device=tensor.device)
        state |= {key: torch.zeros_like(tensor, memory_format=torch.preserve_format) for key in MOMENTS}
    return state


def fixed_tensors(module: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, Tensor]]:
    """(frozen parameters, buffers that a state dict holds), by name: what no step of the optimiser changes."""
    held = module.state_dict(keep_vars=True)
    frozen = {name: parameter for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return frozen, {name: buffer for name, buffer in module.named_buffers() if name in held}


def fixed_piece(name: str, tensor: Tensor) -> Piece:
    """A frozen parameter or a buffer, whole."""
    return Piece(name=name, start=0, size=tensor.numel(), values={WEIGHT: tensor.detach()})


def narrowed(piece: Piece, rank: int, world_size: int) -> Piece:
    """This process's share of a piece that every process holds whole."""
    first, length = share(piece.size, rank, world_size)
    cut = {key: value.reshape(-1).narrow(0, first, length) for key, value in piece.values.items()}
    return Piece(name=piece.name, start=first, size=piece.size, values=cut, step=piece.step)


def _places_stage_2(optimizer: Any, parameter: Any) -> Iterator[tuple[Tensor, int, int, int, int]]:
    """(flat tensor, offset in it, start in the parameter, length, the parameter's size) here, if any of it is here."""
    place = parameter._hp_mapping
    if place is not None:
        flat = optimizer.single_partition_of_fp32_groups[place.param_group_index]
        here, there = place.lp_fragment_address, place.hp_fragment_address
        yield flat, int(there.start), int(here.start), int(here.numel), parameter.numel()


def _places_stage_3(optimizer: Any, parameter: Any) -> Iterator[tuple[Tensor, int, int, int, int]]:
    number, offset, padded = optimizer.grad_position[optimizer.get_param_id(parameter)]
    start = padded * optimizer._get_param_partition_rank(parameter)
    length = min(padded, parameter.ds_numel - start)
    if length > 0:
        yield optimizer.fp32_partitioned_groups_flat[number], offset, start, length, parameter.ds_numel
