"""A decoder with pre- or post-norm, grouped-query attention, rotary positions and optional QK-norm.

Shape letters: B samples, L new tokens, T tokens seen, H heads, D width (of the model or of one head).
Module and parameter names are the published checkpoint's keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from model_core.network.attention import ACTIVATIONS, Documents, attend
from model_core.network.config import LlmConfig
from model_core.spec.errors import SpecError


class KeyValueCache(Protocol):
    """What the decoder needs of a cache. The concrete one lives in `model_core.engine.cache`."""

    @property
    def start(self) -> int:
        """Tokens already held: the slot of the first token of this call."""
        ...

    def update(self, layer: int, k_BHLD: Tensor, v_BHLD: Tensor) -> tuple[Tensor, Tensor]:
        """Store this call's keys and values of one layer; return all of that layer so far, [B, H, start + L, D]."""
        ...

    def advance(self, length: int) -> None:
        """Called once after the last layer: the next call starts `length` later."""
        ...


class RMSNorm(nn.Module):
    """Root-mean-square norm: in float32, back to the input's dtype, then times the weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class TokenEmbedding(nn.Module):
    """Base rows and the additional (image token) rows behind them, as two tables that are never concatenated."""

    def __init__(self, rows: int, additional_rows: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(rows, width))
        self.new_embedding = nn.Parameter(torch.zeros(additional_rows, width)) if additional_rows else None

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Rows of the two tables, ids counted through."""
        if self.new_embedding is None:
            return F.embedding(ids_BL, self.embedding)
        rows = self.embedding.shape[0]
        base = F.embedding(ids_BL.clamp(max=rows - 1), self.embedding)
        added = F.embedding((ids_BL - rows).clamp(min=0), self.new_embedding)
        return torch.where((ids_BL >= rows)[..., None], added, base)


def rotary(position_ids_BL: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin of rotate-half RoPE, float32, [B, 1, L, head_dim]."""
    exponents = torch.arange(0, head_dim, 2, device=position_ids_BL.device, dtype=torch.float32) / head_dim
    angles = position_ids_BL.float()[:, None, :, None] * (1.0 / theta**exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x_BHLD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply RoPE in float32 and return the input's dtype."""
    wide = x_BHLD.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat([-second, first], dim=-1) * sin).to(x_BHLD.dtype)


class SelfAttention(nn.Module):
    """Fused QKV projection, optional QK-norm, RoPE, grouped-query attention."""

    def __init__(self, llm: LlmConfig, layer: int, implementation: str) -> None:
        super().__init__()
        self.layer, self.implementation = layer, implementation
        self.heads, self.kv_heads, self.head_dim = llm.num_attention_heads, llm.num_key_value_heads, llm.head_dim
        self.sizes = (self.heads * self.head_dim, self.kv_heads * self.head_dim, self.kv_heads * self.head_dim)
        self.att_proj = nn.Linear(llm.hidden_size, sum(self.sizes), bias=llm.qkv_bias)
        self.attn_out = nn.Linear(self.sizes[0], llm.hidden_size, bias=False)
        self.norm_per_head = llm.qk_norm_type == "qwen3"
        if llm.use_qk_norm:
            q_size, k_size = (self.head_dim, self.head_dim) if self.norm_per_head else self.sizes[:2]
            self.q_norm: RMSNorm | None = RMSNorm(q_size, llm.layer_norm_eps)
            self.k_norm: RMSNorm | None = RMSNorm(k_size, llm.layer_norm_eps)
        else:
            self.q_norm = self.k_norm = None

    def forward(
        self,
        x_BLD: Tensor,
        cos_sin: tuple[Tensor, Tensor] | None,
        mask: Tensor | Documents | None,
        causal: bool,
        cache: KeyValueCache | None,
    ) -> Tensor:
        """Attend; keys and values go through the cache where there is one."""
        q, k, v = self.att_proj(x_BLD).split(self.sizes, dim=-1)
        if self.q_norm is not None and self.k_norm is not None and not self.norm_per_head:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = self._split(q, self.heads), self._split(k, self.kv_heads), self._split(v, self.kv_heads)
        if self.q_norm is not None and self.k_norm is not None and self.norm_per_head:
            q, k = self.q_norm(q), self.k_norm(k)
        if cos_sin is not None:
            q, k = rotate(q, *cos_sin), rotate(k, *cos_sin)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        out = attend(q, k, v, mask=mask, causal=causal, implementation=self.implementation)
        return self.attn_out(out.transpose(1, 2).flatten(2))

    def _split(self, x_BLD: Tensor, heads: int) -> Tensor:
        return x_BLD.unflatten(-1, (heads, self.head_dim)).transpose(1, 2)


class Mlp(nn.Module):
    """SwiGLU with one fused projection whose halves are [value ; gate], in that order."""

    def __init__(self, llm: LlmConfig) -> None:
        super().__init__()
        self.ff_proj = nn.Linear(llm.hidden_size, 2 * llm.intermediate_size, bias=False)
        self.ff_out = nn.Linear(llm.intermediate_size, llm.hidden_size, bias=False)
        self.act = ACTIVATIONS[llm.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """ff_out(act(gate) * value)."""
        value, gate = self.ff_proj(x).chunk(2, dim=-1)
        return self.ff_out(self.act(gate) * value)


class DecoderBlock(nn.Module):
    """Attention and MLP with a norm before each (Qwen2) or after each (OLMo2)."""

    def __init__(self, llm: LlmConfig, layer: int, implementation: str) -> None:
        super().__init__()
        self.layer, self.norm_after = layer, llm.norm_after
        self.drop: Callable[[Tensor, int], Tensor] | None = None
        self.self_attn = SelfAttention(llm, layer, implementation)
        self.mlp = Mlp(llm)
        self.attn_norm = RMSNorm(llm.hidden_size, llm.layer_norm_eps)
        self.ff_norm = RMSNorm(llm.hidden_size, llm.layer_norm_eps)

    def forward(
        self,
        x_BLD: Tensor,
        cos_sin: tuple[Tensor, Tensor] | None,
        mask: Tensor | Documents | None,
        causal: bool,
        cache: KeyValueCache | None,
    ) -> Tensor:
        """One residual step through attention, one through the MLP."""
        if self.norm_after:
            x_BLD = x_BLD + self._dropped(self.attn_norm(self.self_attn(x_BLD, cos_sin, mask, causal, cache)), 0)
            return x_BLD + self._dropped(self.ff_norm(self.mlp(x_BLD)), 1)
        x_BLD = x_BLD + self._dropped(self.self_attn(self.attn_norm(x_BLD), cos_sin, mask, causal, cache), 0)
        return x_BLD + self._dropped(self.mlp(self.ff_norm(x_BLD)), 1)

    def _dropped(self, x_BLD: Tensor, half: int) -> Tensor:
        return x_BLD if self.drop is None else self.drop(x_BLD, 2 * self.layer + half)


class Decoder(nn.Module):
    """Embedding tables, blocks and the final norm (`model.transformer` of the checkpoint)."""

    def __init__(self, llm: LlmConfig, implementation: str) -> None:
        super().__init__()
        self.config = llm
        self.wte = TokenEmbedding(llm.vocab_size, llm.additional_vocab_size, llm.hidden_size)
        self.blocks = nn.ModuleList(DecoderBlock(llm, layer, implementation) for layer in range(llm.num_hidden_layers))
        self.ln_f = RMSNorm(llm.hidden_size, llm.layer_norm_eps)
        self.slot_embedding = nn.Parameter(torch.zeros(llm.num_slots, llm.hidden_size)) if llm.num_slots else None
        self.checkpoint_activations = False

    def set_dropout(self, drop: Callable[[Tensor, int], Tensor] | None) -> None:
        """What is done to each addition to the residual stream, from now on, with the number of the addition; None: nothing."""
        for block in self.blocks:
            block.drop = drop  # type: ignore[assignment]

    def forward(
        self, x_BLD: Tensor, position_ids_BL: Tensor, attention_mask: Tensor | Documents | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Final hidden states h_BLD, after `ln_f`. See `MolmoAct.trunk`."""
        if self.slot_embedding is not None:
            x_BLD = x_BLD + F.embedding(position_ids_BL, self.slot_embedding).to(x_BLD.dtype)
        cos_sin = rotary(position_ids_BL, self.config.head_dim, self.config.rope_theta) if self.config.use_rope else None
        start = cache.start if cache is not None else 0
        mask, causal = visibility(attention_mask, length=x_BLD.shape[1], start=start, device=x_BLD.device)
        for block in self.blocks:
            if self.checkpoint_activations and torch.is_grad_enabled() and cache is None:
                x_BLD = torch.utils.checkpoint.checkpoint(block, x_BLD, cos_sin, mask, causal, None, use_reentrant=False)
            else:
                x_BLD = block(x_BLD, cos_sin, mask, causal, cache)
        if cache is not None:
            cache.advance(x_BLD.shape[1])
        return self.ln_f(x_BLD)


def visibility(
    attention_mask: Tensor | Documents | None, *, length: int, start: int, device: torch.device
) -> tuple[Tensor | Documents | None, bool]:
    """(mask, causal) for `attend`: new tokens at slots start..start+length-1 see slots up to their own.

    attention_mask: None; [B, start + length] with 0 at padding; bool [B, 1, length, start + length], taken as it is; or documents, whose
    lengths are `length` together and which nothing comes before.
    A padding token may see itself, so that no softmax row is empty; its output means nothing.
    """
    total = start + length
    if isinstance(attention_mask, Documents):
        if start or sum(attention_mask.lengths) != length:
            raise SpecError(f"documents of {sum(attention_mask.lengths)} tokens cannot cover {start} cached and {length} new tokens")
        return attention_mask, False
    if attention_mask is None:
        if start == 0:
            return None, length > 1
        if length == 1:
            return None, False
        return torch.ones(length, total, dtype=torch.bool, device=device).tril(start), False
    if attention_mask.ndim == 4:
        return attention_mask.bool(), False
    if attention_mask.shape[1] != total:
        raise SpecError(f"attention_mask must cover {total} tokens ({start} cached + {length} new), got {tuple(attention_mask.shape)}")
    slots = torch.arange(total, device=device)
    queries = slots[start:, None]
    seen = attention_mask.bool()[:, None, None, :] & (slots <= queries)
    return seen | (slots == queries), False
