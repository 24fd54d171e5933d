"""Residual dropout: what a block adds to the residual stream is dropped at random, number by number, while it is trained.

Which numbers are dropped is a function of the draw (seed, step, micro batch) and of the place in the network, and of nothing that was
computed before: a block that is computed a second time drops the same, as do any number of processes, and a training that goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualDropout:
    """share: of the numbers that become 0; the others are divided by 1 - share. draw: (seed, step, micro batch)."""

    share: float
    draw: tuple[int, int, int]

    def __call__(self, x: Tensor, place: int) -> Tensor:
        """`x` with its own numbers dropped. place: of the addition, counted through all blocks."""
        seed = int(np.random.SeedSequence((*self.draw, place)).generate_state(1, np.uint64)[0])
        generator = torch.Generator(device=x.device).manual_seed(seed)
        kept = torch.rand(x.shape, generator=generator, device=x.device) >= self.share
        return x * kept / (1.0 - self.share)
