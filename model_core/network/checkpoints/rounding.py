"""What numbers lose when they are written with fewer bits: those too large become infinite, those too small become zero."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model_core.spec.errors import CheckpointError

log = logging.getLogger(__name__)

_PIECE = 2**24


def narrows(before: torch.dtype, after: torch.dtype) -> bool:
    """Whether finite numbers of `before` can be infinite or zero in `after`."""
    if not (before.is_floating_point and after.is_floating_point):
        return False
    wide, small = torch.finfo(before), torch.finfo(after)
    return small.max < wide.max or small.tiny > wide.tiny


@dataclass(slots=True)
class LostValues:
    """Counts of one tensor: `infinite` were finite before, `zero` were not zero before."""

    infinite: int = 0
    zero: int = 0

    def count(self, before: Tensor, after: Tensor) -> None:
        """Compare the numbers of a tensor, or of a piece of it, with what they became."""
        if not narrows(before.dtype, after.dtype):
            return
        old, new = before.reshape(-1), after.reshape(-1)
        for start in range(0, len(old), _PIECE):
            was, became = old[start : start + _PIECE], new[start : start + _PIECE].to(before.device)
            self.infinite += int((torch.isfinite(was) & ~torch.isfinite(became)).sum())
            self.zero += int(((was != 0) & (became == 0)).sum())


@dataclass(slots=True)
class Rounding:
    """Counts of a whole checkpoint, by tensor."""

    dtype: torch.dtype | None
    lost: dict[str, LostValues] = field(default_factory=dict)

    def of(self, name: str) -> LostValues:
        """The counts of one tensor."""
        return self.lost.setdefault(name, LostValues())

    @property
    def zeros(self) -> int:
        """How many numbers became zero, in all tensors."""
        return sum(counts.zero for counts in self.lost.values())

    def check(self, where: object) -> None:
        """Raise CheckpointError where numbers became infinite, naming how many in which tensors; those that became zero are logged."""
        kind = str(self.dtype).removeprefix("torch.")
        infinite = {name: counts.infinite for name, counts in sorted(self.lost.items()) if counts.infinite}
        if infinite:
            listed = "".join(f"\n  {count} in {name}" for name, count in infinite.items())
            raise CheckpointError(
                f"{where}: {sum(infinite.values())} weights are finite and too large for {kind}, in which they would be infinite:{listed}\n"
                "Fix: choose bfloat16 or float32, which hold them"
            )
        if self.zeros:
            log.warning("weights.rounded_to_zero count=%d dtype=%s from=%s", self.zeros, kind, where)
