"""The compiled decoder with a network's weights: structs as `decoder.c` has them, weights in panels, tensors in and out.

Shape letters: n tokens, O outputs, I inputs, D width, X rows of the head, P places; see `decoder.c` for the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from array import array
from ctypes import POINTER, Structure, addressof, byref, c_float, c_int64, c_void_p
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.engine.cache import RowCache
from model_core.engine.kernels.projection import LinearWeight
from model_core.network.config import LlmConfig
from model_core.network.language import DecoderBlock
from model_core.network.model import MolmoAct
from model_core.spec.errors import SpecError

# Rows of a tile: the most that any processor has. Weights begin at whole cache lines.
_MOST_ROWS, _LINE = 16, 16


class _Layer(Structure):
    _fields_ = tuple((name, c_void_p) for name in ("qkv", "bias", "out", "up", "down"))


class _Network(Structure):
    _fields_ = (
        ("layers", POINTER(_Layer)),
        *((name, c_void_p) for name in ("embedding", "slots", "turns", "head")),
        *((name, c_int64) for name in ("count", "width", "heads", "groups", "depth", "feed", "turn_places", "head_rows")),
        *((name, c_float) for name in ("least", "scale")),
    )


class _Block(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("ids", "places", "positions", "rows", "ranges", "given")),
        *((name, c_void_p) for name in ("memory", "scratch", "hidden", "logits", "margins", "chosen")),
        *((name, c_int64) for name in ("n", "wanted", "capacity", "cache_places")),
        *((name, c_int64) for name in ("query", "query_end", "hole", "hole_end")),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """The tokens of a block, lists of equal length: ids (less than 0: its embedding is given), places of slots, positions and rows of the
    cache. A row's tokens stand together, in order; padding, of position -1, behind them."""

    ids: list[int]
    places: list[int]
    positions: list[int]
    rows: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Placeholders: the tokens from number `first` on see each other, up to place `end`, and no place of [hole, hole_end)."""

    first: int
    end: int
    hole: int
    hole_end: int


def fits(llm: LlmConfig, library: ctypes.CDLL) -> bool:
    """Whether every product of the network is whole panels here."""
    asked, panel = llm.num_attention_heads * llm.head_dim, 2 * library.actwright_lanes()
    return not any(size % panel for size in (llm.hidden_size, llm.head_dim, asked, llm.intermediate_size))


class _Weights:
    """Memory for `count` floats in large pages where the system has them: the time of one token is that of reading all weights, and
    of finding their pages."""

    def __init__(self, count: int) -> None:
        memory = mmap.mmap(-1, 4 * count)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):
                memory.madvise(mmap.MADV_HUGEPAGE)
        self._numbers, self._used = torch.frombuffer(memory, dtype=torch.float32), 0

    def pointer(self, tensor: Tensor) -> int:
        """Where a copy of `tensor` lies."""
        kept = self._numbers[self._used : self._used + tensor.numel()]
        kept.view(tensor.shape).copy_(tensor)
        self._used += -(-tensor.numel() // _LINE) * _LINE
        return kept.data_ptr()


class _Work:
    """Memory of one call at a time: inputs are pointed to, outputs of up to `tokens` tokens are held."""

    def __init__(self, tokens: int, numbers: int, width: int) -> None:
        self.tokens, self.numbers = tokens, numbers
        self.scratch, self.hidden_nD = torch.empty(numbers), torch.empty(tokens, width)
        self.chosen, self.logits, self.margins = (c_int64 * tokens)(), (c_float * tokens)(), (c_float * tokens)()
        self.block = _Block(
            scratch=self.scratch.data_ptr(),
            hidden=self.hidden_nD.data_ptr(),
            chosen=addressof(self.chosen),
            logits=addressof(self.logits),
            margins=addressof(self.margins),
        )
        self.at = byref(self.block)


class NativeDecoder:
    """The decoder of `model` and a head (X, D), float32; the norms' weights are part of the projections. Keeps all that C points to.

    turns: cosines and sines by place, (P, E) each, or None without rotary positions.
    """

    def __init__(self, library: ctypes.CDLL, model: MolmoAct, head_XD: Tensor, turns: tuple[Tensor, Tensor] | None) -> None:
        self._library, self._lanes, llm = library, library.actwright_lanes(), model.config.llm
        transformer = model.model.transformer
        blocks, slots = list(transformer.blocks), transformer.slot_embedding
        self._embedding = transformer.wte.embedding.detach().contiguous()  # may be large, and few of its rows are read
        whole = [*transformer.blocks.parameters(), *([] if slots is None else [slots]), head_XD, *(turns or ())]
        self._kept = _Weights(sum(weight.numel() + _LINE for weight in whole) + 2 * self._lanes * llm.hidden_size)
        self._layers = (_Layer * len(blocks))(*(self._layer(block) for block in blocks))  # type: ignore[arg-type]
        self._network = _Network(
            layers=self._layers,
            embedding=self._embedding.data_ptr(),
            slots=None if slots is None else self._kept.pointer(slots.detach()),
            turns=None if turns is None else self._kept.pointer(torch.stack(turns)),
            head=self._kept.pointer(self._panels(head_XD)),
            count=len(blocks),
            width=llm.hidden_size,
            heads=llm.num_attention_heads,
            groups=llm.num_key_value_heads,
            depth=llm.head_dim,
            feed=llm.intermediate_size,
            turn_places=0 if turns is None else len(turns[0]),
            head_rows=len(head_XD),
            least=llm.layer_norm_eps * llm.hidden_size,
            scale=llm.head_dim**-0.5,
        )
        self._at = byref(self._network)
        heads = 2 * llm.num_attention_heads + 2 * llm.num_key_value_heads
        self._numbers = 2 * llm.hidden_size + heads * llm.head_dim + llm.intermediate_size  # scratch of a token
        self._width, self._head_width = llm.hidden_size, len(head_XD) + 2 * self._lanes
        self._free: list[_Work] = []

    def hidden(self, tokens: Tokens, given_nD: Tensor, cache: RowCache, wanted: int, asked: Asked | None = None) -> Tensor:
        """Hidden states (wanted, D) of the last `wanted` tokens. given_nD: embeddings of those without an id."""
        work = self._run(tokens, given_nD, [], cache, wanted, asked)
        found = work.hidden_nD[:wanted].clone()
        self._free.append(work)
        return found

    def choices(
        self, tokens: Tokens, given_nD: Tensor | None, ranges: list[int], cache: RowCache
    ) -> tuple[list[int], list[float], list[float]]:
        """Of the last tokens, the best head row in [first, stop) of each (`ranges`, one pair after the other), its logit, how far the
        second best is behind. The first of equals is the best, and NaN before all."""
        wanted = len(ranges) // 2
        work = self._run(tokens, given_nD, ranges, cache, wanted, None)
        found = work.chosen[:wanted], work.logits[:wanted], work.margins[:wanted]
        self._free.append(work)
        return found

    def logits(self, hidden_nD: Tensor) -> Tensor:
        """Logits (n, X) of the whole head."""
        hidden_nD, panel = hidden_nD.contiguous(), 2 * self._lanes
        logits_nX = torch.empty(len(hidden_nD), -(-self._network.head_rows // panel) * panel)
        self._library.actwright_logits(self._at, hidden_nD.data_ptr(), logits_nX.data_ptr(), len(hidden_nD))
        return logits_nX[:, : self._network.head_rows]

    def _run(self, tokens: Tokens, given_nD: Tensor | None, ranges: list[int], cache: RowCache, wanted: int, asked: Asked | None) -> _Work:
        """Raises `SpecError` for tokens behind the end of the cache."""
        count = len(tokens.ids)
        if max(tokens.positions) >= cache.length:
            raise SpecError(f"the cache holds {cache.length} tokens of a row; {count} more do not fit. Fix: allocate a longer one")
        numbers = array("q", tokens.ids + tokens.places + tokens.positions + tokens.rows + ranges)
        place, lists = numbers.buffer_info()[0], 8 * count
        given_nD = None if given_nD is None else given_nD.contiguous()
        work = self._work(count, cache)
        block = work.block
        block.ids, block.places, block.positions, block.rows = place, place + lists, place + 2 * lists, place + 3 * lists
        block.ranges = place + 4 * lists if ranges else None
        block.given = None if given_nD is None else given_nD.data_ptr()
        block.memory, block.capacity, block.cache_places = cache.memory.data_ptr(), cache.capacity, cache.places
        block.n, block.wanted, block.query = count, wanted, count
        if asked is not None:
            block.query, block.query_end, block.hole, block.hole_end = asked.first, asked.end, asked.hole, asked.hole_end
        self._library.actwright_block(self._at, work.at)
        return work

    def _work(self, tokens: int, cache: RowCache) -> _Work:
        """Memory that no other call uses: calls of several threads each have their own."""
        numbers = _MOST_ROWS * max(cache.places, self._head_width) + tokens * self._numbers
        try:
            work = self._free.pop()
        except IndexError:
            return _Work(2 * tokens, 2 * numbers, self._width)
        fits_in = work.tokens >= tokens and work.numbers >= numbers
        return work if fits_in else _Work(2 * tokens, 2 * numbers, self._width)

    # ---- weights

    def _layer(self, block: DecoderBlock) -> _Layer:
        attn, mlp = block.self_attn, block.mlp
        value, gate = LinearWeight.of(mlp.ff_proj, block.ff_norm).weight_OI.chunk(2)
        # a panel of values beside their gates: the activation is computed where both are
        both = torch.stack([value.unflatten(0, (-1, self._lanes)), gate.unflatten(0, (-1, self._lanes))], dim=1).flatten(0, 2)
        return _Layer(
            qkv=self._kept.pointer(self._panels(LinearWeight.of(attn.att_proj, block.attn_norm).weight_OI)),
            bias=None if attn.att_proj.bias is None else self._kept.pointer(attn.att_proj.bias.detach()),
            out=self._kept.pointer(self._panels(attn.attn_out.weight.detach())),
            up=self._kept.pointer(self._panels(both)),
            down=self._kept.pointer(self._panels(mlp.ff_out.weight.detach())),
        )

    def _panels(self, weight_OI: Tensor) -> Tensor:
        """(panels, I, outputs of a panel), the last one filled up with zeros."""
        panel = 2 * self._lanes
        filled = F.pad(weight_OI.float(), (0, 0, 0, -len(weight_OI) % panel))
        return filled.unflatten(0, (-1, panel)).transpose(1, 2)
