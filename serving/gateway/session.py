"""The rules of one conversation with one workcell. No sockets here: messages in, messages out.

    HELLO  -> READY | REJECT(CONTRACT, every field that differs)
    OBSERVE(epoch, seq, deadline) -> CHUNK | REJECT, echoing epoch and seq

One request is outstanding at a time: a newer one replaces it. The last request sent again gives the last answer again,
with one inference. What is older, or of another session, is refused.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass

import numpy as np

from model_core.spec.contract import PROTOCOL_VERSION, PolicyContract, mismatches
from model_core.spec.types import Observation, RefusalCode
from model_core.spec.wire import Chunk, End, Hello, Observe, Ready, Reject
from serving.gateway.engine_thread import Answer, EngineThread, Ticket


def greet(hello: Hello, contract: PolicyContract, model_version: str) -> Ready | Reject:
    """Answer a HELLO: may this body talk to this policy?"""
    if hello.protocol != PROTOCOL_VERSION:
        text = f"the service speaks protocol {PROTOCOL_VERSION}, the cell {hello.protocol}; install matching versions"
        return Reject(code=RefusalCode.CONTRACT, reason=text, epoch=hello.epoch)
    differences = [m.explain() for m in mismatches(contract.embodiment, hello.embodiment)]
    if hello.expected_contract_id and hello.expected_contract_id != contract.contract_id:
        differences.append(f"contract_id: the service has {contract.contract_id!r}, this cell expects {hello.expected_contract_id!r}")
    if differences:
        text = f"cell {hello.cell!r} does not fit contract {contract.contract_id} in {len(differences)} field(s): {differences[0]}"
        return Reject(code=RefusalCode.CONTRACT, reason=text[:4000], epoch=hello.epoch, details=tuple(d[:1000] for d in differences[:256]))
    return Ready(session_id=uuid.uuid4().hex, epoch=hello.epoch, model_version=model_version, contract=contract)


def complaint(observation: Observation, contract: PolicyContract) -> tuple[RefusalCode, str] | None:
    """What is wrong with an observation, by the contract; None when it may be answered."""
    cameras = contract.embodiment.cameras
    if list(observation.images) != [c.name for c in cameras]:
        return RefusalCode.CONTRACT, f"cameras must be {[c.name for c in cameras]} in this order, got {list(observation.images)}"
    for camera in cameras:
        expected, got = (camera.height, camera.width, 3), observation.images[camera.name].shape
        if got != expected:
            return RefusalCode.CONTRACT, f"camera {camera.name!r}: expected {expected} uint8, got {got}; send the raw frame"
    if observation.proprio_P.shape != (len(contract.embodiment.proprio),):
        return RefusalCode.CONTRACT, f"proprio must have {len(contract.embodiment.proprio)} values, got {observation.proprio_P.shape}"
    if not np.isfinite(observation.proprio_P).all():
        return RefusalCode.NONFINITE, "proprio holds NaN or inf"
    if len(observation.instruction) > contract.max_instruction_chars:
        return RefusalCode.CONTRACT, f"the instruction has more than {contract.max_instruction_chars} characters"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who answers."""

    contract: PolicyContract
    contract_id: str
    model_version: str


class Session:
    """One cell's conversation after READY. Lives on the event loop; holds one answer and one request at most."""

    def __init__(self, ready: Ready, cell: str, identity: Identity, engine: EngineThread) -> None:
        self.ready, self.cell = ready, cell
        self._identity, self._engine = identity, engine
        self._seq = 0
        self._answer: asyncio.Task[Chunk | Reject] | None = None
        self._ticket: Ticket | Reject | None = None

    async def answer(self, observe: Observe) -> Chunk | Reject:
        """Answer one OBSERVE. The same seq again waits for (or repeats) the same answer."""
        refused = self._stale(observe)
        if refused is not None:
            return refused
        if observe.seq != self._seq or self._answer is None:
            self.drop()
            self._seq = observe.seq
            # Queued here and not in the task: the next message must already find it, to replace it.
            self._ticket = self._submit(observe)
            self._answer = asyncio.get_running_loop().create_task(self._decide(observe, self._ticket))
        return await asyncio.shield(self._answer)

    def end_episode(self, end: End) -> bool:
        """An episode is over; what was asked for it is dropped. False if the message is of another session."""
        if (end.session_id, end.epoch) != (self.ready.session_id, self.ready.epoch):
            return False
        self.drop()
        return True

    def drop(self) -> None:
        """Forget the outstanding request: replaced, ended or disconnected."""
        if isinstance(self._ticket, Ticket):
            self._ticket.cancel()
        self._ticket = None

    def reject(self, observe: Observe, code: RefusalCode, reason: str, *, retryable: bool = True) -> Reject:
        """A REJECT that echoes `observe`."""
        return _reject(observe, code, reason, retryable=retryable)

    def _stale(self, observe: Observe) -> Reject | None:
        if (observe.session_id, observe.epoch) != (self.ready.session_id, self.ready.epoch):
            text = f"the request is of another session (epoch {observe.epoch}, this is epoch {self.ready.epoch}); shake hands again"
            return _reject(observe, RefusalCode.STALE_EPOCH, text, retryable=False)
        if observe.seq < max(self._seq, 1):
            return _reject(observe, RefusalCode.STALE_OBS, f"request {observe.seq} is older than {self._seq}, which was asked already")
        return None

    def _submit(self, observe: Observe) -> Ticket | Reject:
        wrong = complaint(observe.observation, self._identity.contract) or self._too_old(observe)
        if wrong is not None:
            return _reject(observe, *wrong, retryable=wrong[0] is RefusalCode.STALE_OBS)
        return self._engine.submit(observe.observation, time.monotonic() + observe.deadline_ms / 1e3)

    async def _decide(self, observe: Observe, ticket: Ticket | Reject) -> Chunk | Reject:
        if isinstance(ticket, Reject):
            return ticket
        try:
            future = asyncio.wrap_future(ticket.future)
            answer = await asyncio.wait_for(future, timeout=observe.deadline_ms / 1e3)
        except TimeoutError:
            ticket.cancel()
            return _reject(observe, RefusalCode.DEADLINE, f"no answer within {observe.deadline_ms:.0f} ms")
        except asyncio.CancelledError:
            if not ticket.future.cancelled():
                raise
            return _reject(observe, RefusalCode.STALE_OBS, "replaced by a newer request or ended")
        return _reply(observe, answer, self._identity, 1e3 * (time.monotonic() - ticket.asked_at))

    def _too_old(self, observe: Observe) -> tuple[RefusalCode, str] | None:
        for camera in self._identity.contract.embodiment.cameras:
            age = observe.age_ms.get(camera.name, 0.0)
            if age > camera.max_age_ms:
                return (
                    RefusalCode.STALE_OBS,
                    f"camera {camera.name!r}: the picture is {age:.0f} ms old, at most {camera.max_age_ms:.0f} ms are allowed",
                )
        return None


def _reject(observe: Observe, code: RefusalCode, reason: str, *, retryable: bool = True) -> Reject:
    return Reject(session_id=observe.session_id, epoch=observe.epoch, seq=observe.seq, code=code, reason=reason[:4000], retryable=retryable)


def _reply(observe: Observe, answer: Answer, identity: Identity, total_ms: float) -> Chunk | Reject:
    decision = answer.decision
    if decision.refusal is not None:
        refusal = decision.refusal
        return _reject(observe, refusal.code, refusal.reason, retryable=refusal.retryable)
    assert decision.chunk is not None  # a Decision is exactly one of the two
    chunk, reasoning = decision.chunk, decision.reasoning
    timing = {f"model.{name}": float(ms) for name, ms in decision.timing_ms.items()}
    return Chunk(
        session_id=observe.session_id,
        epoch=observe.epoch,
        seq=observe.seq,
        chunk_id=f"{observe.session_id[:8]}-{observe.epoch}-{observe.seq}",
        contract_id=identity.contract_id,
        model_version=identity.model_version,
        actions_KA=np.ascontiguousarray(chunk.actions_KA, np.float32),
        control_hz=chunk.control_hz,
        expires_ms=1e3 * len(chunk.actions_KA) / chunk.control_hz,
        depth_codes_G=None if reasoning is None or reasoning.depth is None else np.asarray(reasoning.depth.codes_G, np.int64),
        trace_N2=None if reasoning is None or reasoning.trace is None else np.asarray(reasoning.trace.points_N2, np.int64),
        timing_ms={**timing, "queue": answer.queue_ms, "model": answer.model_ms, "service": total_ms},
        batch=answer.batch,
    )
