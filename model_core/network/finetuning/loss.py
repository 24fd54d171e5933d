"""The loss of written answers: next-token cross-entropy where a target stands, z-loss, weights per token.

As published both parts are weighted sums over the targets, divided by the sum of the weights (not by the number of targets); over several
micro-batches or processes, by the sum of all their weights. z-loss is 1e-4 of the squared log of the softmax's denominator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100
Z_LOSS = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossSums:
    """Weighted sums over the targets of a batch, float32 scalars; `+` joins micro-batches. divisor: the sum of the weights."""

    cross_entropy: Tensor
    z: Tensor
    divisor: Tensor

    def __add__(self, other: LossSums) -> LossSums:
        return LossSums(cross_entropy=self.cross_entropy + other.cross_entropy, z=self.z + other.z, divisor=self.divisor + other.divisor)

    def mean(self, divisor: Tensor | float | None = None) -> Tensor:
        """The loss that is trained. divisor: the sum of the weights of the *global* batch; by default that of this one."""
        return (self.cross_entropy + self.z) / (self.divisor if divisor is None else divisor)


def token_losses(logits_NX: Tensor, targets_N: Tensor, *, z_loss: float = Z_LOSS) -> tuple[Tensor, Tensor]:
    """(cross-entropy, z-loss) of each of N predictions, float32; both are 0 where the target is negative (`IGNORED`, or padding)."""
    logits_NX = logits_NX.float()
    counted_N = targets_N >= 0
    log_z_N = torch.logsumexp(logits_NX, dim=-1)
    picked_N = logits_NX.gather(-1, targets_N.clamp(min=0)[..., None]).squeeze(-1)
    zero = log_z_N.new_zeros(())
    return torch.where(counted_N, log_z_N - picked_N, zero), torch.where(counted_N, z_loss * log_z_N.square(), zero)


def weighted_sums(logits_NX: Tensor, targets_N: Tensor, weights_N: Tensor, *, z_loss: float = Z_LOSS) -> LossSums:
    """The sums over predictions that count. logits_NX: (..., X), only the rows of targets are needed. targets_N: (...), ids.

    weights_N: (...); a weight of 0 or less (padding is -1) means that the target does not count.
    """
    counted_N = (weights_N > 0) & (targets_N >= 0)
    cross_entropy_N, z_N = token_losses(logits_NX, torch.where(counted_N, targets_N, IGNORED), z_loss=z_loss)
    weights_N = torch.where(counted_N, weights_N.float(), 0.0)
    return LossSums(cross_entropy=(cross_entropy_N * weights_N).sum(), z=(z_N * weights_N).sum(), divisor=weights_N.sum())


def answer_loss(logits_BLX: Tensor, labels_BL: Tensor, *, weights_B: Tensor | None = None, z_loss: float = Z_LOSS) -> tuple[Tensor, Tensor]:
    """(sum of the losses of all answer tokens, how many tokens by weight); divide by the *global* weight for the mean.

    labels_BL: the answer's ids at their own places (EOS included), `IGNORED` on prompt and padding; the shift by one is done
    here. weights_B: one weight per sample, default 1 (published: 1/sqrt(n) for n annotations of one image).
    z_loss: weight of logsumexp squared (published 1e-4). Computed in float32.
    """
    targets_BL = labels_BL[:, 1:]
    weights_BL = torch.ones_like(targets_BL, dtype=torch.float32)
    if weights_B is not None:
        weights_BL = weights_BL * weights_B.float()[:, None]
    sums = weighted_sums(logits_BLX[:, :-1], targets_BL, weights_BL, z_loss=z_loss)
    return sums.cross_entropy + sums.z, sums.divisor


def seen_tokens(subsegments_BL: Tensor, documents_BL: Tensor | None = None) -> Tensor:
    """Bool (B, 1, L, L) for `MolmoAct.trunk`: row sees column. A token sees those before it of its own subsegment or a higher one.

    subsegments_BL: `published.examples.TrainingSequence.subsegments_L`, -1 at padding, which only padding sees.
    documents_BL: numbers of the samples where several stand in one row; tokens of another sample are not seen.
    """
    length = subsegments_BL.shape[1]
    seen_BLL = subsegments_BL[:, None, :] >= subsegments_BL[:, :, None]
    if documents_BL is not None:
        seen_BLL = seen_BLL & (documents_BL[:, None, :] == documents_BL[:, :, None])
    causal_LL = torch.ones(length, length, dtype=torch.bool, device=subsegments_BL.device).tril()
    return (seen_BLL & causal_LL)[:, None]
