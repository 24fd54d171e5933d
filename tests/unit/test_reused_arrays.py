"""A driver that fills the same arrays at every step changes nothing that was seen before."""

from __future__ import annotations

import numpy as np

from model_core.spec.types import Observation
from serving.workcell.control.controlled_robot import Body
from serving.workcell.motion.limits import widest_limits
from tests.fakes import make_embodiment


class SameArrays:
    """A robot whose camera and joints write into one buffer each."""

    def __init__(self) -> None:
        self.embodiment, self.task, self.instruction = make_embodiment(), "push", "push the button"
        self._image = np.zeros((16, 16, 3), np.uint8)
        self._state = np.zeros(4, np.float32)
        self._step = 0

    def observe(self) -> Observation:
        self._step += 1
        self._image[:] = self._step
        self._state[:] = self._step / 10
        return Observation(images={"front": self._image}, proprio_P=self._state, instruction=self.instruction)

    def proprio_P(self):
        return self._state

    def reset(self, seed: int) -> None:
        """Nothing to lay out."""

    def act(self, action_A):
        """Nothing moves."""

    def close(self) -> None:
        """Nothing is open."""


def test_what_was_seen_stays_as_it_was_seen():
    body = Body(SameArrays(), widest_limits(make_embodiment()))  # pyright: ignore[reportArgumentType] (its steps have no outcome)
    seen = [body.look(), body.look()]
    body.measure()
    measured = body.state_P
    body.begin_step()
    seen.append(body.sight())
    assert [int(one.images["front"].max()) for one in seen] == [1, 2, 3]
    assert [round(float(one.proprio_P[0]), 3) for one in seen] == [0.1, 0.2, 0.3]
    assert measured.tolist() == [np.float32(0.2)] * 4
