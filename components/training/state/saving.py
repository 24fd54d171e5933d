"""The pieces that a process writes of a model in training, and the reading of them back, whatever wrote them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.training.state.pieces import Piece, fixed_piece, fixed_tensors, narrowed, publish, trained_pieces
from components.training.state.state_files import SavedState
from model_core.spec.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiveState:
    """A model in training on one process. optimizer: DeepSpeed's. gathered: of parameters that stage 3 spreads, whole inside the block;
    with `modifier_rank`, what that process wrote into them is everybody's afterwards."""

    module: nn.Module
    optimizer: Any
    stage: int
    rank: int
    world_size: int
    gathered: Callable[..., AbstractContextManager[Any]]

    def pieces(self) -> Iterator[Piece]:
        """What this process writes, each once and to be copied before the next is asked for. All processes must take all of them.

        Buffers are the first process's: they may differ between processes that saw different samples.
        """
        for piece in self._trained():
            yield narrowed(piece, self.rank, self.world_size) if self.stage == 0 else piece
        frozen, buffers = fixed_tensors(self.module)
        for name, parameter in frozen.items():
            with self.gathered([parameter], enabled=self.stage == 3):
                yield narrowed(fixed_piece(name, parameter), self.rank, self.world_size)
        if self.rank == 0:
            for name, buffer in buffers.items():
                yield narrowed(fixed_piece(name, buffer), 0, 1)

    def read(self, folder: Path) -> None:
        """Take weights, Adam's state, frozen weights and buffers from a checkpoint; raises `CheckpointError` where they do not fit."""
        import torch

        with SavedState(folder) as saved, torch.no_grad():
            sharing: dict[int, tuple[Any, list[str]]] = {}
            for piece in self._trained():
                saved.read_into(piece)
                sharing.setdefault(id(piece.step), (piece.step, []))[1].append(piece.name)
            for step, names in sharing.values():
                step.fill_(_one_step(saved, names))
            frozen, buffers = fixed_tensors(self.module)
            for name, parameter in frozen.items():
                with self.gathered([parameter], modifier_rank=0, enabled=self.stage == 3):
                    if self.stage < 3 or self.rank == 0:
                        saved.read_into(fixed_piece(name, parameter))
            for name, buffer in buffers.items():
                saved.read_into(fixed_piece(name, buffer))
        publish(self.optimizer, stage=self.stage)

    def _trained(self) -> Iterator[Piece]:
        named = {name: parameter for name, parameter in self.module.named_parameters() if parameter.requires_grad}
        return trained_pieces(named, self.optimizer, stage=self.stage)


def _one_step(saved: SavedState, names: Sequence[str]) -> float:
    """Adam's counter for parameters that share a flat tensor, which has room for one."""
    steps = {saved.step_of(name) for name in names}
    if len(steps) > 1:
        raise CheckpointError(
            f"parameters that ZeRO joins in one tensor have made {sorted(steps)} steps of Adam, it counts for all of them together. "
            "Fix: resume at train.zero_stage 0"
        )
    return steps.pop()
