"""The decoder as the engine runs it: one block of tokens for every row, from ids to the most likely allowed ids.

The same arithmetic as `network.language.Decoder` with the per-token cost taken out: no module calls, weights cast and packed once,
tables for mask and rotary positions, only the head rows that an answer can use.
A test holds both together. All shapes are 2-D (tokens) until attention, so that a matrix product sees B * W rows.

Shape letters: B rows, W block width, n = B * W tokens, H query heads, G key heads, D head width, T cached tokens, X head rows,
S groups of allowed ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model_core.engine.automaton import Grammar
from model_core.engine.cache import RowCache, RowPart, aligned
from model_core.engine.kernels.projection import LinearWeight, Projection, can_pack, projection_of
from model_core.network.attention import ACTIVATIONS
from model_core.network.config import LlmConfig
from model_core.network.int8.stored import is_int8
from model_core.network.language import DecoderBlock, rotary
from model_core.network.model import MolmoAct

# A head of at most so many numbers is kept a second time, in parts.
_SMALL_HEAD = 1 << 24


# Puts keys and values [n, 2, G, D] of a layer away, by its number; returns all that the block may look at (`BlockForward._seen`).
_Store = Callable[[int, Tensor], tuple[Tensor, Tensor]]


class _Layer:
    """Weights of one block in the engine's dtype. folded: those of the norms are part of the projections behind them."""

    __slots__ = ("attn_norm", "down", "ff_norm", "k_norm", "out", "q_norm", "qkv", "up")

    def __init__(self, block: DecoderBlock, dtype: torch.dtype, *, packed: bool, folded: bool) -> None:
        attn, mlp = block.self_attn, block.mlp
        self.attn_norm, self.ff_norm = block.attn_norm.weight.detach().to(dtype), block.ff_norm.weight.detach().to(dtype)
        into_qkv, into_up = (block.attn_norm, block.ff_norm) if folded else (None, None)
        self.qkv = projection_of(attn.att_proj, dtype, packed=packed, norm=into_qkv)
        self.out = projection_of(attn.attn_out, dtype, packed=packed)
        self.up = projection_of(mlp.ff_proj, dtype, packed=packed, norm=into_up)
        self.down = projection_of(mlp.ff_out, dtype, packed=packed)
        self.q_norm = None if attn.q_norm is None else attn.q_norm.weight.detach().to(dtype)
        self.k_norm = None if attn.k_norm is None else attn.k_norm.weight.detach().to(dtype)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _HeadPart:
    """The rows of the head that some groups choose from, and no other group: `first` is the first of them. mask_SX: None where each
    is allowed in every one of these groups."""

    head: Projection
    mask_SX: Tensor | None
    first: int


class BlockForward:
    """Runs blocks of `model`'s decoder in `dtype`. constrained: score only ids that an answer can hold, and mask by state."""

    computes = "torch"

    def __init__(
        self, model: MolmoAct, grammar: Grammar, *, max_length: int, dtype: torch.dtype, constrained: bool, packed: bool | None = None
    ) -> None:
        self.config, decoder = model.config.llm, model.model.transformer
        self.dtype, self.device, self.constrained = dtype, model.lm_head.weight.device, constrained
        self.sdpa = model.config.attention == "sdpa"
        packed = can_pack(decoder, dtype) if packed is None else packed
        # a norm is one kernel on CUDA; on a CPU it is half a dozen, three where its weight is part of the (float) projection behind it
        self.folded = self.device.type == "cpu" and not self.config.norm_after and not is_int8(model.config.extras)
        self.layers = [_Layer(block, dtype, packed=packed, folded=self.folded) for block in decoder.blocks]  # type: ignore[arg-type]
        self.act = ACTIVATIONS[self.config.hidden_act]
        self.heads, self.groups, self.depth = self.config.num_attention_heads, self.config.num_key_value_heads, self.config.head_dim
        self.eps, self.scale = self.config.layer_norm_eps, 1.0 / math.sqrt(self.config.head_dim)
        self.embedding = decoder.wte.embedding.detach().to(dtype)
        self.slots = None if decoder.slot_embedding is None else decoder.slot_embedding.detach().to(dtype)
        self.norm = decoder.ln_f.weight.detach().to(dtype)
        self._least = torch.tensor(math.sqrt(self.eps * self.config.hidden_size), device=self.device)
        self._set_head(model, grammar, packed)
        length = aligned(max_length + 1)
        self._causal_TT = torch.full((length, length), -torch.inf, dtype=dtype, device=self.device).triu(1)
        self._cos_PD, self._sin_PD = _rotary_tables(self.config, max(length, self.config.num_slots), self.device)

    def _set_head(self, model: MolmoAct, grammar: Grammar, packed: bool) -> None:
        head = LinearWeight.of(model.lm_head, model.model.transformer.ln_f if self.folded else None)
        ids_X = np.unique(np.concatenate(grammar.groups)) if self.constrained else np.arange(len(head.weight_OI))
        self.head_ids: list[int] = ids_X.tolist()
        if len(ids_X) < len(head.weight_OI):
            contiguous = int(ids_X[-1]) - int(ids_X[0]) + 1 == len(ids_X)
            head = head.rows(slice(int(ids_X[0]), int(ids_X[-1]) + 1) if contiguous else torch.from_numpy(ids_X).to(self.device))
        self.head = head.projection(None, self.dtype, packed=packed)
        self.mask_SX: Tensor | None = None
        self._part_of_group: list[int] = []
        self._parts: list[_HeadPart] = []
        if self.constrained:
            forbidden_SX = np.ones((len(grammar.groups), len(ids_X)), bool)
            for group, allowed in enumerate(grammar.groups):
                forbidden_SX[group, np.searchsorted(ids_X, allowed)] = False
            zero_SX = torch.zeros(forbidden_SX.shape, dtype=self.dtype, device=self.device)
            self.mask_SX = zero_SX.masked_fill_(torch.from_numpy(forbidden_SX).to(self.device), -torch.inf)
            if self.device.type == "cpu" and head.weight_OI.numel() <= _SMALL_HEAD:
                self._set_parts(head, forbidden_SX, packed)

    def _set_parts(self, weight: LinearWeight, forbidden_SX: NDArray[np.bool_], packed: bool) -> None:
        """Cut the head where no group chooses from both sides: most blocks stand in one field, and need its rows alone."""
        assert self.mask_SX is not None
        width = forbidden_SX.shape[1]
        spans = [(int(np.argmin(row_X)), width - int(np.argmin(row_X[::-1]))) for row_X in forbidden_SX]
        cuts = [at for at in range(width + 1) if all(at <= first or at >= stop for first, stop in spans)]
        if len(cuts) == 2:  # one part is the head itself
            return
        for first, stop in pairwise(cuts):
            part_SX = forbidden_SX[[first <= start < stop for start, _ in spans], first:stop]
            mask_SX = self.mask_SX[:, first:stop].contiguous() if part_SX.any() else None
            head = weight.rows(slice(first, stop)).projection(None, self.dtype, packed=packed)
            self._parts.append(_HeadPart(head=head, mask_SX=mask_SX, first=first))
        self._part_of_group = [next(place for place, part in enumerate(self._parts) if start < cuts[place + 1]) for start, _ in spans]
        for rows in (1, 2, 4, 7, 16, 33):  # blocks over several fields use the whole head: a logit must not depend on that
            probe_nD = torch.randn(rows, weight.weight_OI.shape[1], generator=torch.Generator().manual_seed(rows)).to(self.dtype)
            if not torch.equal(torch.cat([part.head(probe_nD) for part in self._parts], dim=-1), self.head(probe_nD)):
                self._parts = []
                return

    # ---- a block

    def row_block(self, x_WD: Tensor, places_W: Tensor, cache: RowCache, part: RowPart) -> Tensor:
        """Hidden states (W - cut, D) of a part of one row."""
        width, start, real = len(x_WD), part.start, part.real
        # on CUDA always the whole cache: the shapes, and with them the kernels, of the captured blocks
        end = cache.places if self.device.type == "cuda" else min(aligned(start + width), cache.places)
        bias_WT = self._causal_TT[start : start + width, :end]
        if len(bias_WT) < width:  # padding past the end of the cache sees what the last place sees
            bias_WT = torch.cat([bias_WT, bias_WT[-1:].expand(width - len(bias_WT), -1)])
        if part.queries:
            first = real - part.queries
            bias_WT = bias_WT.clone()
            bias_WT[first:real, start + first - part.unseen : start + first] = -torch.inf
            bias_WT[first:real, start + first : start + real] = 0.0
        targets, (keys, values) = cache.row_slots(part.row, start, real), self._seen(cache, part.row, 1, end)

        def store(number: int, kv_n2GD: Tensor) -> tuple[Tensor, Tensor]:
            targets[number].copy_(kv_n2GD[:real])
            return keys[number], values[number]

        return self._decode(x_WD, places_W, 1, bias_WT, store)[part.cut :]

    def rows_block(self, x_nD: Tensor, places_n: Tensor, positions_BW: Tensor, cache: RowCache, end: int) -> Tensor:
        """Hidden states (n, D) of B x W tokens of rows 0..B-1. positions_BW: where each token stands (padding: `cache.length`)."""
        rows = len(positions_BW)
        flat = cache.flat_places(positions_BW)
        bias_BWT = self._causal_TT[positions_BW][..., :end]

        keys, values = self._seen(cache, 0, rows, end)

        def store(number: int, kv_n2GD: Tensor) -> tuple[Tensor, Tensor]:
            cache.write(number, flat, kv_n2GD, rows)
            return keys[number], values[number]

        return self._decode(x_nD, places_n, rows, bias_BWT, store)

    def embed(self, ids_n: Tensor) -> Tensor:
        """Input rows of answer ids (never an image mark), without the slot's row: `_decode` adds it."""
        return F.embedding(ids_n, self.embedding)

    def _decode(self, x: Tensor, places_n: Tensor, rows: int, bias: Tensor, store: _Store) -> Tensor:
        if self.slots is not None:
            x = x + F.embedding(places_n, self.slots)
        turn = (self._cos_PD[places_n][:, None], self._sin_PD[places_n][:, None]) if self.config.use_rope else None
        bias = self._per_head(bias, rows)
        after = self.config.norm_after
        for number, layer in enumerate(self.layers):
            h = layer.out(self._attend(x if after else self._normed(x, layer.attn_norm), layer, number, rows, bias, turn, store))
            x = x + self._normed(h, layer.attn_norm) if after else h.add_(x)
            value, gate = layer.up(x if after else self._normed(x, layer.ff_norm)).chunk(2, dim=-1)
            h = layer.down(self.act(gate).mul_(value))
            x = x + self._normed(h, layer.ff_norm) if after else h.add_(x)
        return self._normed(x, self.norm)

    def _normed(self, x_nD: Tensor, weight_D: Tensor) -> Tensor:
        """The root-mean-square norm; without its weight and sqrt(D) where those are `folded`: x / sqrt(|x|^2 + D eps)."""
        if not self.folded:
            return F.rms_norm(x_nD, (x_nD.shape[-1],), weight_D, self.eps)
        length_n1 = torch.linalg.vector_norm(x_nD, 2, -1, True, dtype=torch.float32).hypot_(self._least)
        return (x_nD / length_n1).to(self.dtype)

    def _attend(
        self, h: Tensor, layer: _Layer, number: int, rows: int, bias: Tensor, turn: tuple[Tensor, Tensor] | None, store: _Store
    ) -> Tensor:
        heads, groups, depth = self.heads, self.groups, self.depth
        n, asked = h.shape[0], heads * depth
        qkv = layer.qkv(h)
        if layer.q_norm is not None and layer.k_norm is not None:
            self._norm_queries_keys(qkv, layer.q_norm, layer.k_norm)
        if turn is not None:
            qk = qkv[:, : asked + groups * depth].view(n, heads + groups, depth)
            qk.copy_(_turned(qk, *turn))
        keys, values = store(number, qkv[:, asked:].view(n, 2, groups, depth))
        width, share = n // rows, heads // groups
        if self.sdpa:
            q = qkv[:, :asked].view(rows, width, heads, depth).transpose(1, 2)
            out = F.scaled_dot_product_attention(q, keys, values, attn_mask=bias, enable_gqa=share > 1)
            return out.transpose(1, 2).reshape(n, asked)
        if rows == 1 and share == 1:
            q = qkv.view(n, -1, depth).transpose(0, 1)[:heads]
            weights = torch.softmax(torch.baddbmm(bias, q, keys, alpha=self.scale), dim=-1)
            return torch.bmm(weights, values).transpose(0, 1).reshape(n, asked)
        # the query heads that share a key head are rows of one product: no copy of keys and values
        q = qkv[:, :asked].view(rows, width, groups, share, depth).permute(0, 2, 3, 1, 4).reshape(rows * groups, share * width, depth)
        weights = torch.softmax(torch.baddbmm(bias, q, keys, alpha=self.scale), dim=-1)
        out = torch.bmm(weights, values).view(rows, groups, share, width, depth)
        return out.permute(0, 3, 1, 2, 4).reshape(n, asked)

    def _seen(self, cache: RowCache, first: int, rows: int, end: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Keys and values by layer, in the shape that the attention wants: [B, G, T, D], or [B * G, D, T] and [B * G, T, D].

        The views are cut once for each length that is asked for: cutting them takes as long as some of a small block's products.
        """
        found = cache.views.get((first, rows, end))
        if found is None:
            keys, values = cache.kept(first, rows, end).unbind(1)
            if not self.sdpa:
                keys, values = keys.flatten(1, 2).transpose(2, 3), values.flatten(1, 2)
            found = cache.views[first, rows, end] = keys.unbind(0), values.unbind(0)
        return found

    def _per_head(self, bias: Tensor, rows: int) -> Tensor:
        """The mask in the shape that the attention wants: [B, 1, W, T], or [B * G, (H / G) * W, T] or broadcastable to it."""
        if self.sdpa:
            return bias.view(rows, 1, *bias.shape[-2:])
        share = self.config.num_attention_heads // self.config.num_key_value_heads
        if share > 1:
            bias = bias.repeat(*[1] * (bias.ndim - 2), share, 1)
        if rows > 1 or bias.ndim == 3:
            bias = bias[:, None].expand(-1, self.config.num_key_value_heads, -1, -1).flatten(0, 1)
        return bias

    def _norm_queries_keys(self, qkv: Tensor, q_weight: Tensor, k_weight: Tensor) -> None:
        asked = self.config.num_attention_heads * self.config.head_dim
        shared = asked + self.config.num_key_value_heads * self.config.head_dim
        for part, weight in ((qkv[:, :asked], q_weight), (qkv[:, asked:shared], k_weight)):
            split = part.view(len(part), -1, len(weight))  # the whole projection, or head by head
            split.copy_(F.rms_norm(split, (len(weight),), weight, self.eps))

    # ---- what is chosen

    def part_of(self, groups: Sequence[int]) -> int | None:
        """The part of the head that these groups choose from; None where it takes the whole head."""
        parts = {self._part_of_group[group] for group in set(groups)} if self._parts else set()
        return parts.pop() if len(parts) == 1 else None

    def choose(self, hidden_nD: Tensor, groups_n: Tensor | None, part: int | None = None) -> tuple[Tensor, Tensor]:
        """(logits, head rows) of the best allowed id of each token, each (n,); a NaN anywhere comes out as the best logit.

        part: `part_of` all of their groups.
        """
        logits_nX, first = self._allowed(hidden_nD, groups_n, part)
        if self.device.type == "cpu":  # torch looks at one number at a time here; numpy knows no bfloat16
            logits_nX = logits_nX.float()
            return logits_nX.amax(dim=-1), torch.from_numpy(logits_nX.numpy().argmax(axis=-1) + first)
        best = logits_nX.max(dim=-1)
        return best.values, best.indices

    def choose_with_margin(self, hidden_nD: Tensor, groups_n: Tensor | None, part: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As `choose`, and how far the second best is behind."""
        logits_nX, first = self._allowed(hidden_nD, groups_n, part)
        best = logits_nX.topk(min(2, logits_nX.shape[-1]), dim=-1)
        return best.values[:, 0], best.indices[:, 0] + first, best.values[:, 0] - best.values[:, -1]

    def _allowed(self, hidden_nD: Tensor, groups_n: Tensor | None, part: int | None) -> tuple[Tensor, int]:
        """Logits of the head, or of a part of it, and the head row of the first; of ids that are not allowed, minus infinity."""
        head, mask_SX, first = self.head, self.mask_SX, 0
        if part is not None:
            head, mask_SX, first = self._parts[part].head, self._parts[part].mask_SX, self._parts[part].first
        logits_nX = head(hidden_nD)
        if mask_SX is not None and groups_n is not None:
            logits_nX += F.embedding(groups_n, mask_SX)
        return logits_nX, first


def _rotary_tables(llm: LlmConfig, places: int, device: torch.device) -> tuple[Tensor, Tensor]:
    cos, sin = rotary(torch.arange(places, device=device)[None], llm.head_dim, llm.rope_theta)
    return cos[0, 0], sin[0, 0]


def _turned(x_nHD: Tensor, cos_n1D: Tensor, sin_n1D: Tensor) -> Tensor:
    """RoPE in float32."""
    wide = x_nHD.float()
    first, second = wide.chunk(2, dim=-1)
    return wide * cos_n1D + torch.cat([-second, first], dim=-1) * sin_n1D
