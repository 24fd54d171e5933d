"""Key/value memory of a decoder: preallocated once, written in place, read as views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_core.network.config import LlmConfig
from model_core.spec.errors import SpecError


class StaticCache:
    """One [B, kv_heads, max_length, head_dim] pair of buffers per layer; rows advance together.

    Satisfies `model_core.network.language.KeyValueCache`.
    """

    def __init__(
        self, llm: LlmConfig, *, batch: int, max_length: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        shape = (llm.num_hidden_layers, batch, llm.num_key_value_heads, max_length, llm.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.max_length = max_length
        self._start = 0

    @property
    def start(self) -> int:
        """Tokens held so far."""
        return self._start

    def update(self, layer: int, k_BHLD: Tensor, v_BHLD: Tensor) -> tuple[Tensor, Tensor]:
        """Write this call's keys and values of `layer`; return views of everything up to and including them."""
        end = self._start + k_BHLD.shape[2]
        if end > self.max_length:
            raise SpecError(f"the cache holds {self.max_length} tokens, asked for {end}; allocate a longer one")
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self._start : end] = k_BHLD
        values[:, :, self._start : end] = v_BHLD
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, length: int) -> None:
        """Move the write position on by `length` tokens."""
        self._start += length

    def rewind(self, start: int) -> None:
        """Forget everything from slot `start` on (edit and continue)."""
        if not 0 <= start <= self._start:
            raise SpecError(f"can rewind to 0..{self._start}, got {start}")
        self._start = start


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPart:
    """The part of one cache row that a block computes: `real` tokens from place `start` on, padding behind them.

    queries: the last so many of the tokens are placeholders, which see each other and not the `unseen` tokens before them. cut: of the
    first so many tokens no hidden state is asked for.
    """

    row: int
    start: int
    real: int
    queries: int = 0
    unseen: int = 0
    cut: int = 0


# Attention reads a multiple of so many places: a softmax over bfloat16 sums its last, incomplete vector in another order, so that
# one more masked place behind a row could change its last bit.
_ALIGNED = 32


def aligned(places: int) -> int:
    """`places` rounded up to what attention reads."""
    return -(-places // _ALIGNED) * _ALIGNED


class RowCache:
    """Key/value memory of several rows that advance independently; the rows in use are always the first ones.

    memory: [layers, 2, capacity, kv_heads, places, head_dim], keys at 0 and values at 1; places = `aligned(length + 1)`. Place
    `length` of every row is written by padding and never read. Whatever stands behind a row's own length is garbage that its
    mask hides, so "dropping" keys and values is just not counting them.
    """

    def __init__(self, llm: LlmConfig, *, capacity: int, length: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        self.capacity, self.length, self.places = capacity, length, aligned(length + 1)
        self.kv_heads, self.head_dim = llm.num_key_value_heads, llm.head_dim
        shape = (llm.num_hidden_layers, 2, capacity, self.kv_heads, self.places, self.head_dim)
        self.memory = torch.zeros(shape, dtype=dtype, device=device)
        # views of `memory` in the shape that a forward pass wants, by (first row, rows, length)
        self.views: dict[tuple[int, int, int], tuple[Sequence[Tensor], Sequence[Tensor]]] = {}
        heads = torch.arange(2, device=device)[:, None] * capacity
        # first flat place of (keys or values, row, head), without the row: added up in `places`
        self._first_2G = (heads * self.kv_heads + torch.arange(self.kv_heads, device=device)) * self.places

    def kept(self, first: int, rows: int, length: int) -> Tensor:
        """Keys (0) and values (1) of `rows` rows from `first` on, up to place `length`: a view [layers, 2, rows, kv_heads, length, D]."""
        return self.memory[:, :, first : first + rows, :, :length]

    def flat_places(self, positions_BW: Tensor) -> Tensor:
        """Where tokens at `positions_BW` of rows 0..B-1 stand in a layer seen as [-1, head_dim]; order (2, B, kv_heads, W)."""
        rows = len(positions_BW)
        row_B = torch.arange(rows, device=positions_BW.device) * (self.kv_heads * self.places)
        places = self._first_2G[:, None, :, None] + row_B[None, :, None, None] + positions_BW[None, :, None, :]
        return places.reshape(-1)

    def write(self, number: int, places: Tensor, kv_N2GD: Tensor, rows: int) -> None:
        """Store keys and values of B x W tokens, [B * W, 2, kv_heads, D], at `flat_places`."""
        flat = self.memory[number].view(-1, self.head_dim)
        kv = kv_N2GD.view(rows, -1, 2, self.kv_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        flat.index_copy_(0, places, kv.reshape(-1, self.head_dim))

    def row_slots(self, row: int, start: int, length: int) -> tuple[Tensor, ...]:
        """By layer, where keys and values of `length` tokens of one row from `start` on stand: views [length, 2, kv_heads, D]."""
        return self.memory[:, :, row, :, start : start + length].permute(0, 3, 1, 2, 4).unbind(0)

    @torch.inference_mode()
    def move(self, source: int, target: int) -> None:
        """Row `source` becomes row `target`."""
        self.memory[:, :, target].copy_(self.memory[:, :, source])

    @torch.inference_mode()
    def clear(self, row: int) -> None:
        """Zero a row: after NaN or inf in it, whose product with a masked weight of zero would still be NaN."""
        self.memory[:, :, row].zero_()
