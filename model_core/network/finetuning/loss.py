"""The loss of written answers: next-token cross-entropy where a label stands, z-loss, weights per sample."""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED = -100


def answer_loss(logits_BLX: Tensor, labels_BL: Tensor, *, weights_B: Tensor | None = None, z_loss: float = 1e-4) -> tuple[Tensor, Tensor]:
    """(sum of the losses of all answer tokens, how many tokens by weight); divide by the *global* weight for the mean.

    labels_BL: the answer's ids at their own places (EOS included), `IGNORED` on prompt and padding; the shift by one is done
    here. weights_B: one weight per sample, default 1 (published: 1/sqrt(n) for n annotations of one image).
    z_loss: weight of logsumexp squared (published 1e-4). Computed in float32.
    """
    logits = logits_BLX[:, :-1].float()
    labels = labels_BL[:, 1:]
    counted = labels != IGNORED
    log_z = torch.logsumexp(logits, dim=-1)
    picked = logits.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    per_token = log_z - picked + z_loss * log_z.square()
    weight = counted.to(per_token.dtype)
    if weights_B is not None:
        weight = weight * weights_B.to(per_token.dtype)[:, None]
    return (per_token * weight).sum(), weight.sum()
