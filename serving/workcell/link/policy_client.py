"""The policy, as seen from a robot: `PolicyClient` is a `Policy` whose mind is at the other end of a socket.

Every wait has an end. An answer that comes after its request was given up is dropped and counted, never used; so is an
answer of another session, model or contract. After `max_dead` unanswered requests in a row, or one broken message, the
connection is thrown away and the next request shakes hands again, with the next epoch.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.conversion import compare, unagreed
from model_core.spec.errors import ActwrightError, ContractError, NotReady, WireError
from model_core.spec.protocol.trust import distrust
from model_core.spec.protocol.wire import (
    MAX_MESSAGE_BYTES,
    Chunk,
    Control,
    End,
    Hello,
    Message,
    Observe,
    Part,
    Ready,
    Reject,
    decode_message,
    encode_message,
)
from model_core.spec.types import ActionChunk, ActionReasoning, Decision, DepthTokens, Observation, Refusal, RefusalCode, Trace
from serving.workcell.link.blocking_socket import BlockingSocket
from serving.workcell.link.credentials import Credentials, reason_of

logger = logging.getLogger(__name__)

LOST = "lost"


@dataclass(slots=True)
class Tally:
    """What a client has seen. `latency_ms`: from asking to having a chunk, refusals and lateness not included."""

    decisions: int = 0
    chunks: int = 0
    late_dropped: int = 0
    connections: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    latency_ms: list[float] = field(default_factory=list)


class PolicyClient:
    """Asks one policy service on behalf of one cell. Use from one thread at a time.

    url: "ws://host:port/v1/session". deadline_s: an answer later than this is worth nothing.
    """

    def __init__(
        self,
        url: str,
        *,
        cell: str,
        embodiment: EmbodimentSpec,
        deadline_s: float = 2.0,
        connect_timeout_s: float = 5.0,
        max_dead: int = 3,
        credentials: Credentials | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tally = Tally()
        self.ready: Ready | None = None
        self.last_chunk: Chunk | None = None
        self._url, self._cell, self._embodiment = url, cell, embodiment
        self._deadline_s, self._connect_timeout_s, self._max_dead = deadline_s, connect_timeout_s, max_dead
        self._clock, self._credentials = clock, credentials or Credentials()
        self._socket: BlockingSocket | None = None
        self._epoch = self._seq = self._step = self._dead = 0
        self._episode_id = ""
        self._pinned: tuple[str, str] | None = None

    @property
    def last_seq(self) -> int:
        """The number of the newest question."""
        return self._seq

    @property
    def is_connected(self) -> bool:
        """Hands were shaken and the socket is not known to be broken."""
        return self._socket is not None

    def connect(self) -> Ready:
        """Shake hands. Raises ContractError (with every field that differs) or NotReady (nobody there, or not yet)."""
        self.disconnect()
        self._epoch += 1
        try:
            self._socket = BlockingSocket(
                self._url,
                headers=self._credentials.headers(),
                tls=self._credentials.tls(self._url),
                open_timeout_s=self._connect_timeout_s,
                max_size=MAX_MESSAGE_BYTES,
            )
            self._send(Hello(cell=self._cell, epoch=self._epoch, embodiment=self._embodiment, software="actwright-workcell"))
            answer = self._receive(self._connect_timeout_s)
        except InvalidStatus as error:
            self.disconnect()
            status = error.response.status_code
            if status in (401, 403):
                raise ContractError(f"{self._url} answered HTTP {status}: no token, a wrong one, or one that expired") from error
            raise NotReady(f"{self._url} answered HTTP {status}; is this the policy service, and is it ready?") from error
        except ssl.SSLCertVerificationError as error:
            self.disconnect()
            raise ContractError(f"{self._url}: {distrust(error)}") from error
        except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake, InvalidURI, WireError) as error:
            self.disconnect()
            reason = reason_of(error, self._url)
            raise NotReady(f"no policy service answers at {self._url} ({reason}); is it running and ready?") from error
        try:
            self.ready = self._checked(answer)
        except ActwrightError:
            self.disconnect()
            raise
        self.tally.connections += 1
        self._dead = 0
        return self.ready

    def disconnect(self) -> None:
        """Throw the connection away; safe to call twice."""
        socket, self._socket = self._socket, None
        if socket is not None:
            with contextlib.suppress(Exception):
                socket.close()

    def begin_episode(self, episode_id: str) -> None:
        """From now on every answer must come from the model version and contract that are there now."""
        self._episode_id, self._step = episode_id, 0
        self._pinned = None
        if self.ready is not None:
            self._pinned = (self.ready.model_version, self.ready.contract.contract_id)

    def end_episode(self, stop_reason: str, *, success: bool) -> None:
        """Tell the service; silence is no reason to fail here."""
        if self._socket is None or self.ready is None:
            return
        end = End(
            session_id=self.ready.session_id, epoch=self.ready.epoch, episode_id=self._episode_id, stop_reason=stop_reason, success=success
        )
        try:
            self._send(end)
        except (OSError, ConnectionClosed):
            self.disconnect()

    def decide(self, observation: Observation) -> Decision:
        """Ask once. Silence, lateness, a lost service and a refusal are all refusals here; never raises for them."""
        self.tally.decisions += 1
        asked_at = self._clock()
        decision = self._ask(observation, asked_at)
        if decision.refusal is not None:
            code = LOST if decision.refusal.code is RefusalCode.NOT_READY and not self.is_connected else decision.refusal.code.value
            self.tally.refusals[code] = self.tally.refusals.get(code, 0) + 1
        else:
            self.tally.chunks += 1
            self.tally.latency_ms.append(1e3 * (self._clock() - asked_at))
        return decision

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        """Ask one after the other."""
        return [self.decide(observation) for observation in observations]

    def _ask(self, observation: Observation, asked_at: float) -> Decision:
        try:
            if self._socket is None:
                self.connect()
            self._check_pin()
            assert self.ready is not None  # connect either sets it or raises
            self._seq += 1
            self._step += 1
            question = Observe(
                session_id=self.ready.session_id,
                epoch=self.ready.epoch,
                seq=self._seq,
                episode_id=self._episode_id,
                step=self._step,
                # The service must give up a little before we do, so that its reason still arrives.
                deadline_ms=900.0 * self._deadline_s,
                observation=observation,
            )
            try:
                data = encode_message(question)
            except WireError as error:
                return self._refusal(RefusalCode.DECODE, f"the question cannot be sent: {error}")
            self._send_bytes(data)
            return self._await_answer(asked_at)
        except TimeoutError:
            return self._gave_up()
        except WireError as error:
            self.disconnect()
            return self._refusal(RefusalCode.DECODE, f"what the service sent is not a message: {error}")
        except ContractError as error:
            self.disconnect()
            return self._refusal(RefusalCode.CONTRACT, str(error))
        except (NotReady, OSError, ConnectionClosed) as error:
            self.disconnect()
            return self._refusal(RefusalCode.NOT_READY, f"service lost: {error}", retryable=True)

    def _await_answer(self, asked_at: float) -> Decision:
        while True:
            left_s = self._deadline_s - (self._clock() - asked_at)
            if left_s <= 0:
                raise TimeoutError
            message = self._receive(left_s)
            if isinstance(message, Part):  # this side waits for the whole answer
                continue
            if isinstance(message, Control):
                self._take_control(message)
                continue
            if not isinstance(message, Chunk | Reject):
                raise WireError(f"{type(message).__name__} is not an answer")
            ready = self.ready
            assert ready is not None  # asked only after READY
            is_for_session = isinstance(message, Reject) and message.seq == 0
            if not is_for_session and (message.session_id, message.epoch, message.seq) != (ready.session_id, ready.epoch, self._seq):
                self.tally.late_dropped += 1
                continue
            self._dead = 0
            if isinstance(message, Reject):
                return self._refusal(message.code, message.reason, retryable=message.retryable)
            return self._accept(message)

    def _take_control(self, control: Control) -> None:
        if control.kind == "PING":
            self._send(Control(kind="PONG", session_id=control.session_id, epoch=control.epoch, seq=control.seq, value=control.value))
        elif control.kind in ("KILL", "HOLD"):
            raise ContractError(f"the service says {control.kind}: {control.text}")

    def _accept(self, chunk: Chunk) -> Decision:
        if self._pinned is not None and (chunk.model_version, chunk.contract_id) != self._pinned:
            return self._refusal(RefusalCode.STALE_EPOCH, f"a chunk of {chunk.model_version}, this episode began with {self._pinned[0]}")
        hz = chunk.control_hz if self.ready is None else self.ready.contract.embodiment.control_hz
        if abs(chunk.control_hz - hz) > 1e-6 * hz:  # rows of another pace are another motion
            return self._refusal(RefusalCode.CONTRACT, f"rows at {chunk.control_hz:g} Hz, the contract says {hz:g}")
        if not np.isfinite(chunk.actions_KA).all():
            return self._refusal(RefusalCode.NONFINITE, "the chunk holds NaN or inf")
        try:
            decision = _decision_of(chunk)
        except ActwrightError as error:
            return self._refusal(RefusalCode.UNSAFE, f"the chunk breaks its spec: {error}")
        self.last_chunk = chunk
        return decision

    def _check_pin(self) -> None:
        # A service that came back with another model must not finish an episode that the old one began.
        if self.ready is not None and self._pinned is not None:
            now = (self.ready.model_version, self.ready.contract.contract_id)
            if now != self._pinned:
                raise ContractError(
                    f"the service now runs {now[0]} ({now[1]}), this episode began with {self._pinned[0]} ({self._pinned[1]})"
                )

    def _gave_up(self) -> Decision:
        self._dead += 1
        if self._dead >= self._max_dead:
            logger.warning("service.silent url=%s requests=%d", self._url, self._dead)
            self.disconnect()
        return self._refusal(RefusalCode.DEADLINE, f"no answer within {1e3 * self._deadline_s:.0f} ms", retryable=True)

    def _checked(self, answer: Message) -> Ready:
        if isinstance(answer, Reject):
            kind = ContractError if answer.code is RefusalCode.CONTRACT else NotReady
            raise kind("\n  ".join([f"the service refused: {answer.code}: {answer.reason}", *answer.details]))
        if not isinstance(answer, Ready):
            raise NotReady(f"expected READY, the service sent {type(answer).__name__.upper()}")
        body = self._embodiment
        differences = [m.explain() for m in compare(answer.contract, body).refusals] or unagreed(answer.contract, body, answer.conversions)
        if differences:  # the service should have seen it; the cell does not rely on that
            raise ContractError("\n  ".join(["this cell is not what the policy was made for", *differences]))
        if answer.epoch != self._epoch:
            raise NotReady(f"READY is of epoch {answer.epoch}, this is connection {self._epoch}")
        return answer

    def _send(self, message: Message) -> None:
        self._send_bytes(encode_message(message))

    def _send_bytes(self, data: bytes) -> None:
        assert self._socket is not None
        self._socket.send(data, self._deadline_s)

    def _receive(self, timeout_s: float) -> Message:
        assert self._socket is not None
        data = self._socket.recv(timeout=timeout_s)
        if isinstance(data, str):
            raise WireError("the service sent text")
        return decode_message(data)

    def _refusal(self, code: RefusalCode, reason: str, *, retryable: bool = False) -> Decision:
        contract_id, model_version = ("", "") if self.ready is None else (self.ready.contract.contract_id, self.ready.model_version)
        refusal = Refusal(code=code, reason=reason, retryable=retryable)
        return Decision(contract_id=contract_id, model_version=model_version, refusal=refusal)


def _decision_of(chunk: Chunk) -> Decision:
    depth = None if chunk.depth_codes_G is None else DepthTokens(codes_G=chunk.depth_codes_G)
    trace = None if chunk.trace_N2 is None else Trace(points_N2=chunk.trace_N2)
    return Decision(
        contract_id=chunk.contract_id,
        model_version=chunk.model_version,
        reasoning=ActionReasoning(depth=depth, trace=trace, bins_KA=np.zeros((0, 0), np.int64)),
        chunk=ActionChunk(actions_KA=chunk.actions_KA, control_hz=chunk.control_hz),
        timing_ms=chunk.timing_ms,
    )
