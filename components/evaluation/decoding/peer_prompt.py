"""What a peer gets and how it is timed: places of tokens, image features, and the stages of one answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_core.engine.decode_request import Prompt
from model_core.network.model import MolmoAct
from model_core.tokenization.compact.layout import CompactLayout, Field

STAGES = ("vision", "prefill", "depth", "trace", "action")


@dataclass(frozen=True, kw_only=True)
class Places:
    """Positions of tokens in mode full, from the ids alone: slots, with the jump after a trace."""

    layout: CompactLayout

    @cached_property
    def blocked_SX(self) -> Tensor:
        """(slots, output ids) bool: True where an id is not allowed."""
        layout, ids_X = self.layout, torch.arange(self.layout.vocabulary.base_size)
        start_S, stop_S = torch.from_numpy(layout.allowed_start_S), torch.from_numpy(layout.allowed_stop_S)
        return (ids_X < start_S[:, None]) | (ids_X >= stop_S[:, None])

    @cached_property
    def _trace(self) -> tuple[int, int, int]:
        """First slot of the trace, first of the actions, id of the trace's end."""
        slots = self.layout.slots
        return slots[Field.TRACE].start, slots[Field.ACTION].start, self.layout.vocabulary.trace_end

    def next(self, ids_1L: Tensor) -> int:
        """Slot of the token that follows (1, L) ids; the last slot where the answer is complete."""
        begin, after, end = self._trace
        length = ids_1L.shape[1]
        if length > begin:
            answer = ids_1L[0, begin:].tolist()
            if end in answer:
                length = after + len(answer) - 1 - answer.index(end)
        return min(length, self.layout.num_slots - 1)

    def of_last(self, ids_1L: Tensor, count: int) -> Tensor:
        """(1, count) slots of the last ids."""
        length = ids_1L.shape[1]
        if length <= self._trace[0]:
            return torch.arange(length - count, length)[None]
        return torch.tensor([[self.next(ids_1L[:, :stop]) for stop in range(length - count, length)]])


@dataclass(slots=True)
class Laps:
    """When each forward began, and at which place: enough to split the time of one answer into stages."""

    layout: CompactLayout
    began: float = 0.0
    marks: list[tuple[str, float]] = field(default_factory=list)

    def start(self) -> None:
        """A new answer begins now."""
        self.marks.clear()
        self.began = time.perf_counter()

    def mark(self, stage: str) -> None:
        """The stage named ends here."""
        self.marks.append((stage, time.perf_counter()))

    def stage_at(self, place: int) -> str:
        """The part of the answer that a place belongs to."""
        return Field(int(self.layout.fields_S[min(place, self.layout.num_slots - 1)])).name.lower()

    def split(self) -> dict[str, float]:
        """Milliseconds by stage, up to now."""
        self.mark("action")
        found: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        last = self.began
        for stage, at in self.marks:
            found[stage] += (at - last) * 1e3
            last = at
        return found


def encode(network: MolmoAct, prompt: Prompt) -> Tensor:
    """Image features of one prompt."""
    device = network.lm_head.weight.device
    moved = [None if part is None else part.to(device) for part in (prompt.images, prompt.pooled_patches_idx, prompt.image_masks)]
    assert moved[0] is not None
    assert moved[1] is not None
    return network.encode_images(moved[0], moved[1], moved[2])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PeerAnswer:
    """ids_N: int64, the answer alone. forwards: of the decoder, prefill included. stages_ms: where the time went."""

    ids_N: NDArray[np.int64]
    forwards: int
    stages_ms: Mapping[str, float]
