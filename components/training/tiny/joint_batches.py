"""Embodiments that one network is trained for: each with its contract, its slots in the network and its batches.

A step's samples are of any embodiment. Each is encoded by its own contract (statistics, cameras, widths, chunk), so the samples of a
micro batch become one batch for each embodiment among them, and nothing is padded or cut to a common shape. The loss of the micro batch is
the mean over its samples, as if all had one shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.data.frozen_dataset import load_split
from components.data.frozen_members import FrozenMember
from components.training.tiny.batches import BatchMaker
from model_core.spec.contract import PolicyContract
from model_core.tokenization.compact.layout import CompactLayout, ReasoningMode

if TYPE_CHECKING:
    from torch import Tensor

    from model_core.network.model import MolmoAct
    from model_core.training import LossConfig, TrainingBatch

SHARE, LOSS = "share/", "loss/"  # of an embodiment: its share of a step's samples, and its loss


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedMember:
    """One of several embodiments. layout: in the vocabulary of all. slot_rows_S: the network's row of each of its slots."""

    frozen: FrozenMember
    contract: PolicyContract
    layout: CompactLayout
    slot_rows_S: NDArray[np.int64]
    train: BatchMaker
    head: str

    @property
    def name(self) -> str:
        """Its embodiment."""
        return self.frozen.name

    def held_out(self) -> BatchMaker:
        """Batches of its validation split."""
        return BatchMaker(load_split(self.frozen.folder, "validation"), self.layout, self.contract, head=self.head)

    def in_network(self, batch: TrainingBatch) -> TrainingBatch:
        """A batch of this embodiment with the rows of the network in place of its own slots."""
        import torch

        return replace(batch, slots_BL=torch.from_numpy(self.slot_rows_S)[batch.slots_BL])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointBatch:
    """The samples of one micro batch, by embodiment; one that has none is not among them."""

    parts: Mapping[str, TrainingBatch]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts.values())


def joint_batch(
    members: Sequence[TrainedMember], places_B2: NDArray[np.int64], mode: ReasoningMode, draw: tuple[int, int, int]
) -> JointBatch:
    """The batch of these samples (member, place in its training split). draw: seed of the augmentation, with which each embodiment draws
    for itself."""
    parts: dict[str, TrainingBatch] = {}
    for number, member in enumerate(members):
        mine_N = places_B2[places_B2[:, 0] == number, 1]
        if len(mine_N):
            parts[member.name] = member.in_network(member.train.batch(mine_N, mode, draw=(*draw, number)))
    return JointBatch(parts=parts)


def joint_loss(
    module: MolmoAct, batch: JointBatch, members: Sequence[TrainedMember], config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """(mean loss over all samples, parts). Parts are those of `answer_loss`, and of every embodiment, also one without a sample here,
    its share of the samples and its addend to the loss, so that they can be summed over micro batches and ranks (`per_embodiment`).
    """
    import torch

    from model_core.training import answer_loss

    total = torch.zeros((), device=module.lm_head.weight.device)
    parts: dict[str, Tensor] = {}
    for member in members:
        part = batch.parts.get(member.name)
        share = 0.0 if part is None else len(part) / len(batch)
        addend = torch.zeros_like(total)
        if part is not None:
            loss, found = answer_loss(module, part, member.layout, config)
            addend = loss * share
            total = total + addend
            for name, value in found.items():
                parts[name] = parts.get(name, torch.zeros_like(total)) + value * share
        parts[f"{LOSS}{member.name}"] = addend.detach()
        parts[f"{SHARE}{member.name}"] = torch.full_like(addend, share).detach()
    return total, parts


def per_embodiment(values: Mapping[str, float]) -> dict[str, float]:
    """Values of a step with the mean loss of each embodiment in place of addends and shares; one without a sample has no loss."""
    shares = {name.removeprefix(SHARE): share for name, share in values.items() if name.startswith(SHARE)}
    summed = {f"{prefix}{name}" for name in shares for prefix in (SHARE, LOSS)}
    means = {f"{LOSS}{name}": values[f"{LOSS}{name}"] / share for name, share in shares.items() if share > 0}
    return {name: value for name, value in values.items() if name not in summed} | means
