"""Chosen token rows that are trained beside frozen ones, on the input and the output side."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.network.language import TokenEmbedding


class TunedRowsEmbedding(nn.Module):
    """A frozen embedding plus a trainable difference for `count` rows from `first` on."""

    def __init__(self, inner: TokenEmbedding, first: int, count: int) -> None:
        super().__init__()
        self.inner, self.first = inner, first
        self.difference = nn.Parameter(torch.zeros_like(inner.embedding[first : first + count]))

    def forward(self, ids_BL: Tensor) -> Tensor:
        """The inner rows, with the difference added where an id is one of ours."""
        place = ids_BL - self.first
        ours = (place >= 0) & (place < len(self.difference))
        added = F.embedding(place.clamp(0, len(self.difference) - 1), self.difference)
        return self.inner(ids_BL) + added * ours[..., None].to(added.dtype)


class TunedRowsHead(nn.Module):
    """A frozen (or adapted) head plus a trainable difference for `count` rows from `first` on."""

    def __init__(self, inner: nn.Module, first: int, like_RD: Tensor) -> None:
        super().__init__()
        self.inner, self.first = inner, first
        self.difference = nn.Parameter(torch.zeros_like(like_RD))

    def forward(self, h_BLD: Tensor) -> Tensor:
        """The inner logits, with the difference's logits added to ours."""
        logits = self.inner(h_BLD)
        before, after = self.first, logits.shape[-1] - self.first - len(self.difference)
        return logits + F.pad(F.linear(h_BLD, self.difference), (before, after))
