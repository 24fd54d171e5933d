"""Novelty of the observations that come in, measured by a thread of its own while the model answers them: no answer waits for it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from model_core.spec.contract import PolicyContract
from model_core.spec.execution.novelty import NoveltyReference
from model_core.spec.types import Observation

_MOST_WAITING = 64  # observations: a thread that is further behind leaves the next ones unmeasured


class NoveltyMeasurement:
    """Of one observation; `taken` gives it where it is known by then."""

    def __init__(self, future: Future[float]) -> None:
        self._future = future

    def taken(self) -> float | None:
        """0..1, or None where it is not known yet; then it is given up. Never waits, never raises."""
        self._future.cancel()
        if not self._future.done() or self._future.cancelled() or self._future.exception() is not None:
            return None
        return min(max(self._future.result(), 0.0), 1.0)


class NoveltyMeter:
    """Measures against the reference of one model."""

    def __init__(self, reference: NoveltyReference, contract: PolicyContract) -> None:
        self._reference = reference
        self._cameras = tuple(camera.name for camera in contract.embodiment.cameras)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="novelty")
        self._waiting: list[Future[float]] = []

    def begin(self, observation: Observation) -> NoveltyMeasurement | None:
        """Begin to measure, in contract terms; None where too many wait, or after `stop`. Called by the event loop; never raises."""
        self._waiting = [future for future in self._waiting if not future.done()]
        if len(self._waiting) >= _MOST_WAITING:
            return None
        try:
            future = self._thread.submit(self._reference.novelty, observation, self._cameras)
        except RuntimeError:  # stopped
            return None
        self._waiting.append(future)
        return NoveltyMeasurement(future)

    def stop(self) -> None:
        """Measure no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
