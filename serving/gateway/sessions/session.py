"""The rules of one session with one workcell. No sockets here: messages in, messages out.

    HELLO  -> READY | REJECT(CONTRACT, every field that differs)
    OBSERVE(epoch, seq, deadline) -> PART* CHUNK | REJECT, echoing epoch and seq

One request is outstanding at a time: a newer one replaces it. The last request sent again gives the last answer again,
with one inference. An older request, or one of another session, is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from model_core.spec.conversion import convert_actions
from model_core.spec.protocol.wire import Chunk, Control, End, Message, Observe, Part, Ready, Reject
from model_core.spec.types import DecisionRequest, DepthTokens, RefusalCode, Trace
from serving.gateway.inference.pending_request import Guidance, PendingRequest
from serving.gateway.inference.served_model import ServedModel
from serving.gateway.sessions.observation_adapter import PreparedObservation
from serving.gateway.sessions.observation_checks import level_wrong, prefix_wrong
from serving.gateway.sessions.pending_reply import PendingReply
from serving.gateway.sessions.replies import chunk_id_of, chunk_of, part_of, rejection
from serving.gateway.sessions.session_state import LastAnswer, Lease, SessionPeer
from serving.gateway.sessions.steering import SessionSteering, SteeringRefused

Mirror = Callable[[str, Observe, Chunk | Reject], None]


class InferenceQueue(Protocol):
    """Where a session submits its requests."""

    def submit(self, request: DecisionRequest, deadline: float, asked: str, guidance: Guidance) -> PendingRequest:
        """Queue one request, at the level that was asked for or a cheaper one where that is allowed."""
        ...


class Session:
    """One cell's session after READY. Lives on the event loop; holds one answer and one request at most.

    send: gives a message of the service's own (PART, CONTROL) to the cell, from the event loop; None while no socket is connected.
    mirror: is given every request with its cell and its answer, in the contract's terms; None where nothing looks on.
    """

    def __init__(
        self,
        ready: Ready,
        peer: SessionPeer,
        model: ServedModel,
        queue: InferenceQueue,
        *,
        lease_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ready, self.cell, self.caller = ready, peer.cell, peer.caller
        self.episode_id: str | None = None
        self.lease = Lease(lease_s, clock() + lease_s)
        self.send: Callable[[Message], None] | None = None
        self.mirror: Mirror | None = None
        self.replaced: list[float] = []
        self.asked_at = float("-inf")
        self.ended = asyncio.Event()
        self._model, self._queue, self._clock = model, queue, clock
        self._accepts_parts = peer.accepts_parts
        self._steering = SessionSteering(model.contract, clock)
        self._seq = 0
        self._reply: asyncio.Future[Chunk | Reject] | None = None
        self._pending: PendingRequest | Reject | None = None
        self._last: LastAnswer | None = None

    @property
    def is_waiting(self) -> bool:
        """A request is outstanding."""
        return isinstance(self._pending, PendingRequest) and not self._pending.is_over

    @property
    def held_bytes(self) -> int:
        """About how much memory is held for this cell: the outstanding observation and the last answer."""
        held = 2048
        if isinstance(self._pending, PendingRequest) and not self._pending.is_over:
            seen = self._pending.request.observation
            held += sum(image.nbytes for image in seen.images.values()) + seen.proprio_P.nbytes
        return held if self._last is None else held + self._last.held_bytes

    def ask(self, prepared: PreparedObservation) -> asyncio.Future[Chunk | Reject] | Reject:
        """Queue one OBSERVE now; the reply comes with the future, or is a refusal at once.

        The same seq again gets the same future, so a caller that stops waiting must never cancel it.
        """
        observe = prepared.observe
        refused = self.stale(observe)
        if refused is not None:
            return refused
        if self.is_new(observe) or self._reply is None:
            if self.is_waiting:
                self.replaced.append(self._clock())
            self.drop("replaced by a newer request")
            self._seq, self.asked_at = observe.seq, self._clock()
            self.episode_id = observe.episode_id
            guidance = self._guidance(prepared)
            if isinstance(guidance, Reject):
                self._pending, self._reply = guidance, asyncio.get_running_loop().create_future()
                self._reply.set_result(guidance)
            else:
                self._pending = self._submit(prepared, guidance)
                self._reply = self._reply_when_done(prepared, self._pending, guidance)
        return self._reply

    def stale(self, observe: Observe) -> Reject | None:
        """Why this request belongs to another session, or is an old one; None when it may be answered."""
        if (observe.session_id, observe.epoch) != (self.ready.session_id, self.ready.epoch):
            text = f"the request is of another session (epoch {observe.epoch}, not {self.ready.epoch}); reconnect with a new HELLO"
            return rejection(observe, RefusalCode.STALE_EPOCH, text, retryable=False)
        if observe.seq < max(self._seq, 1):
            return rejection(observe, RefusalCode.STALE_OBS, f"request {observe.seq} is older than {self._seq}, which was asked already")
        return None

    def is_new(self, observe: Observe) -> bool:
        """Whether this is a new request and not the last one again."""
        return observe.seq != self._seq or self._reply is None

    def is_ours(self, message: Control | End) -> bool:
        """Whether a message belongs to this session and epoch."""
        return (message.session_id, message.epoch) == (self.ready.session_id, self.ready.epoch)

    def cancel(self, seq: int) -> bool:
        """The cell gives request `seq` up. False when that is not the outstanding one."""
        if seq != self._seq or not self.is_waiting:
            return False
        self.drop("the cell cancelled it")
        return True

    def end_episode(self, end: End) -> bool:
        """End the episode and drop its outstanding request. False if the message is of another session."""
        if not self.is_ours(end):
            return False
        self.reset()
        return True

    def reset(self) -> None:
        """Forget the episode so far: outstanding request, last answer, drafts, drawings."""
        self.drop("the episode has ended")
        self.episode_id = None
        self._last = None
        self._steering.reset()

    def drop(self, reason: str = "the request was given up", code: RefusalCode = RefusalCode.CANCELLED) -> None:
        """Refuse the outstanding request: replaced, cancelled, ended, disconnected or stopped."""
        if isinstance(self._pending, PendingRequest):
            self._pending.refuse(code, reason, now=self._clock())
        self._pending = None

    def forget(self, now: float, ttl_s: float, max_bytes: int) -> None:
        """Drop a last answer that is old or large; a request that is sent again then runs again."""
        if self._last is not None and (now - self._last.at > ttl_s or self._last.held_bytes > max_bytes):
            self._last, self._reply = None, None

    def tell(self, message: Message) -> None:
        """Send a message to the cell, if its socket is connected."""
        if self.send is not None:
            self.send(message)

    def control(self, kind: str, *, seq: int = 0, value: float = 0.0, text: str = "") -> Control:
        """A CONTROL of this session."""
        return Control(kind=kind, session_id=self.ready.session_id, epoch=self.ready.epoch, seq=seq, value=value, text=text[:1000])

    def _guidance(self, prepared: PreparedObservation) -> Guidance | Reject:
        observe, contract = prepared.observe, self._model.contract
        wrong = prepared.wrong or level_wrong(observe, contract) or prefix_wrong(observe, contract)
        if wrong is not None:
            return rejection(observe, *wrong, retryable=wrong[0] is RefusalCode.STALE_OBS)
        sizes = {name: (image.shape[1], image.shape[0]) for name, image in observe.observation.images.items()}
        try:
            return self._steering.take(observe.steering, observe.edit, sizes)
        except SteeringRefused as refused:
            return rejection(observe, refused.refusal.code, refused.refusal.reason, retryable=False)

    def _submit(self, prepared: PreparedObservation, guidance: Guidance) -> PendingRequest:
        observe = prepared.observe
        is_next = self._last is not None and self._last.chunk_id == observe.previous_chunk_id
        request = DecisionRequest(
            observation=replace(observe.observation, steering=guidance.steering),
            depth=guidance.depth,
            trace=guidance.trace,
            committed_DA=observe.committed_DA,
            previous=self._last.decision if is_next and self._last is not None else None,
            consumed=observe.consumed if is_next else 0,
            on_part=self._part_sender(observe) if self._accepts_parts else None,
        )
        return self._queue.submit(request, prepared.arrived_at + observe.deadline_ms / 1e3, observe.level, guidance)

    def _part_sender(self, observe: Observe) -> Callable[[str, DepthTokens | Trace], None]:
        loop = asyncio.get_running_loop()
        sent: set[str] = set()

        def send(name: str, value: DepthTokens | Trace) -> None:  # called by the inference thread
            if name not in sent and observe.seq == self._seq:
                sent.add(name)
                loop.call_soon_threadsafe(self._send_part, part_of(observe, name, value))

        return send

    def _send_part(self, part: Part) -> None:
        if part.seq == self._seq and isinstance(self._pending, PendingRequest):  # neither given up nor replaced
            self.tell(part)

    def _reply_when_done(
        self, prepared: PreparedObservation, pending: PendingRequest, guidance: Guidance
    ) -> asyncio.Future[Chunk | Reject]:
        """The reply, made on this loop as soon as the request has its result or its deadline has come. No task waits for it."""

        def make() -> Chunk | Reject:
            if self._pending is pending:  # answered: its images are not kept until the next request
                self._pending = None
            return self._reply_for(prepared, pending, guidance)

        reply = PendingReply(make)
        reply.settle_within(max(pending.deadline - self._clock(), 0.0))
        pending.future.add_done_callback(reply.settle_soon)
        return reply.reply

    def _reply_for(self, prepared: PreparedObservation, pending: PendingRequest, guidance: Guidance) -> Chunk | Reject:
        observe = prepared.observe
        if not pending.is_over:
            pending.refuse(RefusalCode.DEADLINE, f"no answer within {observe.deadline_ms:.0f} ms", now=self._clock())
        result = pending.future.result()
        refusal = result.decision.refusal
        if refusal is not None:
            reply = rejection(observe, refusal.code, refusal.reason, retryable=refusal.retryable)
            self._mirrored(observe, reply)
            return replace(reply, retry_after_ms=result.retry_after_ms)
        late_ms = 1e3 * (self._clock() - pending.deadline)
        if late_ms > 0:  # the engine was in time, this loop was not: a chunk that the cell has given up is not sent as a valid one
            return rejection(observe, RefusalCode.DEADLINE, f"the answer was ready {late_ms:.0f} ms after the deadline")
        if observe.seq == self._seq:
            self._last = LastAnswer(chunk_id_of(observe), result.decision, self._clock())
        extra_ms = {"decode": prepared.decode_ms, "service": 1e3 * (self._clock() - prepared.arrived_at)}
        chunk = chunk_of(observe, result, self._model, guidance, prepared.flags, extra_ms)
        self._mirrored(observe, chunk)
        if prepared.conversions:
            chunk = replace(chunk, actions_KA=convert_actions(prepared.conversions, chunk.actions_KA))
        return chunk

    def _mirrored(self, observe: Observe, reply: Chunk | Reject) -> None:
        if self.mirror is not None:
            self.mirror(self.cell, observe, reply)
