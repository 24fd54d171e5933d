"""The grammar as a machine over a batch of rows: what may be said now, what was said, where that leads.

Shape letters: B rows, S slots, X ids that have an output row. Tables come from `CompactLayout`, so this file knows no field.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model_core.speech.compact import CompactLayout, Field


class GrammarAutomaton:
    """States are slots; `done` is the state after the last action, in which only padding may be said."""

    def __init__(self, layout: CompactLayout, device: torch.device | str = "cpu") -> None:
        vocabulary = layout.vocabulary
        self.done = layout.num_slots
        ids_X = torch.arange(vocabulary.base_size)
        start_S, stop_S = torch.from_numpy(layout.allowed_start_S), torch.from_numpy(layout.allowed_stop_S)
        allowed_SX = torch.zeros(self.done + 1, vocabulary.base_size, dtype=torch.bool)
        allowed_SX[: self.done] = (ids_X >= start_S[:, None]) & (ids_X < stop_S[:, None])
        allowed_SX[self.done, vocabulary.pad_id] = True
        self._forbidden_SX = ~allowed_SX.to(device)
        self._trace_end = vocabulary.trace_end
        self._after_trace = layout.slots[Field.ACTION].start

    def choose(self, logits_BX: Tensor, slots_B: Tensor) -> Tensor:
        """The most likely allowed id of each row, (B,). Whatever the logits hold, the id is in the grammar."""
        return logits_BX.nan_to_num(nan=0.0).masked_fill(self._forbidden_SX[slots_B], -torch.inf).argmax(-1)

    def allows(self, slots_B: Tensor, ids_B: Tensor) -> Tensor:
        """Whether each id may stand in each slot, (B,) bool."""
        return ~self._forbidden_SX[slots_B, ids_B]

    def after(self, slots_B: Tensor, ids_B: Tensor) -> Tensor:
        """The slots that follow once `ids_B` were said in `slots_B`; `done` stays `done`."""
        following_B = torch.where(ids_B == self._trace_end, self._after_trace, slots_B + 1)
        return following_B.clamp(max=self.done)
