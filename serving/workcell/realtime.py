"""The control loop of one cell in real time: the world does not wait, and neither does this loop.

    every control step:  watchdog, robot's own stop -> what came on the link -> drop what expired -> ask when it is time
                         -> mode (RUN STRETCH HOLD SAFE_STOP) -> command or hold -> envelope -> driver -> audit

Nothing here waits for the network, a disk or a person. Whoever drives it may call `begin`, `tick` and `end` on a clock of
his own; `run_episode` does so in real time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.chunking import targets_KA
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ActwrightError, NotReady, require
from model_core.spec.guard import guard_rows
from model_core.spec.holding import hold_action, measured_by
from model_core.spec.types import Observation, RefusalCode, StopReason
from model_core.spec.wire import Edit, Ready, SteeringInput
from serving.workcell.asking import Asked, Asker
from serving.workcell.async_link import Link
from serving.workcell.audit_port import Audit, NullAudit
from serving.workcell.curve import ChunkRef
from serving.workcell.envelope import Envelope, SessionKey
from serving.workcell.limits import Limits, limits_under
from serving.workcell.link_words import Heard
from serving.workcell.motion import Mode, MotionSettings, StateMachine
from serving.workcell.recorder import Recorder
from serving.workcell.results import EpisodeNotes, EpisodeResult, HoldBegun
from serving.workcell.robot import (
    CommandRejected,
    Proprioceptive,
    Robot,
    RobotStopped,
    Stoppable,
    TagReader,
)
from serving.workcell.scheduler import Command, Scheduler, ScheduleSettings
from serving.workcell.telling import Teller, tag_of
from serving.workcell.watchdog import WatchPost
from serving.workcell.wishes import Wishes

logger = logging.getLogger(__name__)

_LATE_CODES = {RefusalCode.DEADLINE.value, RefusalCode.OVERLOAD.value}  # the chunk in hand is still good, up to its end
_GUARD_CODES = {RefusalCode.UNSAFE.value, RefusalCode.NONFINITE.value}
_LOST_CODES = {RefusalCode.DEADLINE.value, RefusalCode.NOT_READY.value, "down"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeSettings:
    """How one cell behaves in real time.

    strategy, execute_horizon (0: the contract's): see `scheduler`. level: reasoning level to ask for. max_refusals: refusals in
    a row that cannot be helped by asking again; with nothing left to execute they end the episode. operator: asked at every
    step of a SAFE_STOP for the name of the person who resumes it ("" means nobody, yet); the episode waits `operator_wait_s`.
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


class RealtimeCell:
    """One robot, one link, one loop. Construct it when the link has been up once.

    limits: of the commissioning file, already tightened by the release. limits_of: the same for another contract, which the
    service may have between episodes: (limits, digest of where they come from), or ActwrightError when nobody has commissioned
    it. Without one `limits` stay, tightened by each release that comes.
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
        self._robot, self._link, self._settings, self._limits = robot, link, settings, limits
        self._recorder, self._watch = recorder, watch
        self._tell = Teller(audit or NullAudit(), settings.cell, settings.strategy, commissioning_digest or limits.digest, clock)
        self._clock, self._sleep = clock, sleep
        body = robot.embodiment
        self.envelope = Envelope(body, limits)
        self.machine = StateMachine(replace(settings.motion, max_rejects=limits.max_rejects))
        if link.ready is None:
            raise NotReady("the link has to be up once before a cell is made: without a contract nothing can be scheduled")
        self._ready: Ready = link.ready
        self.scheduler = Scheduler(body, ScheduleSettings.of(self._ready.contract, settings.strategy, settings.execute_horizon))
        self._wishes = Wishes()
        session = _key(self._ready, link.epoch)
        self._asker = Asker(robot, link, self._wishes, self._tell, session, level=settings.level, clock=clock)
        self._reads_pose = any(place is not None for place in measured_by(body)) or any(d.measured_by for d in limits.dims)
        self._limits_of, self._limited_by = limits_of, self._ready.contract.contract_id
        self._seen: Observation | None = None
        self._state_P = np.zeros(len(body.proprio), np.float32)
        self._last_A: NDArray[np.float32] | None = None
        self._held_A: NDArray[np.float32] | None = None
        self._down_since_s: float | None = None
        self._draining_session = self._holding_session = ""  # who said so; another session has not
        self._is_moving = False
        self._next_tick_s = 0.0
        self._episode: EpisodeNotes | None = None
        self._mode_said = ""

    @property
    def link(self) -> Link:
        """What it asks."""
        return self._link

    # --- one episode ----------------------------------------------------------------------------------------------

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
            self._stop(self._clock(), f"the robot is stopped: {error}")
            reason = StopReason.GUARD_STOPPED
        except Exception as error:
            # A robot may raise anything; for the cell that is one ended episode with a reason, and the next one may work.
            logger.exception("episode.failed cell=%s seed=%d", self._settings.cell, seed)
            self._note_detail(f"{type(error).__name__}: {error}")
            reason = StopReason.ENV_ERROR
        return self.end(reason)

    def begin(self, seed: int) -> StopReason | None:
        """Lay out the scene. A reason instead of None: the episode may not begin, nothing moves."""
        now = self._clock()
        self._grant(now)  # a person may have resumed the cell since the last episode
        self._listen(now)  # and the service may have said something
        ready = self._link.ready or self._ready
        name = f"{self._robot.task}-{seed}-{self._settings.cell}-{ready.model_version}".replace("/", "-")
        self._episode = episode = EpisodeNotes(episode_id=name, seed=seed)
        if self.machine.mode is Mode.SAFE_STOP:
            episode.detail = f"SAFE_STOP: {self.machine.reason}; a person has to resume it"
            return StopReason.GUARD_STOPPED
        if not self._tell.can_begin:
            episode.detail = self._tell.refusal
            return StopReason.REFUSED
        is_draining = ready.session_id == self._draining_session
        if is_draining or not self._link.is_up:
            episode.detail = "the service drains: it takes no new episodes" if is_draining else "the link is down"
            return StopReason.SERVICE_LOST
        try:
            self._limit(ready.contract)
        except ActwrightError as error:
            episode.detail = str(error)
            return StopReason.REFUSED
        self._adopt(ready, now)
        self._link.pin(ready.model_version, ready.contract.contract_id)
        self._robot.reset(seed)
        self._wishes.forget(self._robot.instruction)
        self.machine.begin(self._clock())
        if self._recorder is not None:
            self._recorder.begin()
        self._tell.begun(episode, self._robot, self._wishes.instruction, ready, self._link.epoch)
        if self._watch is not None:
            self._watch.arm()
        return None

    def end(self, reason: StopReason) -> EpisodeResult:
        """The episode is over, however it came: tell everybody, and forget its rows."""
        episode = self._episode
        require(episode is not None, "an episode ends after it began")
        assert episode is not None
        success = reason is StopReason.SUCCESS
        is_at_rest = self._rest()
        self.scheduler.flush()
        self._asker.forget("the episode is over")
        if self._watch is not None and is_at_rest:  # a body that takes no hold is left to the watchdog
            self._watch.disarm()
        self._link.end_episode(episode.episode_id, reason.value, success=success)
        if self._recorder is not None and reason is not StopReason.ENV_ERROR:
            self._recorder.finish(
                episode_id=episode.episode_id, seed=episode.seed, success=success, model_version=self._ready.model_version
            )
        result = episode.result(reason, self.machine.mode.value)
        self._tell.ended(episode, reason, result.detail)
        self._episode = None
        return result

    def close(self) -> None:
        """Bring the body to rest, end the link and the watchdog. A body that takes no hold is left to the watchdog."""
        is_at_rest = self._episode is None or self._rest()
        self._link.close()
        if self._watch is not None and is_at_rest:
            self._watch.close()

    def _rest(self) -> bool:
        """Nobody commands any more: a body that goes on with the velocity it was told last is told to stand. False: it was not taken.

        Other bodies arrive where they were told to, or have already.
        """
        if not self._is_moving or "velocity" not in self._robot.embodiment.action.modes:
            return True
        try:
            self._act(None, self._hold_A(), {}, self._clock())
        except Exception:  # the robot may be broken in any way; the watchdog is for that
            logger.exception("cell.not_at_rest cell=%s", self._settings.cell)
        return not self._is_moving

    def _limit(self, contract: PolicyContract) -> None:
        """Another contract between episodes: its own limits, or none moves. Raises ActwrightError when nobody has commissioned it."""
        if contract.contract_id == self._limited_by:
            return
        limits, digest = limits_under(contract, self._robot.embodiment, self._limits, self._limits_of)
        self._limits, self._limited_by = limits, contract.contract_id
        self.envelope = Envelope(self._robot.embodiment, limits)
        self.machine.settings = replace(self.machine.settings, max_rejects=limits.max_rejects)
        self._tell.limited_by(digest)

    # --- people -------------------------------------------------------------------------------------------------------

    def steer(self, steering: SteeringInput | None) -> None:
        """From the next step on, ask with this drawn path; answers to older questions are void. Safe from any thread."""
        self._wishes.tell("steering", steering)

    def edit(self, edit: Edit) -> None:
        """Ask the next question with this edited thought. Safe from any thread."""
        self._wishes.tell("edit", edit)

    def instruct(self, instruction: str) -> None:
        """Another sentence from now on. Safe from any thread."""
        self._wishes.tell("instruction", instruction)

    def resume(self, operator: str) -> None:
        """A person ends a SAFE_STOP: new epoch, no old rows, first command from the measured pose. Safe from any thread."""
        self._wishes.tell("resume", operator)

    def _grant(self, now: float) -> None:
        for kind, text in self._wishes.take(now):
            if kind == "resume":
                self._resume(text)
            else:
                self._tell.event(kind, text=text, revision=self.scheduler.bump())

    def _resume(self, operator: str) -> None:
        if self.machine.mode is Mode.SAFE_STOP and not self._stop_state():
            self.machine.resume(self._clock(), operator)
            self._restart("resumed", new_epoch=True)
            self._tell.event("resumed", operator=operator)
            if self._episode is not None:
                self._episode.stopped_at_s = None

    # --- one control step -----------------------------------------------------------------------------------------

    def tick(self) -> StopReason | None:
        """One control step; a reason when the episode is over."""
        episode = self._episode
        assert episode is not None
        now = self._clock()
        self._grant(now)
        self.scheduler.stepped()
        self._listen(now)
        self._check_guards(now)
        self._drop_expired(now)
        self._maybe_ask(now)
        if episode.in_a_row >= self._settings.max_refusals and self.scheduler.rows_left <= 0:
            return _why(episode.code)
        may_stretch = self._settings.strategy != "sync"
        why = "the link is down" if not self._link.is_up else episode.code or "nothing to execute"
        self.machine.tick(now, self.scheduler.rows_left, may_stretch=may_stretch, why=why)
        if self.machine.mode is Mode.SAFE_STOP:
            over = self._wait_for_operator(now)
            if over is not None:
                return over
        return self._move()

    def _move(self) -> StopReason | None:
        episode = self._episode
        assert episode is not None
        is_stopped = self.machine.mode is Mode.SAFE_STOP and bool(self._stop_state())
        if self._recorder is not None and not is_stopped:
            self._recorder.see(self._seen_now())
        self._measure()
        now = self._clock()  # looking and measuring take their time; from here on nothing does
        self._drop_expired(now)
        command = self.scheduler.next(self.machine.scale) if self.machine.mode in (Mode.RUN, Mode.STRETCH) else None
        action_A, clipped = self._judged(command, now)
        if action_A is None:
            command, clipped = None, {}
            if self.machine.mode in (Mode.RUN, Mode.STRETCH):  # the envelope refused the chunk in this very step
                self.machine.tick(now, 0.0, why="the envelope refused the chunk")
            action_A = self._hold_A()
        self._note_mode(now)
        if self._recorder is not None and not is_stopped:
            self._recorder.did(action_A)
        outcome = None if is_stopped else self._act(command, action_A, clipped, now)
        episode.steps += 1
        episode.holds += command is None
        episode.stretches += self.machine.mode is Mode.STRETCH
        if outcome is not None and outcome.success:
            return StopReason.SUCCESS
        if outcome is not None and outcome.done:
            return StopReason.MAX_STEPS
        return StopReason.MAX_STEPS if episode.steps >= self._settings.max_steps else None

    def _judged(self, command: Command | None, now: float) -> tuple[NDArray[np.float32] | None, dict[str, float]]:
        if command is None:
            return None, {}
        verdict = self.envelope.check(command.action_A, command.ref, self._asker.session, now_s=now, proprio_P=self._state_P)
        if verdict.is_refused:
            self._refuse_chunk(now, verdict.stage, verdict.reason)
            return None, {}
        if verdict.clipped:
            self.scheduler.executed_instead(verdict.action_A, command.scale)
        self.machine.accepted()
        return verdict.action_A, dict(verdict.clipped)

    def _act(self, command: Command | None, action_A: NDArray[np.float32], clipped: dict[str, float], now: float):
        """Give a command to the driver; None when the driver did not take it."""
        episode = self._episode
        assert episode is not None
        is_hold = command is None and self.machine.mode is not Mode.SAFE_STOP
        tag = tag_of(Mode.HOLD.value if is_hold else self.machine.mode.value, command)
        if isinstance(self._robot, TagReader):
            self._robot.tag(tag)
        try:
            outcome = self._robot.act(action_A)
        except CommandRejected as error:
            self.envelope.refused_by_driver(str(error))
            self._tell.event("driver", reason=str(error))
            self._restart("the driver rejected a command", new_epoch=True)
            self.machine.rejected(now, f"driver: {error}")
            return None
        except RobotStopped as error:
            self._is_moving = False
            if self.machine.mode is not Mode.SAFE_STOP:  # once; while it lasts there is nothing to start anew
                self._stop(now, f"driver: {error}")
                self._restart(str(error), new_epoch=True)
            return None
        if self._watch is not None:
            self._watch.commanded()
        self._last_A, self._is_moving = action_A, command is not None
        self._tell.executed(episode, command, tag, action_A, self._state_P, clipped, now)
        return outcome

    # --- holding --------------------------------------------------------------------------------------------------

    def _hold_A(self) -> NDArray[np.float32]:
        """The same hold for as long as it lasts: the pose is measured once, when holding begins."""
        if self._held_A is None:
            held_A = hold_action(self._robot.embodiment, self._last_A, self._state_P)
            self._held_A = self.envelope.hold(held_A)
            self.scheduler.held(self._held_A)
        return self._held_A

    def _note_mode(self, now: float) -> None:
        mode, episode = self.machine.mode, self._episode
        assert episode is not None
        is_still = mode in (Mode.HOLD, Mode.SAFE_STOP)
        if not is_still:
            self._held_A = None
        if mode.value == self._mode_said:
            return
        if is_still and self._mode_said not in (Mode.HOLD.value, Mode.SAFE_STOP.value):
            silence_s = now - self._link.last_heard_s
            down_s = None if self._down_since_s is None else now - self._down_since_s
            episode.hold_begun.append(HoldBegun(t_s=now, reason=self.machine.reason, silence_s=silence_s, down_s=down_s))
        self._mode_said = mode.value
        self._tell.event("mode", mode=mode.value, reason=self.machine.reason)

    def _restart(self, reason: str, *, new_epoch: bool) -> None:
        """From rest, from the measured pose, with nothing kept: rows, the gripper's too, open questions, rates."""
        self.scheduler.flush()
        self._asker.forget(reason)
        self.envelope.restart()
        self._held_A = None
        if new_epoch:
            self._link.renew(reason)

    def _stop(self, now: float, reason: str) -> None:
        if self.machine.mode is not Mode.SAFE_STOP:
            self.machine.stop(now, reason)
            self._note_detail(reason)

    def _wait_for_operator(self, now: float) -> StopReason | None:
        episode = self._episode
        assert episode is not None
        if episode.stopped_at_s is None:
            episode.stopped_at_s = now
            self.scheduler.flush()
            self._asker.forget(self.machine.reason)
            self._note_mode(now)
            self._tell.event("stop", reason=self.machine.reason)
            self._note_detail(self.machine.reason)
            if isinstance(self._robot, Stoppable) and not self._robot.stop_state() and self._settings.operator_wait_s <= 0:
                self._robot.halt(self.machine.reason)
        name = self._settings.operator() if self._settings.operator is not None else ""
        if name:
            self._resume(name)
            return None
        if now - episode.stopped_at_s >= self._settings.operator_wait_s:
            return _why(episode.code) if self.machine.reason.startswith("held for") else StopReason.GUARD_STOPPED
        return None

    def _note_detail(self, text: str) -> None:
        if self._episode is not None:
            self._episode.detail = text

    # --- guards -------------------------------------------------------------------------------------------------------

    def _stop_state(self) -> str:
        return self._robot.stop_state() if isinstance(self._robot, Stoppable) else ""

    def _check_guards(self, now: float) -> None:
        state = self._stop_state()
        if state and self.machine.mode is not Mode.SAFE_STOP:
            self._stop(now, f"the robot is in {state} stop")
            self._restart(f"{state} stop", new_epoch=True)
        if self._watch is not None:
            self._watch.turn()
            complaint = self._watch.complaint()
            if complaint and self.machine.mode is not Mode.SAFE_STOP:
                self._tell.event("watchdog", reason=complaint)
                self._stop(now, complaint)

    def _drop_expired(self, now: float) -> None:
        ref = self.scheduler.current
        if ref is None:
            return
        down_s = 0.0 if self._down_since_s is None else now - self._down_since_s
        # From here to the driver time passes, and the last row of a chunk is due at the very moment at which it expires.
        if now + 0.25 / self._robot.embodiment.control_hz > ref.expires_at_s:
            self.scheduler.drop_rows()
            self._tell.event("expired", chunk_id=ref.chunk_id)
        elif 1e3 * down_s > self._limits.hold_within_ms:
            self.scheduler.drop_rows()
            self._tell.event("cut", chunk_id=ref.chunk_id, down_s=down_s)

    def _measure(self) -> None:
        """The state that commands are judged from: of this step where it can be had."""
        if isinstance(self._robot, Proprioceptive):
            self._state_P = np.asarray(self._robot.proprio_P(), np.float32)
        elif self._reads_pose:
            self._state_P = np.asarray(self._look().proprio_P, np.float32)

    def _look(self) -> Observation:
        self._seen = self._robot.observe()
        return self._seen

    def _seen_now(self) -> Observation:
        seen, self._seen = self._seen, None
        return seen or self._robot.observe()

    # --- asking -------------------------------------------------------------------------------------------------------

    def _maybe_ask(self, now: float) -> None:
        if self.machine.mode is Mode.SAFE_STOP or not self._asker.is_due(now, self.scheduler):
            return
        episode = self._episode
        assert episode is not None
        taken_at_s = self._clock()
        observation = self._look()
        age_ms, too_old = self._asker.ages_ms(self._limits)
        if too_old:
            episode.code, episode.detail = RefusalCode.STALE_OBS.value, f"STALE_OBS: {too_old}"
            self._tell.event("stale", reason=too_old)
            return
        self._asker.ask(
            self.scheduler,
            episode,
            observation,
            age_ms,
            self._last_A,
            taken_at_s=taken_at_s,
            now_s=now,
            min_interval_s=self._ready.min_interval_ms / 1e3,
        )

    # --- answers ------------------------------------------------------------------------------------------------------

    def _listen(self, now: float) -> None:
        for heard in self._link.poll():
            match heard.kind:
                case "chunk":
                    self._take(heard, now)
                case "refused" | "late":
                    self._refused(heard)
                case "up":
                    self._came_up(heard)
                case "down":
                    self._went_down(heard)
                case "denied" | "lease":
                    self._tell.event(heard.kind, code=heard.code, reason=heard.reason)
                    self._note_refusal(heard.code or "LEASE", heard.reason, counts=heard.kind == "denied" and not heard.is_retryable)
                    self.scheduler.drop_rows()
                case "told":
                    self._obey(heard, now)
                case "part" if heard.part is not None:  # nothing is done with it: the audit knows how far an answer came
                    self._tell.event("part", seq=heard.seq, field=heard.part.field)
                case _:
                    pass

    def _take(self, heard: Heard, now: float) -> None:
        chunk, asked = heard.chunk, self._asker.take(heard.seq)
        if chunk is None or asked is None:
            return
        body, hz = self._robot.embodiment, self._ready.contract.embodiment.control_hz
        if abs(chunk.control_hz - hz) > 1e-6 * hz:  # rows of another pace are another motion
            self._refuse_answer(
                heard, asked, RefusalCode.CONTRACT, "contract", f"rows at {chunk.control_hz:g} Hz, the contract says {hz:g}"
            )
            return
        rows = guard_rows(chunk.actions_KA, body, self._ready.contract.chunk_length)
        if rows.refusal is not None:
            self._refuse_answer(heard, asked, rows.refusal.code, "contract", rows.refusal.reason)
            return
        ref = ChunkRef.of(chunk, heard.expires_at_s, asked.ask.revision)
        targets = targets_KA(rows.rows_KA, body, asked.question.observation.proprio_P)
        installed = self.scheduler.install(
            heard.seq, targets, ref, raw_KA=chunk.actions_KA, committed=chunk.committed, is_warm_up=heard.is_first
        )
        if installed.reason:
            self._asker.report(heard, asked, "dropped", reason=installed.reason, installed=installed)
            return
        self._measure()
        first = int(installed.first)
        assert installed.rows_KA is not None
        verdict = self.envelope.check_rows(installed.rows_KA, self._state_P, first)
        if verdict.is_refused:
            self._refuse_answer(heard, asked, RefusalCode.UNSAFE, verdict.stage, verdict.reason)
            return
        if self._episode is not None:
            self._episode.in_a_row, self._episode.code = 0, ""
        self._asker.report(heard, asked, "installed", installed=installed)

    def _refuse_answer(self, heard: Heard, asked: Asked, code: RefusalCode, stage: str, reason: str) -> None:
        text = f"{stage}: {reason}" if code is RefusalCode.UNSAFE else reason
        self.scheduler.lost(heard.seq)
        self._asker.report(heard, asked, "refused", code=code.value, reason=text)
        self._note_refusal(code.value, text, counts=True)
        self._refuse_chunk(heard.t_s, stage, reason)

    def _refuse_chunk(self, now: float, stage: str, reason: str) -> None:
        self.scheduler.drop_rows()
        self.machine.rejected(now, f"{stage}: {reason}")
        self._tell.event("reject", stage=stage, reason=reason)
        logger.warning("chunk.refused cell=%s stage=%s reason=%s", self._settings.cell, stage, reason)

    def _refused(self, heard: Heard) -> None:
        self.scheduler.lost(heard.seq)
        asked = self._asker.take(heard.seq)
        if asked is not None:
            self._asker.report(heard, asked, "late" if heard.kind == "late" else "refused", code=heard.code, reason=heard.reason)
            if heard.code == RefusalCode.CONTRACT.value and asked.question.committed_DA is not None:
                self.scheduler.commit_no_more()  # a model that cannot be held to rows: its answers are joined by bending
                self._tell.event("prefix", text=f"the service takes no committed rows: {heard.reason}")
        if heard.code not in _LATE_CODES:
            self.scheduler.drop_rows()  # as evaluation does: what is left of the old chunk belongs to a plan that was just refused
        self._asker.wait_until(heard.t_s + heard.value)
        is_lasting = not heard.is_retryable and heard.kind == "refused"
        self._note_refusal(heard.code, heard.reason, counts=is_lasting)

    def _note_refusal(self, code: str, reason: str, *, counts: bool) -> None:
        if self._episode is not None:
            self._episode.refused(code, reason, counts=counts)

    def _came_up(self, heard: Heard) -> None:
        ready = heard.ready
        assert ready is not None
        self._down_since_s = None
        self.scheduler.flush()  # rows of the old epoch are not rows of this one
        self._asker.forget("a new session")
        self._ready, self._asker.session = ready, _key(ready, ready.epoch)
        self._release(ready)
        self._tell.event("epoch", epoch=ready.epoch, session_id=ready.session_id, model_version=ready.model_version)

    def _went_down(self, heard: Heard) -> None:
        if self._down_since_s is None:
            self._down_since_s = heard.t_s
        for seq in self._asker.open_seqs:
            asked = self._asker.take(seq)
            assert asked is not None
            self.scheduler.lost(seq)
            self._asker.report(replace(heard, seq=seq), asked, "late", code="down", reason=heard.reason)
        self._tell.event("lost", reason=heard.reason)
        self._note_refusal("down", heard.reason, counts=False)

    def _obey(self, heard: Heard, now: float) -> None:
        self._tell.event("told", code=heard.code, reason=heard.reason)
        if heard.code == "KILL":
            self._stop(now, f"KILLED: {heard.reason}")
        elif heard.code == "HOLD":
            self.scheduler.flush()
            self._asker.forget("the service says HOLD")
            self._holding_session = self._asker.session.session_id
            self.machine.hold(now, f"the service says HOLD: {heard.reason}")
        elif heard.code == "RESET":
            self._holding_session = self._draining_session = ""
            self.machine.release()
            self.scheduler.bump()
        elif heard.code == "DRAIN":
            self._draining_session = self._asker.session.session_id

    def _release(self, ready: Ready) -> None:
        """A HOLD was said in a session and ends with it: who shakes hands anew answers again. Rows are still needed to move."""
        if self._holding_session and ready.session_id != self._holding_session:
            self._holding_session = ""
            self.machine.release()

    # --- telling --------------------------------------------------------------------------------------------------

    def _adopt(self, ready: Ready, now: float) -> None:
        """Work under this contract from now on; between episodes the service may have changed its model."""
        self._ready, self._asker.session = ready, _key(ready, self._link.epoch)
        settings = ScheduleSettings.of(ready.contract, self._settings.strategy, self._settings.execute_horizon)
        if settings != self.scheduler.settings:
            self.scheduler = Scheduler(self._robot.embodiment, settings)
        self.scheduler.flush()
        self._asker.forget("a new episode")
        self._release(ready)
        self.envelope.restart()
        self._last_A = self._held_A = self._seen = None
        self._is_moving = False
        self._asker.begin(now)
        self._mode_said, self._down_since_s = "", None


def _key(ready: Ready, epoch: int) -> SessionKey:
    return SessionKey(session_id=ready.session_id, epoch=epoch, contract_id=ready.contract.contract_id, model_version=ready.model_version)


def _why(code: str) -> StopReason:
    if code in _GUARD_CODES:
        return StopReason.GUARD_STOPPED
    return StopReason.SERVICE_LOST if code in _LOST_CODES else StopReason.REFUSED
