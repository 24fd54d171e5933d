"""The rules of one conversation with one workcell. No sockets here: messages in, messages out.

    HELLO  -> READY | REJECT(CONTRACT, every field that differs)
    OBSERVE(epoch, seq, deadline) -> PART* CHUNK | REJECT, echoing epoch and seq

One request is outstanding at a time: a newer one replaces it. The last request sent again gives the last answer again,
with one inference. What is older, or of another session, is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from model_core.spec.conversion import Conversion, convert_actions
from model_core.spec.protocol.wire import Chunk, Control, End, Message, Observe, Part, Ready, Reject
from model_core.spec.types import Decision, DecisionRequest, DepthTokens, RefusalCode, Trace
from serving.gateway.inference.model_host import Identity
from serving.gateway.inference.pending_request import Guidance, Ticket
from serving.gateway.operations.tokens import ANYBODY, Caller
from serving.gateway.sessions.observation_checks import level_wrong, rows_wrong
from serving.gateway.sessions.replies import chunk_of, rejection
from serving.gateway.sessions.steering import Guide, Refused


class Desk(Protocol):
    """Where a session hands its requests in; the gateway."""

    def submit(self, request: DecisionRequest, deadline: float, asked: str, guidance: Guidance) -> Ticket:
        """Queue one request, at the level that was asked or a cheaper one where that is allowed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """An OBSERVE after everything that needs no session state was done with it, off the event loop.

    observe: its pictures decoded, as the policy wants them. arrived_at: when its bytes were there. wrong: why it cannot be
    answered. flags: what was noticed in the pictures. conversions: applied to it, and to be applied to its answer.
    """

    observe: Observe
    arrived_at: float
    wrong: tuple[RefusalCode, str] | None = None
    flags: tuple[str, ...] = ()
    decode_ms: float = 0.0
    conversions: tuple[Conversion, ...] = ()


@dataclass(slots=True)
class Kept:
    """What a session remembers of its last answer: for drafts, for re-sends and for noticing a frozen camera."""

    chunk_id: str
    decision: Decision
    at: float


@dataclass(slots=True)
class Lease:
    """How long a cell may count on its session. It is renewed by traffic while its caller may still come in."""

    seconds: float
    until: float

    def renew(self, now: float) -> None:
        """From now on, `seconds` more."""
        self.until = now + self.seconds

    def left_s(self, now: float) -> float:
        """Seconds left; 0 when it is over."""
        return max(self.until - now, 0.0)


class Session:
    """One cell's conversation after READY. Lives on the event loop; holds one answer and one request at most.

    send: hands a message of the service's own (PART, CONTROL) to the cell, from the event loop; None where nobody listens.
    """

    def __init__(
        self,
        ready: Ready,
        cell: str,
        identity: Identity,
        desk: Desk,
        *,
        caller: Caller = ANYBODY,
        lease_s: float = 30.0,
        accepts_parts: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ready, self.cell, self.caller = ready, cell, caller
        self.episode_id: str | None = None
        self.lease = Lease(lease_s, clock() + lease_s)
        self.send: Callable[[Message], None] | None = None
        self.replaced: list[float] = []
        self.asked_at = float("-inf")
        self.ended = asyncio.Event()
        self._identity, self._desk, self._clock = identity, desk, clock
        self._accepts_parts = accepts_parts
        self._guide = Guide(identity.contract, clock)
        self._seq = 0
        self._answer: asyncio.Future[Chunk | Reject] | None = None
        self._ticket: Ticket | Reject | None = None
        self._kept: Kept | None = None

    @property
    def is_waiting(self) -> bool:
        """A request is outstanding."""
        return isinstance(self._ticket, Ticket) and not self._ticket.is_over

    @property
    def held_bytes(self) -> int:
        """About how much is held for this cell: the outstanding observation and the last answer."""
        held = 2048
        if isinstance(self._ticket, Ticket) and not self._ticket.is_over:
            seen = self._ticket.request.observation
            held += sum(image.nbytes for image in seen.images.values()) + seen.proprio_P.nbytes
        if self._kept is not None:
            held += _bytes_of(self._kept.decision)
        return held

    def ask(self, prepared: Prepared) -> asyncio.Future[Chunk | Reject] | Reject:
        """Queue one OBSERVE now; the reply comes with the future, or is a refusal at once.

        The same seq again gets the same future, which therefore is never to be cancelled by one who waits for it.
        """
        observe = prepared.observe
        refused = self.stale(observe)
        if refused is not None:
            return refused
        if self.is_new(observe) or self._answer is None:
            if self.is_waiting:
                self.replaced.append(self._clock())
            self.drop("replaced by a newer request")
            self._seq, self.asked_at = observe.seq, self._clock()
            self.episode_id = observe.episode_id
            guidance = self._guidance(prepared)
            if isinstance(guidance, Reject):
                self._ticket, self._answer = guidance, asyncio.get_running_loop().create_future()
                self._answer.set_result(guidance)
            else:
                self._ticket = self._submit(prepared, guidance)
                self._answer = self._awaited(prepared, self._ticket, guidance)
        return self._answer

    def stale(self, observe: Observe) -> Reject | None:
        """Why this request is none of this session, or an old one; None when it may be answered."""
        if (observe.session_id, observe.epoch) != (self.ready.session_id, self.ready.epoch):
            text = f"the request is of another session (epoch {observe.epoch}, this is epoch {self.ready.epoch}); shake hands again"
            return rejection(observe, RefusalCode.STALE_EPOCH, text, retryable=False)
        if observe.seq < max(self._seq, 1):
            return rejection(observe, RefusalCode.STALE_OBS, f"request {observe.seq} is older than {self._seq}, which was asked already")
        return None

    def is_new(self, observe: Observe) -> bool:
        """Whether this is a new request and not the last one again."""
        return observe.seq != self._seq or self._answer is None

    def is_ours(self, message: Control | End) -> bool:
        """Whether a message belongs to this session and epoch."""
        return (message.session_id, message.epoch) == (self.ready.session_id, self.ready.epoch)

    def cancel(self, seq: int) -> bool:
        """The cell gives request `seq` up. False when that is not the outstanding one."""
        if seq != self._seq or not self.is_waiting:
            return False
        self.drop("the cell gave it up")
        return True

    def end_episode(self, end: End) -> bool:
        """An episode is over; what was asked for it is dropped. False if the message is of another session."""
        if not self.is_ours(end):
            return False
        self.reset()
        return True

    def reset(self) -> None:
        """Forget the episode so far: outstanding request, last answer, drafts, drawings."""
        self.drop("the episode has ended")
        self.episode_id = None
        self._kept = None
        self._guide.reset()

    def drop(self, reason: str = "the request was given up", code: RefusalCode = RefusalCode.CANCELLED) -> None:
        """Forget the outstanding request: replaced, cancelled, ended, disconnected or stopped."""
        if isinstance(self._ticket, Ticket):
            self._ticket.refuse(code, reason, now=self._clock())
        self._ticket = None

    def forget(self, now: float, ttl_s: float, max_bytes: int) -> None:
        """Let go of a last answer that is old or large, and of its re-send."""
        if self._kept is not None and (now - self._kept.at > ttl_s or _bytes_of(self._kept.decision) > max_bytes):
            self._kept, self._answer = None, None

    def tell(self, message: Message) -> None:
        """Say something to the cell, where somebody listens."""
        if self.send is not None:
            self.send(message)

    def control(self, kind: str, *, seq: int = 0, value: float = 0.0, text: str = "") -> Control:
        """A CONTROL of this session."""
        return Control(kind=kind, session_id=self.ready.session_id, epoch=self.ready.epoch, seq=seq, value=value, text=text[:1000])

    def _guidance(self, prepared: Prepared) -> Guidance | Reject:
        observe = prepared.observe
        wrong = prepared.wrong or level_wrong(observe, self._identity.contract) or rows_wrong(observe, self._identity.contract)
        if wrong is not None:
            return rejection(observe, *wrong, retryable=wrong[0] is RefusalCode.STALE_OBS)
        sizes = {name: (image.shape[1], image.shape[0]) for name, image in observe.observation.images.items()}
        try:
            return self._guide.take(observe.steering, observe.edit, sizes)
        except Refused as refused:
            return rejection(observe, refused.refusal.code, refused.refusal.reason, retryable=False)

    def _submit(self, prepared: Prepared, guidance: Guidance) -> Ticket:
        observe = prepared.observe
        is_next = self._kept is not None and self._kept.chunk_id == observe.previous_chunk_id
        request = DecisionRequest(
            observation=replace(observe.observation, steering=guidance.steering),
            depth=guidance.depth,
            trace=guidance.trace,
            committed_DA=observe.committed_DA,
            previous=self._kept.decision if is_next and self._kept is not None else None,
            consumed=observe.consumed if is_next else 0,
            on_part=self._part_sender(observe) if self._accepts_parts else None,
        )
        return self._desk.submit(request, prepared.arrived_at + observe.deadline_ms / 1e3, observe.level, guidance)

    def _part_sender(self, observe: Observe) -> Callable[[str, DepthTokens | Trace], None]:
        loop = asyncio.get_running_loop()
        told: set[str] = set()

        def tell(name: str, value: DepthTokens | Trace) -> None:  # called by the engine's thread
            if name not in told and observe.seq == self._seq:
                told.add(name)
                loop.call_soon_threadsafe(self._tell_part, _part(observe, name, value))

        return tell

    def _tell_part(self, part: Part) -> None:
        if part.seq == self._seq and self.is_waiting_or_just_done:
            self.tell(part)

    @property
    def is_waiting_or_just_done(self) -> bool:
        """The newest request was neither given up nor replaced."""
        return isinstance(self._ticket, Ticket)

    def _awaited(self, prepared: Prepared, ticket: Ticket, guidance: Guidance) -> asyncio.Future[Chunk | Reject]:
        """The reply, made on this loop as soon as the ticket has its answer or its deadline has come. No task waits for it."""

        def make() -> Chunk | Reject:
            if self._ticket is ticket:  # answered: its pictures need not wait for the next request
                self._ticket = None
            return self._reply(prepared, ticket, guidance)

        awaited = _Awaited(make)
        awaited.until(max(ticket.deadline - self._clock(), 0.0))
        ticket.future.add_done_callback(awaited.settle_soon)
        return awaited.reply

    def _reply(self, prepared: Prepared, ticket: Ticket, guidance: Guidance) -> Chunk | Reject:
        observe = prepared.observe
        if not ticket.is_over:
            ticket.refuse(RefusalCode.DEADLINE, f"no answer within {observe.deadline_ms:.0f} ms", now=self._clock())
        answer = ticket.future.result()
        if answer.decision.refusal is not None:
            refusal = answer.decision.refusal
            reply = rejection(observe, refusal.code, refusal.reason, retryable=refusal.retryable)
            return replace(reply, retry_after_ms=answer.retry_after_ms)
        late_ms = 1e3 * (self._clock() - ticket.deadline)
        if late_ms > 0:  # the engine was in time, this loop was not: what the cell has given up is not sent as if it counted
            return rejection(observe, RefusalCode.DEADLINE, f"the answer was ready {late_ms:.0f} ms after the deadline")
        if observe.seq == self._seq:
            self._kept = Kept(_chunk_id(observe), answer.decision, self._clock())
        extra_ms = {"decode": prepared.decode_ms, "service": 1e3 * (self._clock() - prepared.arrived_at)}
        flags = (*guidance.flags, *prepared.flags)
        chunk = chunk_of(observe, _chunk_id(observe), answer, self._identity, flags, guidance.applied_revision, extra_ms)
        if prepared.conversions:
            chunk = replace(chunk, actions_KA=convert_actions(prepared.conversions, chunk.actions_KA))
        return chunk


class _Awaited:
    """A reply that is made once: when `settle` is called first. Then it forgets how, for what it would keep alive are pictures."""

    __slots__ = ("_loop", "_make", "_timer", "reply")

    def __init__(self, make: Callable[[], Chunk | Reject]) -> None:
        self._loop = asyncio.get_running_loop()
        self._make: Callable[[], Chunk | Reject] | None = make
        self._timer: asyncio.TimerHandle | None = None
        self.reply: asyncio.Future[Chunk | Reject] = self._loop.create_future()

    def until(self, seconds: float) -> None:
        """Settle after so long at the latest."""
        self._timer = self._loop.call_later(seconds, self.settle)

    def settle_soon(self, _: object) -> None:
        """Settle on the loop. Thread-safe."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody who asked
            self._loop.call_soon_threadsafe(self.settle)

    def settle(self) -> None:
        """Make the reply, unless that has been done. What goes wrong is told to whoever asked."""
        make, self._make = self._make, None
        if make is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self.reply.done():  # given up by the only one who asked
            return
        try:
            self.reply.set_result(make())
        except Exception as error:
            self.reply.set_exception(error)


def _chunk_id(observe: Observe) -> str:
    return f"{observe.session_id[:8]}-{observe.epoch}-{observe.seq}"


def _part(observe: Observe, name: str, value: DepthTokens | Trace) -> Part:
    return Part(
        session_id=observe.session_id,
        epoch=observe.epoch,
        seq=observe.seq,
        field=name,
        depth_codes_G=np.asarray(value.codes_G, np.int64) if isinstance(value, DepthTokens) else None,
        trace_N2=np.asarray(value.points_N2, np.int64) if isinstance(value, Trace) else None,
    )


def _bytes_of(decision: Decision) -> int:
    said, chunk = decision.reasoning, decision.chunk
    held = 512 if chunk is None else 512 + chunk.actions_KA.nbytes
    if said is not None:
        held += said.bins_KA.nbytes + len(said.text) + (0 if said.depth is None else said.depth.codes_G.nbytes) + 80
    return held
