"""Windows of several rows -> tensors -> one forward -> choices per row. Eager on a CPU, replayed graphs on CUDA.

One row on a CPU is the fast path: slices in place of indices. Everything else runs as B x W tokens with a position each. On CUDA
rows and widths are rounded up to buckets, each captured once as a graph over static buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model_core.engine.cache import RowCache, RowPart, aligned
from model_core.engine.forward import BlockForward
from model_core.engine.kernels.native_decoder import Tokens
from model_core.engine.native_forward import NativeForward
from model_core.engine.rounds.row_state import Window

_IDS, _PLACES, _POSITIONS, _GROUPS = range(4)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choices:
    """Of one row: the id chosen after each fed token, its logit, and (when asked for) how far the second best is behind."""

    ids: list[int]
    logits: list[float]
    margins: list[float] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Feed:
    """One row's part of a block. groups[j]: which ids output j may choose from (`Grammar.group`). start: place of the first token."""

    window: Window
    groups: list[int]
    start: int


class BlockRunner:
    """Runs feeds of rows 0..B-1 of a cache. tile: rows of a matrix product are never fewer, so that their sums do not depend on how
    many there are (see `engine.numerics`). margins: also ask for the second best."""

    def __init__(self, forward: BlockForward, *, tile: int = 1, margins: bool = False) -> None:
        self.forward, self.tile, self.margins = forward, tile, margins
        self._compiled = forward if isinstance(forward, NativeForward) and forward.ranges is not None else None
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._pool: Any = None  # all graphs share their memory: each one's outputs are read before the next runs

    def run(self, feeds: Sequence[Feed], cache: RowCache, *, first_row: int = 0) -> list[Choices]:
        """One forward for all rows. first_row: cache row of the feed when there is one."""
        if self._compiled is not None:
            return self._run_compiled(self._compiled, feeds, cache, first_row)
        if self.forward.device.type == "cuda" and first_row == 0:
            return self._run_graph(feeds, cache)
        if len(feeds) == 1:
            return [self._run_row(feeds[0], cache, first_row)]
        return self._run_rows(feeds, cache)

    @torch.inference_mode()
    def prefill(self, x_LD: Tensor, places_L: Tensor, feed: Feed, cache: RowCache, row: int) -> Choices:
        """As `run` for one row, with the embedded prompt before it: x_LD (L, D), all but the prompt's last token, which is fed."""
        if self._compiled is not None:
            return self._run_compiled(self._compiled, [feed], cache, row, (x_LD, places_L))[0]
        ids, places, groups = self._row_tensors(feed, max(len(feed.window.ids), self.tile))
        real = len(x_LD) + len(feed.window.ids)
        x = torch.cat([x_LD, self.forward.embed(ids)])
        part = RowPart(row=row, start=feed.start - len(x_LD), real=real, cut=len(x_LD))
        hidden = self.forward.row_block(x, torch.cat([places_L, places]), cache, part)
        return self._choices([feed], *self._chosen(hidden, groups, self.forward.part_of(feed.groups)), width=len(ids))[0]

    def _run_compiled(
        self, forward: NativeForward, feeds: Sequence[Feed], cache: RowCache, row: int, prompt: tuple[Tensor, Tensor] | None = None
    ) -> list[Choices]:
        """Rows from `row` on, each of its own width, nothing padded; before the first one the embedded prompt and its places."""
        x_LD, before = (None, []) if prompt is None else (prompt[0], prompt[1].tolist())
        start = feeds[0].start
        tokens = Tokens([-1] * len(before), before, [*range(start - len(before), start)], [row] * len(before))
        groups: list[int] = []
        for number, feed in enumerate(feeds, row):
            count = len(feed.window.ids)
            tokens.ids.extend(feed.window.ids)
            tokens.places.extend(feed.window.places)
            tokens.positions.extend(range(feed.start, feed.start + count))
            tokens.rows.extend([number] * count)
            groups += feed.groups
        rows, logits, margins = forward.decide(tokens, x_LD, groups, cache)
        ids = [forward.head_ids[head_row] for head_row in rows]
        found, first = [], 0
        for feed in feeds:
            part = slice(first, first + len(feed.window.ids))
            found.append(Choices(ids=ids[part], logits=logits[part], margins=margins[part] if self.margins else None))
            first = part.stop
        return found

    @torch.inference_mode()
    def _run_row(self, feed: Feed, cache: RowCache, row: int) -> Choices:
        ids, places, groups = self._row_tensors(feed, max(len(feed.window.ids), self.tile))
        part = RowPart(row=row, start=feed.start, real=len(feed.window.ids))
        hidden = self.forward.row_block(self.forward.embed(ids), places, cache, part)
        return self._choices([feed], *self._chosen(hidden, groups, self.forward.part_of(feed.groups)), width=len(ids))[0]

    @torch.inference_mode()
    def _run_rows(self, feeds: Sequence[Feed], cache: RowCache) -> list[Choices]:
        width = max(self.tile, *(len(feed.window.ids) for feed in feeds))
        packed_4n = self._packed(feeds, len(feeds), width, cache).to(self.forward.device)
        end = min(aligned(max(feed.start for feed in feeds) + width), cache.places)
        part = self.forward.part_of([group for feed in feeds for group in feed.groups])
        return self._choices(feeds, *self._eager(packed_4n, len(feeds), cache, end, part), width=width)

    def _eager(self, packed_4n: Tensor, rows: int, cache: RowCache, end: int, part: int | None = None) -> tuple[Tensor, ...]:
        positions_BW = packed_4n[_POSITIONS].view(rows, -1)
        x_nD = self.forward.embed(packed_4n[_IDS])
        hidden_nD = self.forward.rows_block(x_nD, packed_4n[_PLACES], positions_BW, cache, end)
        return self._chosen(hidden_nD, packed_4n[_GROUPS], part)

    def _chosen(self, hidden_nD: Tensor, groups_n: Tensor, part: int | None) -> tuple[Tensor, ...]:
        choose = self.forward.choose_with_margin if self.margins else self.forward.choose
        return choose(hidden_nD, groups_n, part)

    def _row_tensors(self, feed: Feed, width: int) -> Tensor:
        pad = [0] * (width - len(feed.window.ids))
        rows = [feed.window.ids + pad, feed.window.places + pad, feed.groups + pad]
        return torch.from_numpy(np.array(rows, np.int64)).to(self.forward.device)  # faster than torch reads lists

    def _packed(self, feeds: Sequence[Feed], rows: int, width: int, cache: RowCache) -> Tensor:
        """(4, rows * width) int64: ids, places, positions, groups; what is not a token is written to the cache's last place."""
        packed: list[list[int]] = [[], [], [], []]
        for feed in feeds:
            real = len(feed.window.ids)
            pad = [0] * (width - real)
            packed[_IDS] += feed.window.ids + pad
            packed[_PLACES] += feed.window.places + pad
            packed[_POSITIONS] += [*range(feed.start, feed.start + real), *[cache.length] * len(pad)]
            packed[_GROUPS] += feed.groups + pad
        empty = (rows - len(feeds)) * width
        for line, filler in zip(packed, (0, 0, cache.length, 0), strict=True):
            line += [filler] * empty
        return torch.tensor(packed)

    def _choices(
        self, feeds: Sequence[Feed], logits_n: Tensor, ids_n: Tensor, margins_n: Tensor | None = None, *, width: int
    ) -> list[Choices]:
        logits, rows = logits_n.tolist(), ids_n.tolist()
        margins = None if margins_n is None else margins_n.tolist()
        head_ids = self.forward.head_ids
        found = []
        for number, feed in enumerate(feeds):
            part = slice(number * width, number * width + len(feed.window.ids))
            ids = [head_ids[row] for row in rows[part]]
            found.append(Choices(ids=ids, logits=logits[part], margins=None if margins is None else margins[part]))
        return found

    # ---- CUDA graphs

    def _run_graph(self, feeds: Sequence[Feed], cache: RowCache) -> list[Choices]:
        rows = min(1 << (len(feeds) - 1).bit_length(), cache.capacity)
        width = 1 << (max(self.tile, *(len(feed.window.ids) for feed in feeds)) - 1).bit_length()
        graph = self._graphs.get((rows, width))
        if graph is None or graph.cache is not cache:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            graph = self._graphs[rows, width] = _Graph(self, rows, width, cache, self._pool)
        return self._choices(feeds, *graph.replay(self._packed(feeds, rows, width, cache)), width=width)


class _Graph:
    """One captured block of rows x width tokens over the whole length of `cache`: static buffers in and out."""

    @torch.inference_mode()
    def __init__(self, runner: BlockRunner, rows: int, width: int, cache: RowCache, pool: Any) -> None:
        self.cache = cache
        device = runner.forward.device
        self._in_4n = torch.zeros(4, rows * width, dtype=torch.int64, device=device)
        self._in_4n[_POSITIONS] = cache.length  # while it is captured it may write nowhere but into the last place
        end = cache.places
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(2):  # libraries pick their kernels and workspaces now, which capture forbids
                runner._eager(self._in_4n, rows, cache, end)
        torch.cuda.current_stream(device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._out = runner._eager(self._in_4n, rows, cache, end)

    def replay(self, packed_4n: Tensor) -> tuple[Tensor, ...]:
        """Outputs for these inputs; they are overwritten by the next replay."""
        self._in_4n.copy_(packed_4n, non_blocking=False)
        self._graph.replay()
        return self._out
