"""The loss of the rows that predict an answer token: head and cross-entropy together, some rows at a time.

The logits of a row are 152,064 numbers. Whole, with what their gradient keeps, they are the largest tensor of a training step; here no
more than `rows_at_once` of them exist. A linear head, also with a low-rank adapter, computes its gradients in the forward pass, while the
logits of a chunk are there; any other computes the logits of a chunk a second time in the backward pass.

Shape letters: N rows that predict, D width, R rank of an adapter, X ids that compete.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from model_core.network.finetuning.chosen_rows import ChosenHead
from model_core.network.finetuning.loss import token_losses
from model_core.spec.errors import require


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowTargets:
    """What N rows should predict. labels_N: int64 ids. weights_N: float32, what each counts in the sum."""

    labels_N: Tensor
    weights_N: Tensor

    def __len__(self) -> int:
        return len(self.labels_N)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowSums:
    """Sums over rows, each by its weight: of the loss that is trained (with the z-loss), of cross-entropy alone, of z-loss alone, and of
    the rows whose most likely id is the label. Only `loss` has a gradient."""

    loss: Tensor
    cross_entropy: Tensor
    z_loss: Tensor
    right: Tensor


def answer_row_loss(
    head: nn.Module, hidden_ND: Tensor, targets: RowTargets, *, z_loss: float = 1e-4, rows_at_once: int = 256, ids_X: Tensor | None = None
) -> RowSums:
    """Cross-entropy and z-loss of rows, in float32, summed by weight; divide by the weight of the whole batch for the mean.

    head: `nn.Linear` without bias, or what stands in its place (adapters, trained rows). ids_X: ascending ids that compete; None: all of
    them. Each label must be among them. Raises `SpecError` for a label that is not, and for other ids than a `ChosenHead` has rows of.
    """
    require(rows_at_once > 0, "rows_at_once must be above 0", got=rows_at_once)
    labels_N = targets.labels_N
    if isinstance(head, ChosenHead):
        require(ids_X is not None and torch.equal(ids_X, head.ids_X), "this head has rows of some ids only, and others should compete")
    if ids_X is not None:
        places_N = torch.searchsorted(ids_X, labels_N).clamp(max=len(ids_X) - 1)
        strange = (ids_X[places_N] != labels_N).nonzero()
        require(not len(strange), "a label is not among the ids that compete", got=labels_N[strange[:1]].tolist())
        labels_N = places_N
    factors = _factors_of(head)
    if factors is not None:
        chosen = factors if ids_X is None or isinstance(head, ChosenHead) else factors.of_ids(ids_X)
        low_NR = None if chosen.down_RD is None else F.linear(hidden_ND, chosen.down_RD) * chosen.scale
        rows = RowTargets(labels_N=labels_N, weights_N=targets.weights_N)
        work = _Pieces(targets=rows, z_loss=z_loss, rows=rows_at_once, learns=torch.is_grad_enabled())
        sums = _FusedHead.apply(hidden_ND, chosen.weight_XD, low_NR, chosen.up_XR, work)
        return RowSums(loss=sums[0], cross_entropy=sums[1], z_loss=sums[2], right=sums[3])
    found = [hidden_ND.new_zeros((), dtype=torch.float32) for _ in range(4)]

    def chunk_sums(chunk_ND: Tensor, chunk_labels_N: Tensor, weights_N: Tensor) -> tuple[Tensor, ...]:
        logits_NX = head(chunk_ND)
        return _sums(logits_NX if ids_X is None else logits_NX.index_select(1, ids_X), chunk_labels_N, weights_N, z_loss)

    for begin in range(0, len(labels_N), rows_at_once):
        part = slice(begin, begin + rows_at_once)
        arguments = (hidden_ND[part], labels_N[part], targets.weights_N[part])
        sums = torch.utils.checkpoint.checkpoint(chunk_sums, *arguments, use_reentrant=False)
        found = [total + value for total, value in zip(found, sums, strict=True)]
    return RowSums(loss=found[0], cross_entropy=found[1].detach(), z_loss=found[2].detach(), right=found[3].detach())


def _sums(logits_NX: Tensor, labels_N: Tensor, weights_N: Tensor, z_loss: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    cross_entropy_N, penalty_N = token_losses(logits_NX, labels_N, z_loss=z_loss)
    cross_entropy, penalty = (cross_entropy_N * weights_N).sum(), (penalty_N * weights_N).sum()
    right = ((logits_NX.argmax(-1) == labels_N) * weights_N).sum()
    return cross_entropy + penalty, cross_entropy, penalty, right


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Factors:
    """A head as products: logits = h W^T + scale (h A^T) B^T, where the second part is an adapter's."""

    weight_XD: Tensor
    down_RD: Tensor | None = None
    up_XR: Tensor | None = None
    scale: float = 1.0

    def of_ids(self, ids_X: Tensor) -> _Factors:
        """Only the rows of these ids."""
        up_XR = None if self.up_XR is None else self.up_XR.index_select(0, ids_X)
        return replace(self, weight_XD=self.weight_XD.index_select(0, ids_X), up_XR=up_XR)


def _factors_of(head: Any) -> _Factors | None:
    """The products of a linear head, also under one low-rank adapter without dropout; None for any other module."""
    if isinstance(head, ChosenHead):
        return _Factors(weight_XD=head.rows_XD)
    if type(head) is nn.Linear:
        return _Factors(weight_XD=head.weight) if head.bias is None else None
    base, names = getattr(head, "base_layer", None), getattr(head, "active_adapters", ())
    if type(base) is not nn.Linear or base.bias is not None or len(names) != 1 or head.disable_adapters:
        return None
    if head.merged:
        return _Factors(weight_XD=base.weight)
    name = names[0]
    if not isinstance(head.lora_dropout[name], nn.Identity) or getattr(head, "lora_variant", {}).get(name) is not None:
        return None
    return _Factors(
        weight_XD=base.weight, down_RD=head.lora_A[name].weight, up_XR=head.lora_B[name].weight, scale=float(head.scaling[name])
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pieces:
    """What is made in pieces of so many rows. learns: gradients will be asked for."""

    targets: RowTargets
    z_loss: float
    rows: int
    learns: bool


class _FusedHead(torch.autograd.Function):
    """Sums over rows of a linear head, with or without an adapter; gradients are made chunk by chunk in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_XD: Tensor, low_NR: Tensor | None, up_XR: Tensor | None, work: _Pieces
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `answer_row_loss`. low_NR, up_XR: hidden states and rows of the adapter."""
        targets, kind = work.targets, hidden_ND.device.type
        compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_ND.dtype
        inputs = (hidden_ND, weight_XD, low_NR, up_XR)
        grads = [
            torch.zeros_like(one) if one is not None and work.learns and wanted else None
            for one, wanted in zip(inputs, ctx.needs_input_grad[:4], strict=True)
        ]
        found = torch.zeros(4, dtype=torch.float32, device=hidden_ND.device)
        with torch.autocast(kind, enabled=False):
            sides = [(hidden_ND, weight_XD.to(compute), grads[0], grads[1])]
            if low_NR is not None and up_XR is not None:
                sides.append((low_NR, up_XR.to(compute), grads[2], grads[3]))
            for begin in range(0, len(targets), work.rows):
                part = slice(begin, begin + work.rows)
                rows = [left[part].to(compute) for left, *_ in sides]
                logits_NX = rows[0] @ sides[0][1].T
                for left, side in zip(rows[1:], sides[1:], strict=True):
                    logits_NX.addmm_(left, side[1].T)
                sums, pull_NX = _sums_and_pull(logits_NX.float(), targets.labels_N[part], targets.weights_N[part], work.z_loss)
                found += sums
                if all(one is None for one in grads):
                    continue
                pull_NX = pull_NX.to(compute)
                for left, (_, right, grad_left, grad_right) in zip(rows, sides, strict=True):
                    if grad_left is not None:
                        grad_left[part] = (pull_NX @ right).to(grad_left.dtype)
                    if grad_right is not None:
                        _add_product(grad_right, pull_NX.T, left)
        ctx.save_for_backward(*grads)
        loss, cross_entropy, penalty, right = (value.clone() for value in found)
        ctx.mark_non_differentiable(cross_entropy, penalty, right)
        return loss, cross_entropy, penalty, right

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients that the forward pass made, times that of the sum."""
        scaled = [None if one is None else one * grads[0].to(one.dtype) for one in ctx.saved_tensors]
        return *scaled, None


def _sums_and_pull(logits_NX: Tensor, labels_N: Tensor, weights_N: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    """(the sums of `_sums` stacked, the gradient of the first by the logits), in the memory of the logits: another tensor of their size
    would cost more time than the arithmetic."""
    picked_N = logits_NX.gather(-1, labels_N[:, None]).squeeze(-1)
    largest_N, likely_N = logits_NX.max(-1)
    parts_NX = logits_NX.sub_(largest_N[:, None]).exp_()
    total_N = parts_NX.sum(-1)
    log_z_N = largest_N + total_N.log()
    cross_entropy = ((log_z_N - picked_N) * weights_N).sum()
    penalty = (z_loss * log_z_N.square() * weights_N).sum()
    right = ((likely_N == labels_N) * weights_N).sum()
    pull_NX = parts_NX.mul_((weights_N * (1 + 2 * z_loss * log_z_N) / total_N)[:, None])
    pull_NX[torch.arange(len(labels_N), device=labels_N.device), labels_N] -= weights_N
    return torch.stack([cross_entropy + penalty, cross_entropy, penalty, right]), pull_NX


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += (left @ right).to(total.dtype)
