"""The control loop of one cell: observe, ask, execute, and hold whenever there is any doubt.

Two clocks. In lock step the simulated world waits while the cell asks (up to the deadline): what evaluation does, over
a socket. In real time the world does not wait: the old chunk runs on while the new one is being made, rows that time
has overtaken are skipped, and when there is nothing left to execute the robot holds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_core.spec.chunking import ChunkPlayer
from model_core.spec.guard import Guarded
from model_core.spec.holding import hold_action
from model_core.spec.types import Decision, Observation, Refusal, RefusalCode, StopReason
from model_core.spec.wire import Ready
from serving.workcell.client import PolicyClient
from serving.workcell.recorder import Recorder
from serving.workcell.results import EpisodeResult
from serving.workcell.robot import Robot

logger = logging.getLogger(__name__)

_GUARD_CODES = {RefusalCode.UNSAFE, RefusalCode.NONFINITE}
_LOST_CODES = {RefusalCode.NOT_READY, RefusalCode.DEADLINE}
_LATE_CODES = {RefusalCode.DEADLINE, RefusalCode.OVERLOAD}  # the chunk in hand is still good, up to its end


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSettings:
    """How one cell behaves. execute_horizon: control steps before asking again (0: the contract's).

    deadline_s: an answer later than this is not used. max_refusals: so many refusals in a row end the episode.
    max_steps: control steps of an episode at most (the robot's own horizon usually comes first).
    """

    cell: str
    execute_horizon: int = 0
    deadline_s: float = 2.0
    max_refusals: int = 5
    max_steps: int = 1000
    is_realtime: bool = False


@dataclass(slots=True)
class _Progress:
    """The running numbers of one episode."""

    steps: int = 0
    holds: int = 0
    decisions: int = 0
    refusals: int = 0
    in_a_row: int = 0
    last_refusal: Refusal | None = None
    last_action_A: NDArray[np.float32] | None = None
    asked_at_step: int = 0
    asked_at_s: float = 0.0
    expires_at_s: float = 0.0
    pending: Future[Decision] | None = field(default=None)


class Cell:
    """One robot that acts on a served policy. Construct it only after a successful handshake."""

    def __init__(
        self,
        robot: Robot,
        client: PolicyClient,
        settings: CellSettings,
        recorder: Recorder | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._robot, self._client, self._settings, self._recorder = robot, client, settings, recorder
        self._clock, self._sleep = clock, sleep
        self._adopt(client.ready or client.connect())
        self._asker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="asker")

    def close(self) -> None:
        """End the asking thread and the connection."""
        self._asker.shutdown(wait=False, cancel_futures=True)
        self._client.disconnect()

    def _adopt(self, ready: Ready) -> None:
        """Work under this contract from now on; between episodes the service may have changed its model."""
        # The service guards what it sends; the cell guards what it executes, by the same lines and its own reading of the contract.
        self._guarded = Guarded(policy=self._client, contract=ready.contract)
        self._player = ChunkPlayer(self._settings.execute_horizon or ready.contract.execute_horizon)

    def run_episode(self, seed: int) -> EpisodeResult:
        """One attempt. Every way of ending has its `StopReason`; a robot's own failure is ENV_ERROR."""
        robot, client = self._robot, self._client
        version = "" if client.ready is None else client.ready.model_version
        episode_id = f"{robot.task}-{seed}-{self._settings.cell}-{version}".replace("/", "-")
        state = _Progress()
        if client.ready is not None:
            self._adopt(client.ready)
        client.begin_episode(episode_id)
        try:
            robot.reset(seed)
            if self._recorder is not None:
                self._recorder.begin()
            reason = self._control(state)
            detail = (
                ""
                if state.last_refusal is None or reason is StopReason.SUCCESS
                else f"{state.last_refusal.code}: {state.last_refusal.reason}"
            )
        except Exception as error:
            # A robot may raise anything; for the cell that is one ended episode with a reason, and the next one may work.
            logger.exception("episode.failed episode=%s", episode_id)
            reason, detail = StopReason.ENV_ERROR, f"{type(error).__name__}: {error}"
        if state.pending is not None:  # the client belongs to the asking thread until its answer is in
            wait([state.pending], timeout=2 * self._settings.deadline_s)
        success = reason is StopReason.SUCCESS
        client.end_episode(reason.value, success=success)
        if self._recorder is not None and reason is not StopReason.ENV_ERROR:
            self._recorder.finish(episode_id=episode_id, seed=seed, success=success, model_version=version)
        return EpisodeResult(
            episode_id=episode_id,
            seed=seed,
            success=success,
            stop_reason=reason,
            steps=state.steps,
            decisions=state.decisions,
            refusals=state.refusals,
            holds=state.holds,
            detail=detail[:400],
        )

    def _control(self, state: _Progress) -> StopReason:
        period_s = 1.0 / self._robot.embodiment.control_hz
        next_tick = self._clock()
        while state.steps < self._settings.max_steps:
            seen = self._consult(state)
            if state.in_a_row >= self._settings.max_refusals and self._player.remaining == 0:
                return _why(state.last_refusal)
            action_A = self._next_action(state)
            if self._recorder is not None:
                self._recorder.add(seen or self._robot.observe(), action_A)
            outcome = self._robot.act(action_A)
            state.steps += 1
            if outcome.success:
                return StopReason.SUCCESS
            if outcome.done:
                return StopReason.MAX_STEPS
            if self._settings.is_realtime:
                next_tick += period_s
                self._sleep(max(next_tick - self._clock(), 0.0))
                next_tick = max(next_tick, self._clock() - period_s)  # a stall is not made up for by rushing
        return StopReason.MAX_STEPS

    def _consult(self, state: _Progress) -> Observation | None:
        """Ask when it is time, take what has come. Returns the observation that was made on the way, if one was."""
        seen = None
        if state.pending is None and self._player.wants_chunk:
            seen = self._robot.observe()
            state.pending = self._asker.submit(self._guarded.decide, seen)
            state.asked_at_step, state.asked_at_s = state.steps, self._clock()
            state.decisions += 1
        if state.pending is None:
            return seen
        if not self._settings.is_realtime or state.pending.done():
            self._take(state, state.pending)
        elif self._clock() - state.asked_at_s > 2 * self._settings.deadline_s:
            self._refused(state, Refusal(code=RefusalCode.DEADLINE, reason="the client itself does not return"))
        return seen

    def _take(self, state: _Progress, pending: Future[Decision]) -> None:
        try:
            # The client keeps its own deadline; this one is for a client stuck in a full socket.
            decision = pending.result(timeout=3 * self._settings.deadline_s + 10)
        except FutureTimeout:
            self._refused(state, Refusal(code=RefusalCode.DEADLINE, reason="the client itself does not return"))
            return
        state.pending = None
        if decision.chunk is None:
            self._refused(state, decision.refusal)
            return
        passed = state.steps - state.asked_at_step
        if passed >= len(decision.chunk.actions_KA):
            self._refused(
                state,
                Refusal(code=RefusalCode.DEADLINE, reason=f"the chunk came {passed} steps after its observation, longer than it lasts"),
            )
            return
        state.in_a_row = 0
        chunk = self._client.last_chunk
        state.expires_at_s = state.asked_at_s + (chunk.expires_ms / 1e3 if chunk is not None else 0.0)
        self._player.install(decision.chunk, skip=passed)

    def _refused(self, state: _Progress, refusal: Refusal | None) -> None:
        state.refusals += 1
        state.in_a_row += 1
        state.last_refusal = refusal
        if refusal is None or refusal.code not in _LATE_CODES:
            self._player.clear()  # as evaluation does: what is left of the old chunk belongs to a plan that was just refused
        logger.warning("chunk.refused cell=%s code=%s reason=%s", self._settings.cell, refusal and refusal.code, refusal and refusal.reason)

    def _next_action(self, state: _Progress) -> NDArray[np.float32]:
        if self._settings.is_realtime and self._clock() > state.expires_at_s:
            self._player.clear()  # a stalled loop must not execute what was meant for a moment long past
        action_A = self._player.next_action()
        if action_A is None:
            action_A = hold_action(self._robot.embodiment, state.last_action_A)
            state.holds += 1
        state.last_action_A = action_A
        return action_A


def _why(refusal: Refusal | None) -> StopReason:
    if refusal is not None and refusal.code in _GUARD_CODES:
        return StopReason.GUARD_STOPPED
    if refusal is not None and refusal.code in _LOST_CODES:
        return StopReason.SERVICE_LOST
    return StopReason.REFUSED
