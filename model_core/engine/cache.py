"""Key/value memory of a decoder: preallocated once, written in place, read as views."""

from __future__ import annotations

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
