"""The control loop of one cell in lock step: the simulated world waits while the cell asks, up to the deadline.

What evaluation does, over a socket; in real time a cell is driven by `realtime`. The envelope, the audit and the hold are
the same in both.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ActwrightError
from model_core.spec.execution.chunking import ChunkPlayer, targets_KA
from model_core.spec.execution.guard import Guarded
from model_core.spec.execution.holding import hold_action
from model_core.spec.protocol.wire import Chunk, Ready
from model_core.spec.types import Decision, Observation, Refusal, RefusalCode, StopReason
from serving.workcell.audit.interface import Audit, DecisionMade, EpisodeEnded, NullAudit, refusal_of
from serving.workcell.control.events import Teller, executed_note, tag_of_row
from serving.workcell.control.results import EpisodeResult
from serving.workcell.link.policy_client import PolicyClient
from serving.workcell.motion.chunk_curve import ChunkRef
from serving.workcell.motion.limits import Limits, limits_under, widest_limits
from serving.workcell.motion.safety_envelope import Envelope, SessionKey
from serving.workcell.robot.episode_recorder import Recorder
from serving.workcell.robot.interface import AgedSenses, CommandRejected, CommandTag, Proprioceptive, Robot, RobotStopped, TagReader

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


@dataclass(slots=True, kw_only=True, eq=False)
class _Progress:
    """The running numbers of one episode, and what it works with."""

    episode_id: str
    steps: int = 0
    holds: int = 0
    decisions: int = 0
    refusals: int = 0
    in_a_row: int = 0
    last_refusal: Refusal | None = None
    last_action_A: NDArray[np.float32] | None = None
    held_A: NDArray[np.float32] | None = None
    state_P: NDArray[np.float32] | None = None
    seen: Observation | None = None
    pending: Future[Decision] | None = None


class Cell:
    """One robot that acts on a served policy. Construct it only after a successful handshake.

    limits: what the envelope enforces; None: the widest that the body allows. limits_of: the same for another contract, which
    the service may have between episodes (see `realtime.RealtimeCell`).
    """

    def __init__(
        self,
        robot: Robot,
        client: PolicyClient,
        settings: CellSettings,
        recorder: Recorder | None = None,
        *,
        limits: Limits | None = None,
        audit: Audit | None = None,
        commissioning_digest: str = "",
        clock: Callable[[], float] = time.monotonic,
        limits_of: Callable[[PolicyContract], tuple[Limits, str]] | None = None,
    ) -> None:
        self._robot, self._client, self._settings, self._recorder = robot, client, settings, recorder
        self._audit, self._clock = audit or NullAudit(), clock
        limits = limits or widest_limits(robot.embodiment)
        self._limits, self._limits_of, self._limited_by = limits, limits_of, ""
        self._envelope = Envelope(robot.embodiment, limits)
        self._tell = Teller(self._audit, settings.cell, "lockstep", commissioning_digest or limits.digest, clock)
        self._chunk: Chunk | None = None
        ready = client.ready or client.connect()
        self._limited_by = ready.contract.contract_id
        self._adopt(ready)
        self._asker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="asker")

    def close(self) -> None:
        """End the asking thread and the connection."""
        self._asker.shutdown(wait=False, cancel_futures=True)
        self._client.disconnect()

    @property
    def envelope(self) -> Envelope:
        """What judges every command."""
        return self._envelope

    def _adopt(self, ready: Ready) -> None:
        """Work under this contract from now on; between episodes the service may have changed its model."""
        # The service guards what it sends; the cell guards what it executes, by the same lines and its own reading of the contract
        # (in its own units: the service has converted what it declared).
        contract = replace(ready.contract, embodiment=self._robot.embodiment)
        self._guarded = Guarded(policy=self._client, contract=contract)
        self._player = ChunkPlayer(self._settings.execute_horizon or ready.contract.execute_horizon)

    def _limit(self, contract: PolicyContract) -> None:
        """Another contract between episodes: its own limits, or nothing moves. Raises ActwrightError when nobody has commissioned it."""
        if contract.contract_id == self._limited_by:
            return
        self._limits, digest = limits_under(contract, self._robot.embodiment, self._limits, self._limits_of)
        self._limited_by = contract.contract_id
        self._tell.limited_by(digest)
        self._envelope = Envelope(self._robot.embodiment, self._limits)

    def run_episode(self, seed: int) -> EpisodeResult:
        """One attempt. Every way of ending has its `StopReason`; a robot's own failure is ENV_ERROR."""
        robot, client = self._robot, self._client
        version = "" if client.ready is None else client.ready.model_version
        state = _Progress(episode_id=f"{robot.task}-{seed}-{self._settings.cell}-{version}".replace("/", "-"))
        if not self._audit.can_begin:
            text = refusal_of(self._audit)
            return _result(state, seed, StopReason.REFUSED, text)
        if client.ready is not None:
            try:
                self._limit(client.ready.contract)
            except ActwrightError as error:
                return _result(state, seed, StopReason.REFUSED, str(error))
            self._adopt(client.ready)
        client.begin_episode(state.episode_id)
        try:
            reason, detail = self._attempt(state, seed)
        except RobotStopped as error:
            reason, detail = StopReason.GUARD_STOPPED, f"robot: {error}"
        except Exception as error:
            # A robot may raise anything; for the cell that is one ended episode with a reason, and the next one may work.
            logger.exception("episode.failed episode=%s", state.episode_id)
            reason, detail = StopReason.ENV_ERROR, f"{type(error).__name__}: {error}"
        if state.pending is not None:  # the client belongs to the asking thread until its answer is in
            wait([state.pending], timeout=2 * self._settings.deadline_s)
        success = reason is StopReason.SUCCESS
        client.end_episode(reason.value, success=success)
        if self._recorder is not None and reason is not StopReason.ENV_ERROR:
            self._recorder.finish(episode_id=state.episode_id, seed=seed, success=success, model_version=version)
        result = _result(state, seed, reason, detail)
        self._audit.end_episode(
            EpisodeEnded(
                t_s=self._clock(),
                episode_id=state.episode_id,
                stop_reason=reason.value,
                success=success,
                steps=state.steps,
                detail=result.detail,
            )
        )
        return result

    def _attempt(self, state: _Progress, seed: int) -> tuple[StopReason, str]:
        self._robot.reset(seed)
        self._envelope.restart()
        self._player.clear()
        self._chunk = None
        if self._recorder is not None:
            self._recorder.begin()
        if self._client.ready is not None:
            ready, robot = self._client.ready, self._robot
            self._tell.begun_as(state.episode_id, seed, robot, robot.instruction, ready, ready.epoch)
        reason = self._control(state)
        refusal = None if reason is StopReason.SUCCESS else state.last_refusal
        return reason, "" if refusal is None else f"{refusal.code}: {refusal.reason}"

    def _control(self, state: _Progress) -> StopReason:
        while state.steps < self._settings.max_steps:
            seen = self._consult(state)
            if state.in_a_row >= self._settings.max_refusals and self._player.remaining == 0:
                return _why(state.last_refusal)
            outcome = self._step(state, seen)
            if outcome is not None and outcome.success:
                return StopReason.SUCCESS
            if outcome is not None and outcome.done:
                return StopReason.MAX_STEPS
        return StopReason.MAX_STEPS

    def _consult(self, state: _Progress) -> Observation | None:
        """Ask when it is time and wait for the answer. Returns the observation that was made on the way, if one was."""
        if state.pending is None and not self._player.wants_chunk:
            return None
        seen = None
        if state.pending is None:
            seen = self._robot.observe()
            state.seen, state.state_P = seen, seen.proprio_P
            state.pending = self._asker.submit(self._guarded.decide, seen)
            state.decisions += 1
        self._take(state, state.pending, self._clock())
        return seen

    def _take(self, state: _Progress, pending: Future[Decision], asked_at_s: float) -> None:
        try:
            # The client keeps its own deadline; this one is for a client stuck in a full socket.
            decision = pending.result(timeout=3 * self._settings.deadline_s + 10)
        except FutureTimeout:
            self._refused(state, Refusal(code=RefusalCode.DEADLINE, reason="the client itself does not return"))
            return
        state.pending = None
        chunk, seen = self._client.last_chunk, state.seen
        if decision.chunk is None or chunk is None or seen is None:
            self._tell_decision(state, asked_at_s, None, decision.refusal)
            self._refused(state, decision.refusal)
            return
        offsets_KA, verdict = self._envelope.check_offsets(decision.chunk.actions_KA)
        rows_KA = targets_KA(offsets_KA, self._robot.embodiment, seen.proprio_P)
        if not verdict.is_refused:
            verdict = self._envelope.check_rows(rows_KA, seen.proprio_P)
        if verdict.is_refused:
            refusal = Refusal(code=RefusalCode.UNSAFE, reason=f"{verdict.stage}: {verdict.reason}")
            self._tell_decision(state, asked_at_s, chunk, refusal)
            self._refused(state, refusal)
            return
        state.in_a_row = 0
        self._chunk = chunk
        self._tell_decision(state, asked_at_s, chunk, None, rows_KA)
        self._player.install(replace(decision.chunk, actions_KA=rows_KA))

    def _refused(self, state: _Progress, refusal: Refusal | None) -> None:
        state.refusals += 1
        state.in_a_row += 1
        state.last_refusal = refusal
        if refusal is None or refusal.code not in _LATE_CODES:
            self._player.clear()  # as evaluation does: what is left of the old chunk belongs to a plan that was just refused
        logger.warning("chunk.refused cell=%s code=%s reason=%s", self._settings.cell, refusal and refusal.code, refusal and refusal.reason)

    # --- one control step ---------------------------------------------------------------------------------------------

    def _step(self, state: _Progress, seen: Observation | None):
        """Execute the next row, else hold; None when the driver did not take the command."""
        if isinstance(self._robot, Proprioceptive):
            state.state_P = np.asarray(self._robot.proprio_P(), np.float32)
        action_A, tag, clipped = self._command(state)
        raw_A = None if self._chunk is None or tag.row < 0 else self._chunk.actions_KA[tag.row]
        if self._recorder is not None:
            self._recorder.add(seen or self._robot.observe(), action_A)
        if isinstance(self._robot, TagReader):
            self._robot.tag(tag)
        try:
            outcome = self._robot.act(action_A)
        except CommandRejected as error:
            self._envelope.refused_by_driver(str(error))
            self._player.clear()
            self._client.disconnect()  # the next answer is of a new epoch
            self._refused(state, Refusal(code=RefusalCode.UNSAFE, reason=f"driver: {error}"))
            state.held_A = None
            state.steps += 1
            return None
        note = executed_note(self._clock(), state.episode_id, state.steps, tag, action_A, raw_A, state.state_P, clipped)
        self._audit.executed(note)
        state.steps += 1
        state.holds += tag.row < 0
        state.last_action_A = action_A
        return outcome

    def _command(self, state: _Progress) -> tuple[NDArray[np.float32], CommandTag, dict[str, float]]:
        chunk, row_A = self._chunk, self._player.next_action()
        if chunk is not None and row_A is not None and state.state_P is not None:
            # The world stood still while the answer was made: a row's time is counted in control steps, not on the clock.
            expires_at_s = self._clock() + (self._player.remaining + 1) / chunk.control_hz
            row = len(chunk.actions_KA) - self._player.remaining - 1
            key = SessionKey(
                session_id=chunk.session_id, epoch=chunk.epoch, contract_id=chunk.contract_id, model_version=chunk.model_version
            )
            ref = ChunkRef.of(chunk, expires_at_s)
            verdict = self._envelope.check(row_A, ref, key, now_s=self._clock(), proprio_P=state.state_P)
            if not verdict.is_refused:
                state.held_A = None
                return verdict.action_A, tag_of_row("RUN", ref, row), dict(verdict.clipped)
            self._refused(state, Refusal(code=RefusalCode.UNSAFE, reason=f"{verdict.stage}: {verdict.reason}"))
        if state.held_A is None:
            held_A = hold_action(self._robot.embodiment, state.last_action_A, state.state_P)
            state.held_A = self._envelope.hold(held_A, state.state_P)
        return state.held_A, CommandTag(mode="HOLD"), {}

    # --- telling the audit --------------------------------------------------------------------------------------------

    def _tell_decision(
        self,
        state: _Progress,
        asked_at_s: float,
        chunk: Chunk | None,
        refusal: Refusal | None,
        rows_KA: NDArray[np.float32] | None = None,
    ) -> None:
        ready = self._client.ready
        if state.seen is None:
            return
        made = DecisionMade(
            t_s=asked_at_s,
            answered_s=self._clock(),
            episode_id=state.episode_id,
            session_id="" if ready is None else ready.session_id,
            epoch=0 if ready is None else ready.epoch,
            seq=self._client.last_seq,
            step=state.steps,
            observation=state.seen,
            outcome="installed" if refusal is None else "late" if refusal.code is RefusalCode.DEADLINE else "refused",
            chunk=chunk,
            code="" if refusal is None else refusal.code.value,
            reason="" if refusal is None else refusal.reason,
            age_ms=dict(self._robot.ages_ms()) if isinstance(self._robot, AgedSenses) else {},
            deadline_ms=1e3 * self._settings.deadline_s,
            installed_KA=rows_KA,
        )
        self._audit.decision(made)


def _result(state: _Progress, seed: int, reason: StopReason, detail: str) -> EpisodeResult:
    return EpisodeResult(
        episode_id=state.episode_id,
        seed=seed,
        success=reason is StopReason.SUCCESS,
        stop_reason=reason,
        steps=state.steps,
        decisions=state.decisions,
        refusals=state.refusals,
        holds=state.holds,
        detail=detail[:400],
    )


def _why(refusal: Refusal | None) -> StopReason:
    if refusal is not None and refusal.code in _GUARD_CODES:
        return StopReason.GUARD_STOPPED
    if refusal is not None and refusal.code in _LOST_CODES:
        return StopReason.SERVICE_LOST
    return StopReason.REFUSED
