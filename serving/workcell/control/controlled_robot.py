"""The robot's side of a cell in real time: reading it, driving it, holding it. Why a command is given is decided elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.execution.holding import hold_action, measured_by
from model_core.spec.protocol.wire import SteeringInput
from model_core.spec.types import Observation
from serving.workcell.motion.limits import Limits
from serving.workcell.motion.safety_envelope import Envelope
from serving.workcell.robot.interface import (
    CommandRejected,
    CommandTag,
    Outcome,
    Proprioceptive,
    Robot,
    RobotStopped,
    SeesGripper,
    Stoppable,
    TagReader,
)


class Body:
    """One robot behind its envelope. Not thread-safe; every call comes from the control loop.

    state_P: as measured last. last_A: the command that the driver took last in this episode. held_A: the hold that is in force.
    is_moving: the driver's last command was to move (False: to hold).
    """

    def __init__(self, robot: Robot, limits: Limits) -> None:
        self.robot = robot
        # what it offers beyond `Robot` is looked up once: that costs as much as a bound of the envelope, and was done at every step
        self._sensing = robot if isinstance(robot, Proprioceptive) else None
        self._stopping = robot if isinstance(robot, Stoppable) else None
        self._tagged = robot if isinstance(robot, TagReader) else None
        self._located = robot if isinstance(robot, SeesGripper) else None
        self.envelope = Envelope(robot.embodiment, limits)
        self.state_P = np.zeros(len(robot.embodiment.proprio), np.float32)
        self.last_A: NDArray[np.float32] | None = None
        self.held_A: NDArray[np.float32] | None = None
        self.is_moving = False
        self._seen: Observation | None = None
        self._is_measured = any(place is not None for place in measured_by(robot.embodiment))

    @property
    def spec(self) -> EmbodimentSpec:
        """What kind of robot it is."""
        return self.robot.embodiment

    @property
    def limits(self) -> Limits:
        """What its envelope enforces."""
        return self.envelope.limits

    def limit(self, limits: Limits) -> None:
        """Other limits from now on; between episodes only."""
        self.envelope = Envelope(self.robot.embodiment, limits)

    def begin(self) -> None:
        """A new episode: it stands, and what was commanded in the last one says nothing."""
        self.envelope.restart()
        self.last_A = self.held_A = self._seen = None
        self.is_moving = False

    def restart(self) -> None:
        """The next command starts from rest, from the measured pose."""
        self.envelope.restart()
        self.held_A = None

    # --- reading ------------------------------------------------------------------------------------------------------

    def begin_step(self) -> None:
        """A new control step: what was looked at before is no sight of this one."""
        self._seen = None

    def measure(self) -> None:
        """The state that commands are judged from: of this step where it can be had."""
        if self._sensing is not None:
            self.state_P = np.array(self._sensing.proprio_P(), np.float32)
        elif self._is_measured or any(dim.measured_by for dim in self.limits.dims):
            self.state_P = np.asarray(self.look().proprio_P, np.float32)

    def look(self) -> Observation:
        """A new observation; `sight` of this step gives the same one."""
        self._seen = self._observe()
        return self._seen

    def sight(self) -> Observation:
        """What was looked at in this step, else a look of its own."""
        seen, self._seen = self._seen, None
        return seen or self._observe()

    def _observe(self) -> Observation:
        """An observation of our own: a driver may fill the same arrays at every step, while this one is still to be sent and stored."""
        seen = self.robot.observe()
        return replace(seen, images={name: np.array(image) for name, image in seen.images.items()}, proprio_P=np.array(seen.proprio_P))

    def gripper_2(self, drawn: SteeringInput) -> NDArray[np.float64] | None:
        """Where the image of a drawing shows the gripper now, in pixels (x, y); None where that is not known, or out of view."""
        camera = None if self._located is None else self._located.geometry().get(drawn.image)
        if self._located is None or camera is None or (camera.width, camera.height) != (drawn.width, drawn.height):
            return None
        projected_13 = camera.project(np.asarray(self._located.tcp_3(), np.float64)[None])
        return projected_13[0, :2] if camera.in_view(projected_13)[0] else None

    @property
    def stop_state(self) -> str:
        """Which stop of its own is active; "" for none, and for a robot that has none."""
        return self._stopping.stop_state() if self._stopping is not None else ""

    # --- driving ------------------------------------------------------------------------------------------------------

    def act(self, action_A: NDArray[np.float32], tag: CommandTag, *, is_row: bool) -> Outcome:
        """Give a command to the driver. is_row: it moves the robot; a hold does not. Raises CommandRejected, RobotStopped."""
        if self._tagged is not None:
            self._tagged.tag(tag)
        try:
            outcome = self.robot.act(action_A)
        except CommandRejected as error:
            self.envelope.refused_by_driver(str(error))
            raise
        except RobotStopped:
            self.is_moving = False
            raise
        self.last_A, self.is_moving = action_A, is_row
        return outcome

    # --- holding ------------------------------------------------------------------------------------------------------

    def hold(self) -> NDArray[np.float32]:
        """Begin to hold: the pose is measured once, and `held_A` is commanded for as long as it lasts."""
        self.held_A = held_A = self.envelope.hold(hold_action(self.robot.embodiment, self.last_A, self.state_P), self.state_P)
        return held_A

    def move_on(self) -> None:
        """Nothing is held any more; the next hold is measured again."""
        self.held_A = None
