"""Whether a token's numbers depend on how many tokens are computed with it, measured on the machine that decodes.

Libraries choose their kernels by the number of rows of a product; a row computed alone may then differ in its last bits from the
same row in a block, and a near tie between two ids can flip. Where all products have at least `tile` rows the sums are usually
the same bit for bit: then blocks and plain decoding agree by construction. Where they are not, `bound` says how far logits moved.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_core.engine.cache import RowCache, RowPart
from model_core.engine.forward import BlockForward

_TILES = (1, 2, 4, 8, 16)
_TOKENS, _WIDEST, _ROWS = 33, 128, 3
# Where the compared tokens stand, as shares of the longest answer: how much attention sums over may choose its kernels too.
_PLACES, _ENOUGH_S = (1.0, 0.1, 0.5), 0.2
# A measured difference is a sample; the bound that guards against it is this many times as large.
_SAFETY = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """tile: the fewest rows of a product from which on results are equal in every bit; 1 and a `bound` above 0 where there is no such
    number: the largest difference of a logit that was seen between one token alone and a block, times a safety factor."""

    tile: int
    bound: float

    @property
    def bitwise(self) -> bool:
        """Whether equality holds by construction."""
        return self.bound == 0.0


@torch.inference_mode()
def measure_numerics(forward: BlockForward, length: int) -> Numerics:
    """Compare one token at a time (padded to each tile) with blocks of several sizes and rows, over random tokens."""
    widest = min(_WIDEST, length // 2)
    room = length - widest - _TILES[-1] - 2  # the probe pads past its last token
    began, worst, probes = time.perf_counter(), 0.0, []
    for seed, share in enumerate(_PLACES):  # a difference may show in one row of a thousand only; a large model is asked once
        before = max(1, int(share * room))
        generator = torch.Generator().manual_seed(seed)
        ids_L = torch.randint(len(forward.head_ids), (before + widest,), generator=generator).to(forward.device)
        probe = _Probe(forward, ids_L, before, min(_TOKENS, widest))
        probes.append((probe, probe.blocks()))
        if time.perf_counter() - began > _ENOUGH_S:
            break
    for tile in _TILES:
        off = next((off for probe, blocks in probes if (off := probe.difference(blocks, tile)) != 0.0), 0.0)
        if off == 0.0:
            return Numerics(tile=tile, bound=0.0)
        worst = off if tile == 1 else worst
    return Numerics(tile=1, bound=_SAFETY * worst)


class _Probe:
    """The same tokens through the decoder in different company: `tokens` of them behind the first `before` are compared."""

    def __init__(self, forward: BlockForward, ids_L: Tensor, before: int, tokens: int) -> None:
        self.forward, self.ids_L, self.before, self.tokens = forward, ids_L, before, tokens
        self.places_L = torch.arange(len(ids_L), device=forward.device)
        self.length = len(ids_L) + 1
        self.x_LD = forward.embed(torch.tensor(forward.head_ids, device=forward.device)[ids_L])

    def one_by_one(self, tile: int) -> Tensor:
        """Logits (N, X) of the tokens that are compared, each in a forward of its own."""
        cache = self._cache(1)
        self._row(cache, 0, self.before)
        parts = []
        for start in range(self.before, self.before + self.tokens):
            pick = torch.full((tile,), start, device=self.ids_L.device)
            hidden = self.forward.row_block(self.x_LD[pick], self.places_L[pick], cache, RowPart(row=0, start=start, real=1))
            parts.append(self._logits(hidden)[:1])
        return torch.cat(parts)

    def difference(self, blocks: Sequence[tuple[int, Tensor]], tile: int) -> float:
        """How far logits of `blocks`, and of a batch of rows, are from those of one token at a time padded to `tile`."""
        alone = self.one_by_one(tile)
        parts = [*blocks, *self.batched(tile)]
        return max(float((part - alone[start : start + len(part)]).abs().max()) for start, part in parts)

    def blocks(self) -> list[tuple[int, Tensor]]:
        """(first token, logits) of blocks of several widths, and of everything at once behind nothing (a prefill)."""
        found = []
        for width in (16, self.tokens, len(self.ids_L) - self.before):
            cache = self._cache(1)
            self._row(cache, 0, self.before)
            found.append((0, self._row(cache, self.before, width)[: self.tokens]))
        everything = self._row(self._cache(1), 0, len(self.ids_L))
        return [*found, (0, everything[self.before : self.before + self.tokens])]

    def batched(self, width: int) -> list[tuple[int, Tensor]]:
        """(first token, logits) of a few tokens decoded together with other rows that stand elsewhere."""
        cache = self._cache(_ROWS)
        starts = [self.before, self.before + width, 1]
        for row, start in enumerate(starts):
            self.forward.row_block(self.x_LD[:start], self.places_L[:start], cache, RowPart(row=row, start=0, real=start))
        positions_BW = torch.tensor([[start + step for step in range(width)] for start in starts], device=self.ids_L.device)
        flat = positions_BW.flatten()
        hidden = self.forward.rows_block(self.x_LD[flat], self.places_L[flat], positions_BW, cache, cache.places)
        logits = self._logits(hidden).view(_ROWS, width, -1)
        return [(0, logits[0]), (width, logits[1])]

    def _row(self, cache: RowCache, start: int, width: int) -> Tensor:
        part = slice(start, start + width)
        return self._logits(self.forward.row_block(self.x_LD[part], self.places_L[part], cache, RowPart(row=0, start=start, real=width)))

    def _logits(self, hidden_nD: Tensor) -> Tensor:
        return self.forward.head(hidden_nD).float()

    def _cache(self, rows: int) -> RowCache:
        return RowCache(self.forward.config, capacity=rows, length=self.length + 16, dtype=self.forward.dtype, device=self.forward.device)
