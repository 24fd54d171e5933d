"""What is wanted of a running cell: a drawn path, an edited thought, another sentence, a stop, a resume. Safe from any thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.execution.drawn_way import way_ahead
from model_core.spec.protocol.wire import Edit, SteeringInput

Wish = tuple[str, object]
HOLD, GO = "hold", "go"  # kinds; their value is a name, with a reason where one was given
PERSON = "person"  # who demands a hold, beside the service


class OperatorInput:
    """Taken from any thread, used by the control loop at its next step."""

    def __init__(self) -> None:
        self._told: deque[Wish] = deque(maxlen=64)
        self._steering: SteeringInput | None = None
        self._steering_since_s = 0.0
        self._passed = 0.0  # share of the drawn path that lies behind the gripper
        self.edit: Edit | None = None
        self.instruction = ""
        self.intervening = ""  # the person who acts in the place of the policy

    def tell(self, kind: str, value: object) -> None:
        """What a person wants.

        kind: "steering" (SteeringInput or None), "edit" (Edit), "instruction" (text), "intervention" (a name; "" ends it), "stop" (why),
        "resume", HOLD or GO (a name).
        """
        self._told.append((kind, value))

    def take(self, now_s: float) -> list[tuple[str, str]]:
        """What people asked since the last call, as (kind, sentence); it is in force from now on. "resume" carries the name."""
        taken = []
        while self._told:
            kind, value = self._told.popleft()
            text = str(value)
            if kind == "steering" and (value is None or isinstance(value, SteeringInput)):
                self._steering, self._steering_since_s, self._passed = value, now_s, 0.0
                text = "" if value is None else f"revision {value.revision} by {value.author}"
            elif isinstance(value, Edit):
                self.edit, text = value, f"revision {value.revision} by {value.author}"
            elif kind == "instruction":
                self.instruction = text
            elif kind == "intervention":
                self.intervening = text
            taken.append((kind, text))
        return taken

    def steering(self, now_s: float, gripper_2: Callable[[SteeringInput], NDArray[np.float64] | None]) -> SteeringInput | None:
        """The drawn path with what is left of its life and of its way; None when there is none or it ran out.

        gripper_2: where a drawing's image shows the gripper now. Until that was seen once, the path goes as it was drawn.
        """
        if self._steering is None:
            return None
        left_ms = self._steering.ttl_ms - 1e3 * (now_s - self._steering_since_s)
        if left_ms <= 0:
            self._steering = None
            return None
        seen_2 = gripper_2(self._steering)
        if seen_2 is None and self._passed == 0.0:
            return replace(self._steering, ttl_ms=left_ms)
        way = way_ahead(self._steering.points_N2, seen_2, self._passed)
        self._passed = way.passed
        return replace(self._steering, ttl_ms=left_ms, ahead_N2=way.points_N2)

    def begin(self, instruction: str) -> None:
        """A new episode has its own instruction. What was drawn or edited since the last one ended is for this one."""
        self.instruction = instruction

    def forget(self) -> None:
        """The episode is over: its drawing, its edit and who took over were of a scene that is no more."""
        self._steering = self.edit = None
        self.intervening = ""
