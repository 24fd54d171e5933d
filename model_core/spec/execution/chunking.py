"""One chunk of K actions -> one action per control tick. Evaluation and workcells run these very lines.

    ask      tick 0 1 2 3 | 4 5 6 7        execute_horizon = 4, chunk_length = 8
    chunk 1       a b c d   e f g h
    chunk 2               | a b c d ...    asked for when 4 ticks of chunk 1 are done

A chunk that was not replaced in time may run on to its own end (e f g h above), never past it: then there is
nothing to do and the caller holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.errors import require
from model_core.spec.execution.holding import measured_by
from model_core.spec.types import ActionChunk


class ChunkPlayer:
    """Hands out the actions of the newest chunk, one per tick."""

    def __init__(self, execute_horizon: int) -> None:
        self._execute_horizon = execute_horizon
        self._actions_KA: NDArray[np.float32] | None = None
        self._next = 0

    @property
    def wants_chunk(self) -> bool:
        """True when the execute horizon is used up (or there is no chunk): time to ask with a new observation."""
        return self._actions_KA is None or self._next >= min(self._execute_horizon, len(self._actions_KA))

    @property
    def remaining(self) -> int:
        """Actions left until there is nothing to execute."""
        return 0 if self._actions_KA is None else len(self._actions_KA) - self._next

    def install(self, chunk: ActionChunk, *, skip: int = 0) -> None:
        """Play `chunk` from its row `skip`: the number of ticks that passed since its observation was taken."""
        self._actions_KA = chunk.actions_KA
        self._next = min(max(skip, 0), len(chunk.actions_KA))

    def next_action(self) -> NDArray[np.float32] | None:
        """The action of this tick, or None when nothing is left: the caller must hold."""
        if self._actions_KA is None or self._next >= len(self._actions_KA):
            return None
        action_A = self._actions_KA[self._next]
        self._next += 1
        return action_A

    def clear(self) -> None:
        """Forget everything: a new episode, a stop, a new session."""
        self._actions_KA = None
        self._next = 0


def targets_KA(actions_KA: NDArray[np.float32], embodiment: EmbodimentSpec, proprio_P: NDArray[np.float32]) -> NDArray[np.float32]:
    """A chunk as a robot takes it: (K, A). A dimension that is relative to the chunk's start becomes the place that it means.

    proprio_P: measured in the observation that was answered. Other dimensions stay as they are. Raises SpecError for a
    relative dimension that the body does not measure.
    """
    modes = embodiment.action.modes
    if "relative" not in modes:
        return actions_KA
    return actions_KA + offsets_A(embodiment, proprio_P)


def offsets_A(embodiment: EmbodimentSpec, proprio_P: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where relative numbers count from, (A,): the measured place, 0 for every other mode."""
    found_A = np.zeros(len(embodiment.action), np.float32)
    for index, (mode, place) in enumerate(zip(embodiment.action.modes, measured_by(embodiment), strict=True)):
        if mode == "relative":
            dim = embodiment.action.dims[index]
            require(place is not None, f"body {embodiment.name!r}: {dim.name!r} is relative, but no proprio dimension measures it")
            found_A[index] = proprio_P[place] if place is not None else 0.0
    return found_A
