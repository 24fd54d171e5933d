"""What is done about spikes of the loss: noted, or the step is skipped, or the training also goes back to before them.

All is a function of the curve so far, so that a training that is taken up decides as one that was never stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from components.training.monitoring import LossSpikeDetector
from model_core.spec.errors import JobError

PATIENCE = 3  # spikes in a row before the training goes back: one bad batch is not a bad state


class Spikes:
    """The rule `train.spikes` over the losses of a training. losses: of the steps that were done before, in order."""

    def __init__(self, rule: str, losses: Iterable[float] = ()) -> None:
        self._rule, self._detector, self.row = rule, LossSpikeDetector(), 0
        for loss in losses:
            self.take(loss)

    @property
    def limit(self) -> float:
        """The loss above which a step is not made; infinite where spikes are only noted."""
        return math.inf if self._rule == "note" else self._detector.limit()

    def take(self, loss: float) -> bool:
        """Take in the loss of a step; whether it is a spike."""
        spike = self._detector.is_spike(loss)
        self.row = self.row + 1 if spike else 0
        return spike

    @property
    def goes_back(self) -> bool:
        """Whether the training has to go back to before the spikes, the last `row` of its steps."""
        return self._rule == "rewind" and self.row >= PATIENCE


def losses_of(curve: Path) -> list[float]:
    """The losses in a curve's file, in order."""
    points = [json.loads(line) for line in curve.read_text().splitlines()] if curve.is_file() else []
    return [point["loss"] for point in points if "loss" in point]


def check_finite(values: Mapping[str, float], *, step: int, rate: float) -> None:
    """Raise `JobError` where the loss of a step is no number."""
    if not math.isfinite(loss := values["loss"]):
        raise JobError(
            f"loss became {loss} at step {step} (learning rate {rate:.2g}, gradient norm {values.get('grad_norm', math.nan):.3g}); "
            "the last checkpoint is kept. Fix: lower train.learning_rate or train.gradient_clip, or look at the data"
        )
