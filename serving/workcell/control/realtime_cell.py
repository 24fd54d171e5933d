"""One cell, episode by episode: when one may begin, what is recorded when it is over, and what people ask of it meanwhile.

The parts: `body` reads, drives and holds; `dialogue` asks and listens; `stops` knows who says stop; `control_step` is the loop
that brings them together. A caller may run `begin`, `tick` and `end` on another clock; `run_episode` does so
in real time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ActwrightError
from model_core.spec.protocol.wire import Edit, SteeringInput
from model_core.spec.types import StopReason
from serving.workcell.audit.interface import Audit, NullAudit
from serving.workcell.control.cell_context import CellContext, RealtimeSettings
from serving.workcell.control.control_step import ControlStep
from serving.workcell.control.controlled_robot import Body
from serving.workcell.control.events import CellEvents
from serving.workcell.control.exchange import Exchange
from serving.workcell.control.operator_input import OperatorInput
from serving.workcell.control.results import EpisodeJournal, EpisodeNotes, EpisodeResult
from serving.workcell.control.stop_control import StopControl
from serving.workcell.link.interface import Link
from serving.workcell.motion.limits import Limits, limits_under
from serving.workcell.motion.motion_state import StateMachine
from serving.workcell.motion.safety_envelope import Envelope
from serving.workcell.motion.scheduler import Scheduler
from serving.workcell.robot.episode_recorder import Recorder
from serving.workcell.robot.interface import Robot, RobotStopped, Stoppable
from serving.workcell.watchdog.watchdog import WatchPost

logger = logging.getLogger(__name__)


class RealtimeCell:
    """One robot, one link, one loop. Construct it when the link has been up once.

    limits: of the commissioning file, already tightened by the release. limits_of: those for another contract between episodes (with the
    digest of where they come from), or ActwrightError when no person has commissioned it; None: `limits`, tightened by each release.
    """

    def __init__(
        self,
        robot: Robot,
        link: Link,
        settings: RealtimeSettings,
        limits: Limits,
        *,
        recorder: Recorder | None = None,
        audit: Audit | None = None,
        watch: WatchPost | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        commissioning_digest: str = "",
        limits_of: Callable[[PolicyContract], tuple[Limits, str]] | None = None,
    ) -> None:
        self._robot, self._link, self._settings = robot, link, settings
        self._recorder, self._watch, self._clock, self._sleep = recorder, watch, clock, sleep
        self._tell = tell = CellEvents(audit or NullAudit(), settings.cell, settings.strategy, commissioning_digest or limits.digest, clock)
        self._journal, self._wishes, self._body = EpisodeJournal(), OperatorInput(), Body(robot, limits)
        machine = StateMachine(replace(settings.motion, max_rejects=limits.max_rejects))
        own_stop = robot if isinstance(robot, Stoppable) and not link.world_waits else None
        self._stops = StopControl(
            own_stop, machine, self._journal, tell, operator=settings.operator, operator_wait_s=settings.operator_wait_s
        )
        context = CellContext(
            settings=settings,
            body=self._body,
            link=link,
            stops=self._stops,
            journal=self._journal,
            wishes=self._wishes,
            tell=tell,
            clock=clock,
            recorder=recorder,
            watch=watch,
        )
        self._dialogue = Exchange(context)
        self._control = ControlStep(context, self._dialogue)
        self._limits_of, self._limited_by = limits_of, self._dialogue.ready.contract.contract_id

    @property
    def link(self) -> Link:
        """What it asks."""
        return self._link

    @property
    def envelope(self) -> Envelope:
        """What judges every command."""
        return self._body.envelope

    @property
    def machine(self) -> StateMachine:
        """What the robot is doing."""
        return self._stops.machine

    @property
    def is_killed(self) -> bool:
        """A person, at the service, has stopped it."""
        return self._stops.is_killed

    @property
    def robot_stop(self) -> str:
        """Which stop of the robot's own is active; "" for none."""
        return self._body.stop_state

    @property
    def scheduler(self) -> Scheduler:
        """The rows to execute."""
        return self._dialogue.scheduler

    @property
    def notes(self) -> EpisodeNotes:
        """The running numbers of the episode; SpecError between episodes."""
        return self._journal.running

    @property
    def open_seqs(self) -> list[int]:
        """Numbers of the requests that are on their way."""
        return self._dialogue.open_seqs

    def run_episode(self, seed: int) -> EpisodeResult:
        """One attempt in real time. Every way of ending has its `StopReason`; a robot's own failure is ENV_ERROR."""
        try:
            reason = self.begin(seed)
            period_s = 1.0 / self._robot.embodiment.control_hz
            next_tick_s = self._clock()
            while reason is None:
                reason = self.tick()
                next_tick_s += period_s
                self._sleep(max(next_tick_s - self._clock(), 0.0))
                next_tick_s = max(next_tick_s, self._clock() - period_s)  # a stall is not made up for by rushing
        except RobotStopped as error:
            self._stops.stop(self._clock(), f"the robot is stopped: {error}")
            reason = StopReason.GUARD_STOPPED
        except Exception as error:
            # A robot may raise anything; for the cell that is one ended episode with a reason, and the next one may work.
            logger.exception("episode.failed cell=%s seed=%d", self._settings.cell, seed)
            self._journal.detail(f"{type(error).__name__}: {error}")
            reason = StopReason.ENV_ERROR
        return self.end(reason)

    def begin(self, seed: int) -> StopReason | None:
        """Lay out the scene. A reason instead of None: the episode may not begin, nothing moves."""
        now = self._clock()
        self._control.grant(now)  # a person may have resumed the cell since the last episode
        self._dialogue.listen(now)  # and the service may have said something
        ready = self._link.ready or self._dialogue.ready
        name = f"{self._robot.task}-{seed}-{self._settings.cell}-{ready.model_version}".replace("/", "-")
        self._journal.notes = episode = EpisodeNotes(episode_id=name, seed=seed)
        if self._stops.is_stopped:
            episode.detail = f"SAFE_STOP: {self.machine.reason}; a person has to resume it"
            return StopReason.GUARD_STOPPED
        if not self._tell.can_begin:
            episode.detail = self._tell.refusal
            return StopReason.REFUSED
        is_draining = self._dialogue.is_draining(ready)
        if is_draining or not self._link.is_up:
            episode.detail = "the service drains: it takes no new episodes" if is_draining else "the link is down"
            return StopReason.SERVICE_LOST
        try:
            self._limit(ready.contract)
        except ActwrightError as error:
            episode.detail = str(error)
            return StopReason.REFUSED
        self._dialogue.begin(ready, now)
        self._body.begin()
        self._stops.begin()
        self._link.pin(ready.model_version, ready.contract.contract_id)
        self._robot.reset(seed)
        self._wishes.begin(self._robot.instruction)
        self.machine.begin(self._clock())
        if self._recorder is not None:
            self._recorder.begin()
        self._tell.begun(episode, self._robot, self._wishes.instruction, ready, self._link.epoch)
        if self._watch is not None:
            self._watch.arm()
        return None

    def tick(self) -> StopReason | None:
        """One control step; a reason when the episode is over."""
        return self._control.tick()

    def end(self, reason: StopReason) -> EpisodeResult:
        """The episode is over, however it came: tell the service and the audit, and drop its rows."""
        episode = self._journal.running
        success = reason is StopReason.SUCCESS
        episode.is_at_rest = self._control.come_to_rest()
        self._dialogue.forget("the episode is over")
        self._wishes.forget()
        if self._watch is not None and episode.is_at_rest:  # a robot that takes no hold is left to the watchdog
            self._watch.disarm()
        self._link.end_episode(episode.episode_id, reason.value, success=success)
        if self._recorder is not None and reason is not StopReason.ENV_ERROR:
            version = self._dialogue.ready.model_version
            self._recorder.finish(episode_id=episode.episode_id, seed=episode.seed, success=success, model_version=version)
        result = episode.result(reason, self.machine.mode.value)
        self._tell.ended(episode, reason, result.detail)
        self._journal.notes = None
        return result

    def close(self) -> None:
        """Bring the robot to rest, end the link and the watchdog. A robot that takes no hold is left to the watchdog."""
        is_at_rest = self._journal.notes is None or self._control.rest()
        self._link.close()
        if self._watch is not None and is_at_rest:
            self._watch.close()

    def _limit(self, contract: PolicyContract) -> None:
        """Another contract between episodes: its own limits, or none moves. Raises ActwrightError when no person has commissioned it."""
        if contract.contract_id == self._limited_by:
            return
        limits, digest = limits_under(contract, self._body.spec, self._body.limits, self._limits_of)
        self._limited_by = contract.contract_id
        self._body.limit(limits)
        self.machine.settings = replace(self.machine.settings, max_rejects=limits.max_rejects)
        self._tell.limited_by(digest)

    def steer(self, steering: SteeringInput | None) -> None:
        """From the next step on, ask with this drawn path; answers to older requests are void. Safe from any thread."""
        self._wishes.tell("steering", steering)

    def edit(self, edit: Edit) -> None:
        """Ask the next request with this edited thought. Safe from any thread."""
        self._wishes.tell("edit", edit)

    def instruct(self, instruction: str) -> None:
        """Another sentence from now on. Safe from any thread."""
        self._wishes.tell("instruction", instruction)

    def intervene(self, operator: str) -> None:
        """A person acts in the policy's place from the next step on, which the recording marks; "" ends it. Safe from any thread."""
        self._wishes.tell("intervention", operator)

    def stop(self, reason: str) -> None:
        """SAFE_STOP at the next step, until a person resumes. Safe from any thread."""
        self._wishes.tell("stop", reason)

    def demand(self, kind: str, person: str) -> None:
        """HOLD or GO (of `operator_input`) by a person. Safe from any thread."""
        self._wishes.tell(kind, person)

    def resume(self, operator: str) -> None:
        """A person ends a SAFE_STOP: new epoch, no old rows, first command from the measured pose. Safe from any thread."""
        self._wishes.tell("resume", operator)
