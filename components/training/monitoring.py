"""What is measured of a training in progress: its speed, the time that remains, and spikes of the loss."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from model_core.spec.documents import to_document


class LossSpikeDetector:
    """Notices a loss far above the recent ones (`sigmas` standard deviations over `window` steps)."""

    def __init__(self, window: int = 64, sigmas: float = 6.0, floor: float = 0.05) -> None:
        self._recent: deque[float] = deque(maxlen=window)
        self._sigmas = sigmas
        self._floor = floor

    def is_spike(self, loss: float) -> bool:
        """True when `loss` is a spike; it then does not enter the window, so that a plateau of spikes is reported too."""
        if loss > self.limit():
            return True
        self._recent.append(loss)
        return False

    def limit(self) -> float:
        """The loss from which on the next one is a spike; infinite while too few were seen."""
        recent = np.array(self._recent)
        if len(recent) < 16:
            return math.inf
        return float(recent.mean() + max(self._sigmas * recent.std(), self._floor * abs(recent.mean())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast training goes. mfu: model FLOP over what the machine's matrix product reaches (measured at the start)."""

    samples_per_s: float
    data_wait: float
    mfu: float
    eta_s: float


def pace(*, samples: int, seconds: float, waited_s: float, flops: float, peak_flops: float, eta_s: float) -> Pace:
    """Speed over the last window of steps, all ranks together. eta_s: from `RemainingTime`, which looks further back."""
    rate = flops / seconds if seconds > 0 else 0.0
    return Pace(
        samples_per_s=samples / seconds if seconds > 0 else 0.0,
        data_wait=min(1.0, waited_s / seconds) if seconds > 0 else 0.0,
        mfu=rate / peak_flops if peak_flops > 0 else 0.0,
        eta_s=eta_s,
    )


class RemainingTime:
    """How long the rest will take: the work left, at the median speed of the last windows of this process.

    One slow window (another program ran, the first step warmed up) changes nothing; a speed that stays counts once it is half of them.
    A run that resumes from a checkpoint begins with no window, so that the speed of another machine or time does not count.
    """

    def __init__(self, windows: int = 15) -> None:
        self._seconds_a_flop: deque[float] = deque(maxlen=windows)

    def after(self, *, flops: float, seconds: float, flops_left: float) -> float:
        """Take in a window and give the seconds left; infinite while nothing was measured. A step's work follows its mode."""
        if flops > 0 and seconds > 0:
            self._seconds_a_flop.append(seconds / flops)
        return flops_left * median(self._seconds_a_flop) if self._seconds_a_flop else math.inf


class Speed:
    """What a window of steps says of the speed. flops: of each step, and peak_flops: of all ranks together. batch: samples a step."""

    def __init__(self, flops: Sequence[float], *, batch: int, peak_flops: float) -> None:
        self._flops, self._batch, self._peak, self._remaining = flops, batch, peak_flops, RemainingTime()

    def fields(self, clock: StepClock, done: int) -> dict[str, float]:
        """Steps and seconds of the window that ends after `done` steps, and its `Pace`, without what is not known yet."""
        seconds, flops = clock.elapsed(), sum(self._flops[done - clock.steps : done])
        speed = pace(
            samples=clock.steps * self._batch,
            seconds=seconds,
            waited_s=clock.waited_s,
            flops=flops,
            peak_flops=self._peak,
            eta_s=self._remaining.after(flops=flops, seconds=seconds, flops_left=sum(self._flops[done:])),
        )
        if speed.mfu > 1.0:  # the start was measured while the machine was busy with something else
            self._peak *= speed.mfu
            speed = replace(speed, mfu=1.0)
        finite = {name: value for name, value in to_document(speed).items() if math.isfinite(value)}
        return {"steps": clock.steps, "seconds": round(seconds, 6), **finite}


def progress_line(loss: float, speed: Mapping[str, float]) -> str:
    """One short line for a person: loss, speed, time left."""
    left = speed.get("eta_s", math.inf)
    clock = f"{int(left) // 60}:{int(left) % 60:02d} left" if math.isfinite(left) else "measuring"
    return f"loss {loss:.3f} · {speed.get('samples_per_s', 0.0):.0f} samples/s · MFU {speed.get('mfu', 0.0):.0%} · {clock}"


def parameter_line(parameters: Mapping[str, int]) -> str:
    """How many parameters are trained, by part, of how many there are ("all")."""
    trained = {name: count for name, count in parameters.items() if name != "all"}
    named = ", ".join(f"{name} {count:,}" for name, count in trained.items())
    return f"{sum(trained.values()):,} of {parameters['all']:,} parameters are trained ({named})"


class StepClock:
    """Time, steps and waiting for data since the last report."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin a new window."""
        self._began = time.perf_counter()
        self.waited_s = 0.0
        self.steps = 0

    def elapsed(self) -> float:
        """Seconds since the window began."""
        return time.perf_counter() - self._began


def peak_flops(*, bf16: bool) -> float:
    """What one process reaches here in a square matrix product, FLOP/s: the best of some, since others may use the machine too."""
    import torch

    device, size = ("cuda", 1024) if torch.cuda.is_available() else ("cpu", 512)  # on a CPU the smaller one is as fast per FLOP
    a = torch.ones(size, size, dtype=torch.bfloat16 if bf16 else torch.float32, device=device)
    best = math.inf
    for _ in range(12):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best
