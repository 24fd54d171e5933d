"""One control step of one cell, the same in real and in simulated time.

    requests of people -> what came on the link -> robot's own stop, watchdog -> drop what expired -> ask when it is time
    -> mode (RUN STRETCH HOLD SAFE_STOP) -> command or hold -> envelope -> driver -> audit

Nothing here waits for the network, a disk or a person; a link of a simulated world may.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.types import StopReason
from serving.workcell.audit.interface import ActionExecuted
from serving.workcell.control.cell_context import CellContext
from serving.workcell.control.events import tag_of
from serving.workcell.control.exchange import Exchange
from serving.workcell.control.operator_input import GO, HOLD, PERSON
from serving.workcell.control.stop_control import why_of
from serving.workcell.motion.motion_state import MotionState
from serving.workcell.motion.scheduler import Command
from serving.workcell.robot.interface import CommandRejected, Outcome, RobotStopped

logger = logging.getLogger(__name__)


class ControlStep:
    """The loop of one cell, between the begin and the end of an episode."""

    def __init__(self, context: CellContext, dialogue: Exchange) -> None:
        self._body, self._dialogue, self._stops, self._journal = context.body, dialogue, context.stops, context.journal
        self._wishes, self._tell, self._recorder, self._watch = context.wishes, context.tell, context.recorder, context.watch
        self._settings, self._link, self._clock = context.settings, context.link, context.clock

    def tick(self) -> StopReason | None:
        """One control step; a reason when the episode is over."""
        episode, scheduler = self._journal.running, self._dialogue.scheduler
        now = self._clock()
        self._body.begin_step()
        self.grant(now)
        scheduler.stepped()
        self._dialogue.listen(now)
        self._check_guards(now)
        self._dialogue.drop_expired(now)
        if self._dialogue.ask_if_due(now):
            self._dialogue.listen(now)  # a simulated world stands still until the answer is there: it is used in this very step
        if episode.in_a_row >= self._settings.max_refusals and scheduler.rows_left <= 0:
            return why_of(episode.code)
        why = "the link is down" if not self._dialogue.is_up else episode.code or "nothing to execute"
        self._stops.machine.tick(now, scheduler.rows_left, may_stretch=self._settings.strategy != "sync", why=why)
        if self._stops.is_stopped:
            over = self._wait_for_operator(now)
            if over is not None:
                return over
        return self._move()

    def _move(self) -> StopReason | None:
        episode, machine = self._journal.running, self._stops.machine
        is_stopped = self._stops.is_stopped and bool(self._body.stop_state)
        self._body.measure()
        if self._recorder is not None and not is_stopped:
            self._recorder.see(self._body.sight(), self._clock())
        now = self._clock()  # looking and measuring take their time
        self._dialogue.drop_expired(now)
        command = self._dialogue.scheduler.next(machine.scale) if machine.mode in (MotionState.RUN, MotionState.STRETCH) else None
        action_A, clipped = self._judged(command, now)
        if action_A is None:
            command, clipped = None, {}
            if machine.mode in (MotionState.RUN, MotionState.STRETCH):  # the envelope refused the chunk in this very step
                machine.tick(now, 0.0, why="the envelope refused the chunk")
            action_A = self._hold_A()
        self._note_mode(now)
        if self._recorder is not None and not is_stopped:
            self._recorder.did(action_A, is_intervention=bool(self._wishes.intervening))
        outcome = None if is_stopped else self._act(command, action_A, clipped, now)
        if command is None:
            self.tell_held()
        episode.steps += 1
        episode.holds += command is None
        episode.stretches += machine.mode is MotionState.STRETCH
        if outcome is not None and outcome.success:
            return StopReason.SUCCESS
        if outcome is not None and outcome.done:
            return StopReason.MAX_STEPS
        return StopReason.MAX_STEPS if episode.steps >= self._settings.max_steps else None

    def _judged(self, command: Command | None, now: float) -> tuple[NDArray[np.float32] | None, dict[str, float]]:
        if command is None:
            return None, {}
        verdict = self._body.envelope.check(command.action_A, command.ref, self._dialogue.session, now_s=now, proprio_P=self._body.state_P)
        stage, reason = verdict.stage, verdict.reason
        if not stage and self._clock() > command.ref.expires_at_s:  # this process may have been stopped since `now`
            stage, reason = "age", "the row expired while it was judged"
        if stage:
            self._dialogue.refuse_chunk(now, stage, reason)
            return None, {}
        if verdict.clipped:
            self._dialogue.scheduler.executed_instead(verdict.action_A, command.scale)
        self._stops.machine.accepted()
        return verdict.action_A, dict(verdict.clipped)

    def _act(self, command: Command | None, action_A: NDArray[np.float32], clipped: dict[str, float], now: float) -> Outcome | None:
        """Give a command to the driver; None when the driver did not take it."""
        is_hold = command is None and not self._stops.is_stopped
        tag = tag_of(MotionState.HOLD.value if is_hold else self._stops.machine.mode.value, command)
        if command is not None:
            tag = replace(tag, expires_at_s=self._link.on_machine_clock(tag.expires_at_s))
        try:
            outcome = self._body.act(action_A, tag, is_row=command is not None)
        except CommandRejected as error:
            self._tell.event("driver", reason=str(error))
            self._restart("the driver rejected a command")
            self._stops.machine.rejected(now, f"driver: {error}")
            return None
        except RobotStopped as error:
            if not self._stops.is_stopped:  # once; while it lasts there is nothing to restart
                self._stops.stop(now, f"driver: {error}")
                self._restart(str(error))
            return None
        if self._watch is not None:
            self._watch.commanded()
        self._tell.executed(
            ActionExecuted(
                t_s=now,
                episode_id=self._journal.running.episode_id,
                step=self._journal.running.steps,
                mode=tag.mode,
                sent_A=action_A,
                chunk_id=tag.chunk_id,
                row=tag.row,
                session_id=tag.session_id,
                epoch=tag.epoch,
                seq=tag.seq,
                contract_id=tag.contract_id,
                raw_A=None if command is None else command.raw_A,
                scale=1.0 if command is None else command.scale,
                state_P=self._body.state_P,
                clipped=clipped,
            )
        )
        return outcome

    # --- standing still -----------------------------------------------------------------------------------------------

    def rest(self) -> bool:
        """Commands end: a robot that keeps its last velocity gets a hold (others reach their last pose). False: it was not taken."""
        if not self._body.is_moving or "velocity" not in self._body.spec.action.modes:
            return True
        try:
            self._act(None, self._hold_A(), {}, self._clock())
        except Exception:  # the robot may be broken in any way; the watchdog is for that
            logger.exception("cell.not_at_rest cell=%s", self._tell.cell)
        return not self._body.is_moving

    def come_to_rest(self) -> bool:
        """`rest`, and the service is told, after a KILL."""
        is_at_rest = self.rest()
        if is_at_rest:
            self.tell_held()
        return is_at_rest

    def tell_held(self) -> None:
        """The robot has its hold, or gets no command any more: who ordered a KILL is told, once."""
        if self._stops.owes_word():
            self._link.tell_held()

    def _hold_A(self) -> NDArray[np.float32]:
        """The same hold for as long as it lasts; seams join on to it."""
        held_A = self._body.held_A
        if held_A is None:
            held_A = self._body.hold()
            self._dialogue.scheduler.held(held_A)
        return held_A

    def _note_mode(self, now: float) -> None:
        if self._stops.machine.mode not in (MotionState.HOLD, MotionState.SAFE_STOP):
            self._body.move_on()
        self._stops.note(now, silence_s=self._dialogue.silence_s(now), down_s=self._dialogue.down_s(now))

    def _restart(self, reason: str) -> None:
        """A new epoch, from rest, from the measured pose, with nothing kept: rows, the gripper's too, open requests, rates."""
        self._body.restart()
        self._dialogue.renew(reason)

    def _wait_for_operator(self, now: float) -> StopReason | None:
        if self._journal.running.stopped_at_s is None:
            self._dialogue.forget(self._stops.machine.reason)
            self._note_mode(now)
            self._stops.enter(now)
        name = self._stops.ask_operator()
        if name:
            self._resume(name)
            return None
        return self._stops.given_up(now)

    def _check_guards(self, now: float) -> None:
        state = self._body.stop_state
        if state and not self._stops.is_stopped:
            self._stops.stop(now, f"the robot is in {state} stop")
            self._restart(f"{state} stop")
        if self._watch is not None:
            self._watch.turn()
            complaint = self._watch.complaint()
            if complaint and not self._stops.is_stopped:
                self._tell.event("watchdog", reason=complaint)
                self._stops.stop(now, complaint)

    # --- people -------------------------------------------------------------------------------------------------------

    def grant(self, now: float) -> None:
        """What people asked of the cell is in force from now on."""
        for kind, text in self._wishes.take(now):
            if kind == "resume":
                self._resume(text)
            elif kind == "stop":
                self._stops.stop(now, text)
            elif kind == "intervention":
                self._tell.event(kind, text=text)  # it changes no request
                self._journal.intervened(text)
            elif kind in (HOLD, GO):
                self._obey_person(now, kind, text)
            else:
                self._tell.event(kind, text=text, revision=self._dialogue.scheduler.bump())

    def _obey_person(self, now: float, kind: str, text: str) -> None:
        machine = self._stops.machine
        self._tell.event(kind, text=text)
        if kind == HOLD:
            machine.hold(now, f"held by {text}", by=PERSON)
            self._dialogue.forget("a person holds the cell")
        else:
            machine.release(by=PERSON)
            self._dialogue.forget("a person let the cell go on")  # it moves on a new answer, not on what was meant before

    def _resume(self, operator: str) -> None:
        state = self._body.stop_state
        if state or not self._stops.is_stopped:  # a name counts when it is given: it is not kept for later
            reason = f"the robot is in {state} stop: release it, then resume again" if state else "the cell is not in SAFE_STOP"
            self._tell.event("resume_refused", operator=operator, reason=reason)
            return
        self._stops.resume(self._clock(), operator)
        self._restart("resumed")
        self._tell.event("resumed", operator=operator)
        if self._journal.notes is not None:
            self._journal.notes.stopped_at_s = None
