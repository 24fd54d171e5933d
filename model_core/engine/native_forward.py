"""The forward pass of a small float32 network by the compiled decoder (`kernels/decoder.c`): one call a block, no Python between layers.

Its sums have one order, whatever is computed together, so that blocks equal single ids bit for bit on every processor. Where the decoder
is not compiled, or the network is none that it knows, `BlockForward` computes the same with torch.

Keys lie transposed in the cache, [E, P] for each head: a cache belongs to the kind of forward pass that fills it.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.engine.automaton import Grammar
from model_core.engine.cache import RowCache, RowPart
from model_core.engine.forward import BlockForward
from model_core.engine.kernels.compiled import decoder_library
from model_core.engine.kernels.native_decoder import Asked, NativeDecoder, Tokens, fits
from model_core.engine.kernels.projection import LinearWeight
from model_core.network.int8.stored import is_int8
from model_core.network.model import MolmoAct

logger = logging.getLogger(__name__)

# Weights that no processor's cache holds are read as fast by the packed kernels of torch, which use every core.
_MOST_WEIGHTS = 1 << 23
# How far logits may be from torch's, of the largest; another order of sums moves them by 1e-6.
_TOLERANCE, _PROBED = 1e-4, 24


def make_forward(model: MolmoAct, grammar: Grammar, *, max_length: int, dtype: torch.dtype, constrained: bool) -> BlockForward:
    """The fastest forward pass that computes `model` here: the compiled one where it can and agrees with torch, else torch's."""
    rows = len(np.unique(np.concatenate(grammar.groups))) if constrained else model.config.llm.vocab_size
    library = decoder_library() if _is_known(model, dtype, rows) else None
    if library is not None and fits(model.config.llm, library):
        native = NativeForward(model, grammar, library, max_length=max_length, constrained=constrained)
        reference = BlockForward(model, grammar, max_length=max_length, dtype=dtype, constrained=constrained, packed=False)
        if _agree(native, reference, max_length):
            return native
        logger.warning("decoder.not_used reason=it computes something else than torch on this machine; computing with torch")
    return BlockForward(model, grammar, max_length=max_length, dtype=dtype, constrained=constrained)


def _is_known(model: MolmoAct, dtype: torch.dtype, head_rows: int) -> bool:
    """Whether the compiled decoder can compute this network, and is made for one of its size."""
    llm = model.config.llm
    weights = sum(weight.numel() for weight in model.model.transformer.blocks.parameters()) + head_rows * llm.hidden_size
    is_plain = llm.hidden_act == "silu" and not (llm.norm_after or llm.use_qk_norm or is_int8(model.config.extras))
    is_here = dtype is torch.float32 and model.lm_head.weight.device.type == "cpu"
    return is_plain and is_here and weights <= _MOST_WEIGHTS


@torch.inference_mode()
def _agree(native: BlockForward, reference: BlockForward, max_length: int) -> bool:
    """Whether both compute the same logits of a few tokens behind others, in two rows."""
    length = min(max_length, _PROBED)
    half, places_L, found = length // 2, torch.arange(length), []
    ids_L = torch.randint(len(native.head_ids), (length,), generator=torch.Generator().manual_seed(0))
    positions_2W = torch.arange(half, length).expand(2, -1)
    flat = positions_2W.flatten()
    for forward in (native, reference):
        x_LD = forward.embed(torch.tensor(forward.head_ids)[ids_L])
        cache = RowCache(forward.config, capacity=2, length=max_length, dtype=forward.dtype)
        for row in range(2):
            forward.row_block(x_LD[:half], places_L[:half], cache, RowPart(row=row, start=0, real=half))
        found.append(forward.head(forward.rows_block(x_LD[flat], places_L[flat], positions_2W, cache, cache.places)))
    return bool((found[0] - found[1]).abs().max() <= _TOLERANCE * found[1].abs().max())


class NativeForward(BlockForward):
    """As `BlockForward`, by the compiled decoder. Float32 on a CPU."""

    computes = "compiled"

    def __init__(self, model: MolmoAct, grammar: Grammar, library: ctypes.CDLL, *, max_length: int, constrained: bool) -> None:
        super().__init__(model, grammar, max_length=max_length, dtype=torch.float32, constrained=constrained, packed=False)
        self.layers, self._parts = [], []  # the copies that torch would compute with
        ids_X = torch.tensor(self.head_ids)
        head = LinearWeight.of(model.lm_head, model.model.transformer.ln_f)
        turns = (self._cos_PD, self._sin_PD) if self.config.use_rope else None
        self.decoder = NativeDecoder(library, model, head.rows(ids_X).weight_OI, turns)
        self.head = self.decoder.logits  # type: ignore[assignment]
        self.ranges = self._ranges(grammar)

    def row_block(self, x_WD: Tensor, places_W: Tensor, cache: RowCache, part: RowPart) -> Tensor:
        """See `BlockForward.row_block`; of padding, zeros. Of what is cut, the last layer computes keys and values alone."""
        real, start, end = part.real, part.start, part.start + part.real
        first = end - part.queries
        asked = Asked(first=real - part.queries, end=end, hole=first - part.unseen, hole_end=first) if part.queries else None
        tokens = Tokens([-1] * real, places_W[:real].tolist(), list(range(start, end)), [part.row] * real)
        hidden = self.decoder.hidden(tokens, x_WD[:real], cache, real - part.cut, asked)
        padding = len(x_WD) - real
        return F.pad(hidden, (0, 0, 0, padding)) if padding else hidden

    def rows_block(self, x_nD: Tensor, places_n: Tensor, positions_BW: Tensor, cache: RowCache, end: int) -> Tensor:
        """See `BlockForward.rows_block`; of padding, anything."""
        positions = [-1 if place >= cache.length else place for place in positions_BW.flatten().tolist()]
        rows = [row for row in range(len(positions_BW)) for _ in range(positions_BW.shape[1])]
        return self.decoder.hidden(Tokens([-1] * len(rows), places_n.tolist(), positions, rows), x_nD, cache, len(rows))

    # ---- what is chosen

    def decide(
        self, tokens: Tokens, given_nD: Tensor | None, groups: Sequence[int], cache: RowCache
    ) -> tuple[list[int], list[float], list[float]]:
        """A block and its choices in one call: of the last tokens, as many as `groups`, the head rows chosen, their logits, and how far
        the second best is behind. given_nD: see `NativeDecoder.choices`. Only where `ranges` are known."""
        assert self.ranges is not None
        ranges = [bound for group in groups for bound in self.ranges[group]]
        return self.decoder.choices(tokens, given_nD, ranges, cache)

    def _ranges(self, grammar: Grammar) -> list[tuple[int, int]] | None:
        """By group, the head rows [first, stop) that it allows; None where one of them is no range."""
        if self.mask_SX is None:
            return [(0, len(self.head_ids))] * len(grammar.groups)
        ranges = []
        for allowed in grammar.groups:
            first = int(np.searchsorted(self.head_ids, allowed[0]))
            if self.head_ids[first : first + len(allowed)] != allowed.tolist():
                return None
            ranges.append((first, first + len(allowed)))
        return ranges
