"""Scaled dot-product attention in two implementations that agree within rounding, and the activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Documents:
    """Lengths of the documents that lie one after the other in each row: a token sees those of its own document up to itself.

    parts: of a document with several questions about one beginning (its images) the lengths of the beginning and of each question; a
    question sees the beginning and itself. Empty for a document without; () where no document has any.
    """

    lengths: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...] = ()

    def mask(self) -> Tensor:
        """The same as a bool mask [1, 1, L, L], True where a key is seen."""
        number_L = torch.repeat_interleave(torch.arange(len(self.lengths)), torch.tensor(self.lengths))
        seen_LL = (number_L[:, None] == number_L[None]).tril()
        for begin, parts in zip(accumulate(self.lengths, initial=0), self.parts, strict=False):
            starts = list(accumulate(parts, initial=begin))
            for first, end in pairwise(starts[1:]):
                seen_LL[first:end, starts[1] : first] = False
        return seen_LL[None, None]


def attend(q_BHLD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, *, mask: Tensor | Documents | None, causal: bool, implementation: str) -> Tensor:
    """Attention of H query heads over G key heads (H a multiple of G), as [B, H, L, D].

    mask: bool, broadcastable to [B, 1, L, T], True where a key may be seen; None for no restriction; documents for each to see itself,
    which are attended one by one, so that nothing is computed between two of them.
    causal: lower-triangular restriction, only with `mask` None and L == T.
    """
    if isinstance(mask, Documents):
        all_parts = mask.parts or ((),) * len(mask.lengths)
        # split, not sliced one by one: the gradient of a slice is as long as the row, and added to those of all others
        documents = zip(*(tensor.split(mask.lengths, dim=2) for tensor in (q_BHLD, k_BHTD, v_BHTD)), strict=True)
        found = [_attend_document(q, k, v, parts, implementation) for (q, k, v), parts in zip(documents, all_parts, strict=True)]
        return torch.cat(found, dim=2)
    if implementation == "sdpa":
        grouped = q_BHLD.shape[1] != k_BHTD.shape[1]
        return F.scaled_dot_product_attention(q_BHLD, k_BHTD, v_BHTD, attn_mask=mask, is_causal=causal, enable_gqa=grouped)
    return _attend_eager(q_BHLD, k_BHTD, v_BHTD, mask, causal)


def _attend_document(q_BHLD: Tensor, k_BHLD: Tensor, v_BHLD: Tensor, parts: tuple[int, ...], implementation: str) -> Tensor:
    if not parts:
        return attend(q_BHLD, k_BHLD, v_BHLD, mask=None, causal=q_BHLD.shape[2] > 1, implementation=implementation)
    shared = parts[0]
    (first_q, first_k, first_v), *questions = zip(*(tensor.split(parts, dim=2) for tensor in (q_BHLD, k_BHLD, v_BHLD)), strict=True)
    found = [_attend_document(first_q, first_k, first_v, (), implementation)]
    for q, k, v in questions:
        seen = torch.ones(q.shape[2], shared + q.shape[2], dtype=torch.bool, device=q.device).tril(shared)
        keys, values = torch.cat([first_k, k], dim=2), torch.cat([first_v, v], dim=2)
        found.append(attend(q, keys, values, mask=seen[None, None], causal=False, implementation=implementation))
    return torch.cat(found, dim=2)


def _attend_eager(q_BHLD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    batch, heads, length, width = q_BHLD.shape
    groups, total = k_BHTD.shape[1], k_BHTD.shape[2]
    # The query heads that share a key head are folded into its rows: no copy of keys and values.
    q_BGRD = (q_BHLD * (1.0 / math.sqrt(width))).reshape(batch, groups, heads // groups * length, width)
    scores = torch.matmul(q_BGRD, k_BHTD.transpose(2, 3)).view(batch, groups, heads // groups, length, total)
    if causal:
        mask = torch.ones(length, total, dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        mask = mask[:, :, None] if mask.ndim == 4 else mask
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1).view(batch, groups, heads // groups * length, total).to(v_BHTD.dtype)
    return torch.matmul(weights, v_BHTD).view(batch, heads, length, width)


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI CLIP's activation: x * sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "quick_gelu": quick_gelu,
    "silu": F.silu,
    "relu": F.relu,
}
