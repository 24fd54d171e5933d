"""What all parts of one cell's loop share: its robot, its link, its notes, and how it is to behave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from serving.workcell.control.controlled_robot import Body
from serving.workcell.control.events import CellEvents
from serving.workcell.control.operator_input import OperatorInput
from serving.workcell.control.results import EpisodeJournal
from serving.workcell.control.stop_control import StopControl
from serving.workcell.link.interface import Link
from serving.workcell.motion.motion_state import MotionSettings
from serving.workcell.robot.episode_recorder import Recorder
from serving.workcell.watchdog.watchdog import WatchPost


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeSettings:
    """How one cell behaves, in real and in simulated time.

    strategy, execute_horizon (0: the contract's): see `scheduler`. level: reasoning level to request. max_refusals: refusals in
    a row that cannot be helped by asking again; with nothing left to execute they end the episode. operator: asked at every
    step of a SAFE_STOP for the name of the person who resumes it ("" means no one yet); the episode waits `operator_wait_s`.
    """

    cell: str
    strategy: str = "async"
    execute_horizon: int = 0
    level: str = ""
    max_refusals: int = 5
    max_steps: int = 1000
    motion: MotionSettings = field(default_factory=MotionSettings)
    operator: Callable[[], str] | None = None
    operator_wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellContext:
    """The parts of one cell that its loop works with."""

    settings: RealtimeSettings
    body: Body
    link: Link
    stops: StopControl
    journal: EpisodeJournal
    wishes: OperatorInput
    tell: CellEvents
    clock: Callable[[], float]
    recorder: Recorder | None = None
    watch: WatchPost | None = None
