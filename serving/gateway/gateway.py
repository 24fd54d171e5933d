"""What stands between the sockets and the model: loading, readiness, open sessions, counting.

`start` loads in a thread of its own, so that liveness is answered from the first moment; the state becomes READY only
after every golden probe was answered as it was when the model was packed.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import NotReady
from model_core.spec.guard import Guarded
from model_core.spec.types import Policy, RefusalCode
from model_core.spec.wire import Chunk, Hello, Observe, Ready, Reject
from serving.gateway.engine_thread import EngineThread
from serving.gateway.metrics import Metrics
from serving.gateway.probes import Probe, failed_probes
from serving.gateway.session import Identity, Session, greet

logger = logging.getLogger(__name__)


class State(enum.StrEnum):
    """Where the gateway is in its life."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """A policy with its promises and its golden probes."""

    policy: Policy
    contract: PolicyContract
    model_version: str
    probes: list[Probe] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one gateway. hung_s: a batch that runs longer makes the service unready."""

    max_sessions: int = 64
    max_batch: int = 8
    max_queue: int = 64
    hello_timeout_s: float = 5.0
    hung_s: float = 30.0
    max_bad_messages: int = 16


class Gateway:
    """One model, many sessions. `load` is called once, off the event loop. instance: what `status` repeats."""

    def __init__(self, load: Callable[[], LoadedModel], limits: Limits | None = None, *, instance: str = "") -> None:
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.state, self.reason = State.LOADING, "the model is being loaded"
        self.sessions: dict[str, Session] = {}
        self._load, self._instance = load, instance
        self._engine: EngineThread | None = None
        self._identity: Identity | None = None
        self._loader = threading.Thread(target=self._open, name="loader", daemon=True)

    def start(self) -> None:
        """Begin to load; returns at once."""
        self._loader.start()

    def stop(self) -> None:
        """Refuse what waits, end the engine."""
        self.state, self.reason = State.STOPPED, "the service is stopping"
        self.metrics.ready.set(0)
        if self._engine is not None:
            self._engine.stop()

    @property
    def is_ready(self) -> bool:
        """The probes passed and the engine does not hang."""
        return self.state is State.READY and self._engine is not None and self._engine.busy_s < self.limits.hung_s

    def status(self) -> dict[str, object]:
        """For people and probes: state, reason, model."""
        who = self._identity
        hangs = self.state is State.READY and not self.is_ready
        return {
            "state": "hung" if hangs else str(self.state),
            "reason": f"one batch has been running for more than {self.limits.hung_s:g} s" if hangs else self.reason,
            "model_version": "" if who is None else who.model_version,
            "contract_id": "" if who is None else who.contract_id,
            "sessions": len(self.sessions),
            "instance": self._instance,
        }

    @property
    def identity(self) -> Identity:
        """Who answers; raises NotReady before the model is loaded."""
        if self._identity is None:
            raise NotReady(f"no contract yet: {self.reason}")
        return self._identity

    def open_session(self, hello: Hello) -> tuple[Session | None, Ready | Reject]:
        """Answer a HELLO; a `Session` comes with READY only. A cell's new session replaces its old one."""
        answer = self._greet(hello)
        if isinstance(answer, Reject):
            self.metrics.rejects.labels(answer.code.value).inc()
            logger.warning("session.refused cell=%s code=%s reason=%s", hello.cell, answer.code, answer.reason)
            return None, answer
        for other in [s for s in self.sessions.values() if s.cell == hello.cell]:
            self.close_session(other)
        assert self._engine is not None  # ready implies an engine
        session = Session(answer, hello.cell, self.identity, self._engine)
        self.sessions[answer.session_id] = session
        self.metrics.sessions.set(len(self.sessions))
        logger.info("session.opened cell=%s epoch=%d session=%s", hello.cell, answer.epoch, answer.session_id)
        return session, answer

    def close_session(self, session: Session) -> None:
        """Free everything that is held for it; safe to call twice."""
        session.drop()
        self.sessions.pop(session.ready.session_id, None)
        self.metrics.sessions.set(len(self.sessions))

    async def answer(self, session: Session, observe: Observe) -> Chunk | Reject:
        """Answer one OBSERVE and count it."""
        if session.ready.session_id not in self.sessions:
            reply: Chunk | Reject = session.reject(
                observe, RefusalCode.STALE_EPOCH, "this cell has opened a newer session", retryable=False
            )
        elif not self.is_ready:
            reply = session.reject(observe, RefusalCode.NOT_READY, str(self.status()["reason"]))
        else:
            reply = await session.answer(observe)
        self._count(reply)
        return reply

    async def answer_once(self, observe: Observe) -> Chunk | Reject:
        """Answer an OBSERVE outside any session: nothing is kept, nothing is idempotent. For tools."""
        if not self.is_ready or self._engine is None:
            reply: Chunk | Reject = Reject(code=RefusalCode.NOT_READY, reason=str(self.status()["reason"]), seq=observe.seq, retryable=True)
        else:
            ready = Ready(
                session_id=observe.session_id,
                epoch=observe.epoch,
                model_version=self.identity.model_version,
                contract=self.identity.contract,
            )
            reply = await Session(ready, "", self.identity, self._engine).answer(replace(observe, seq=max(observe.seq, 1)))
        self._count(reply)
        return reply

    def _greet(self, hello: Hello) -> Ready | Reject:
        if not self.is_ready:
            return Reject(code=RefusalCode.NOT_READY, reason=str(self.status()["reason"]), epoch=hello.epoch, retryable=True)
        is_return = any(s.cell == hello.cell for s in self.sessions.values())
        if len(self.sessions) >= self.limits.max_sessions and not is_return:
            text = f"{self.limits.max_sessions} sessions are open, which is all this service takes"
            return Reject(code=RefusalCode.OVERLOAD, reason=text, epoch=hello.epoch, retryable=True)
        return greet(hello, self.identity.contract, self.identity.model_version)

    def _count(self, reply: Chunk | Reject) -> None:
        if self._engine is not None:
            self.metrics.queue.set(self._engine.depth)
        if isinstance(reply, Reject):
            self.metrics.rejects.labels(reply.code.value).inc()
            return
        self.metrics.chunks.labels(reply.model_version).inc()
        self.metrics.batch.observe(reply.batch)
        for stage, ms in reply.timing_ms.items():
            self.metrics.stage.labels(stage).observe(ms / 1e3)

    def _open(self) -> None:
        began = time.monotonic()
        try:
            model = self._load()
            guarded = Guarded(policy=model.policy, contract=model.contract)
            complaints = failed_probes(guarded, model.contract, model.probes)
        except Exception as error:
            # Loading fails for many reasons (files, libraries, memory); all of them mean: never ready, say why.
            logger.exception("model.failed")
            self.state, self.reason = State.FAILED, f"the model could not be loaded: {type(error).__name__}"
            return
        if complaints:
            logger.error("probes.failed %s", "; ".join(complaints))
            self.state, self.reason = State.FAILED, f"{len(complaints)} of {len(model.probes)} golden probes failed: {complaints[0]}"
            return
        who = Identity(contract=model.contract, contract_id=model.contract.contract_id, model_version=model.model_version)
        limits = self.limits
        self._identity = who
        self._engine = EngineThread(
            guarded, contract_id=who.contract_id, model_version=who.model_version, max_batch=limits.max_batch, max_queue=limits.max_queue
        )
        self._engine.start()
        if self.state is State.LOADING:
            self.state, self.reason = State.READY, ""
            self.metrics.ready.set(1)
        logger.info(
            "model.ready version=%s contract=%s probes=%d seconds=%.1f",
            who.model_version,
            who.contract_id,
            len(model.probes),
            time.monotonic() - began,
        )
