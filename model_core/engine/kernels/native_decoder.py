"""The compiled decoder with a network's weights: structs as `decoder.c` has them, weights in panels, tensors in and out.

Shape letters: n tokens, O outputs, I inputs, D width, X rows of the head, P places; see `decoder.c` for the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from ctypes import POINTER, Structure, byref, c_float, c_int64, c_void_p
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
        ("turns", c_void_p),
        *((name, c_int64) for name in ("count", "width", "heads", "groups", "depth", "feed", "turn_places")),
        *((name, c_float) for name in ("least", "scale")),
    )


class _Block(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("x", "hidden", "memory", "scratch", "places", "positions")),
        *((name, c_int64) for name in ("n", "wanted", "width", "row", "capacity", "cache_places")),
        *((name, c_int64) for name in ("query", "query_end", "hole", "hole_end")),
    )


class _Product(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("a", "b", "bias", "y")),
        *((name, c_int64) for name in ("lda", "ldb", "ldy", "depth")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Which tokens of a block are computed: `n` of them, hidden states of the last `wanted`, `width` tokens for each row from `row` on.

    query: the first placeholder, n where there is none; they see each other, up to query_end, and no place of [hole, hole_end).
    """

    n: int
    wanted: int
    width: int
    row: int
    query: int
    query_end: int = 0
    hole: int = 0
    hole_end: int = 0


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


class NativeDecoder:
    """The decoder of `model` and a head (X, D), float32; the norms' weights are part of the projections. Keeps all that C points to."""

    def __init__(self, library: ctypes.CDLL, model: MolmoAct, head_XD: Tensor, turns: tuple[Tensor, Tensor] | None) -> None:
        self._library, self._lanes, llm = library, library.actwright_lanes(), model.config.llm
        blocks = list(model.model.transformer.blocks)
        whole = [*model.model.transformer.blocks.parameters(), head_XD, *(turns or ())]
        self._kept = _Weights(sum(weight.numel() + _LINE for weight in whole) + 2 * self._lanes * llm.hidden_size)
        self._layers = (_Layer * len(blocks))(*(self._layer(block) for block in blocks))  # type: ignore[arg-type]
        self._network = _Network(
            layers=self._layers,
            turns=None if turns is None else self._kept.pointer(torch.stack(turns)),
            count=len(blocks),
            width=llm.hidden_size,
            heads=llm.num_attention_heads,
            groups=llm.num_key_value_heads,
            depth=llm.head_dim,
            feed=llm.intermediate_size,
            turn_places=0 if turns is None else len(turns[0]),
            least=llm.layer_norm_eps * llm.hidden_size,
            scale=llm.head_dim**-0.5,
        )
        heads = 2 * llm.num_attention_heads + 2 * llm.num_key_value_heads
        self._numbers = llm.hidden_size + heads * llm.head_dim + llm.intermediate_size  # scratch of a token
        self._width, self._rows = llm.hidden_size, len(head_XD)
        self._head = self._kept.pointer(self._panels(head_XD))

    def run(self, x_nD: Tensor, places_n: Tensor, positions_n: Tensor, cache: RowCache, span: Span) -> Tensor:
        """Hidden states (wanted, D). x_nD is changed; positions_n: where a token stands in its row, negative for padding.

        Raises `SpecError` for tokens behind the end of the cache.
        """
        if not len(x_nD) == len(places_n) == len(positions_n) == span.n:
            raise SpecError(f"the cache holds {cache.length} tokens of a row; {span.n} more do not fit. Fix: allocate a longer one")
        hidden = torch.empty(span.wanted, self._width)
        scratch = torch.empty(_MOST_ROWS * cache.places + span.n * self._numbers)
        block = _Block(
            x=x_nD.data_ptr(),
            hidden=hidden.data_ptr(),
            memory=cache.memory.data_ptr(),
            scratch=scratch.data_ptr(),
            places=places_n.data_ptr(),
            positions=positions_n.data_ptr(),
            n=span.n,
            wanted=span.wanted,
            width=span.width,
            row=span.row,
            capacity=cache.capacity,
            cache_places=cache.places,
            query=span.query,
            query_end=span.query_end,
            hole=span.hole,
            hole_end=span.hole_end,
        )
        self._library.actwright_block(byref(self._network), byref(block))
        return hidden

    def logits(self, hidden_nD: Tensor) -> Tensor:
        """Logits (n, X) of the whole head."""
        hidden_nD = hidden_nD.contiguous()
        product, scores_nX = self._head_product(hidden_nD, len(hidden_nD))
        self._library.actwright_product(byref(product), len(hidden_nD), scores_nX.shape[1])
        return scores_nX[:, : self._rows]

    def choose(self, hidden_nD: Tensor, ranges_n2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(logits, head rows, how far the second best is behind) of the best of the rows [first, stop) of each token, each (n,)."""
        hidden_nD, count = hidden_nD.contiguous(), len(hidden_nD)
        rows_n, logits_n, margins_n = torch.empty(count, dtype=torch.int64), torch.empty(count), torch.empty(count)
        product, _scores = self._head_product(hidden_nD, _MOST_ROWS)
        self._library.actwright_choose(
            byref(product), count, ranges_n2.data_ptr(), rows_n.data_ptr(), logits_n.data_ptr(), margins_n.data_ptr()
        )
        return logits_n, rows_n, margins_n

    def _head_product(self, hidden_nD: Tensor, rows: int) -> tuple[_Product, Tensor]:
        """The product of the head and memory for the scores of `rows` tokens."""
        panel, width = 2 * self._lanes, hidden_nD.shape[1]
        scores = torch.empty(rows, -(-self._rows // panel) * panel)
        product = _Product(
            a=hidden_nD.data_ptr(), b=self._head, bias=None, y=scores.data_ptr(), lda=width, ldb=panel, ldy=scores.shape[1], depth=width
        )
        return product, scores

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
