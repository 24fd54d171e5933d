"""The gateway's own parts on a clock of the test's own: a real model host with the stub policy, no sockets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from model_core.access import ANYBODY, Caller, Tokens
from model_core.spec.protocol.wire import Hello, Observe, Ready
from serving.gateway.inference.model_host import ModelHost
from serving.gateway.inference.served_model import LoadedModel
from serving.gateway.inference.stub_policy import StubPolicy
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.operations.service_state import ServiceState
from serving.gateway.sessions.access_policy import AccessPolicy, GatewayParts
from serving.gateway.sessions.handshake import Accepted
from serving.gateway.sessions.session import Session
from serving.gateway.sessions.session_registry import SessionRegistry
from serving.gateway.sessions.session_state import SessionPeer
from tests.fakes import make_observation
from tests.loopback import wait_until


@dataclass(slots=True)
class Clock:
    """Seconds that pass when the test says so."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Rooms:
    """Parts of one gateway that is ready."""

    limits: GatewayLimits = field(default_factory=lambda: GatewayLimits(warm_up_s=0.0))
    tokens: Tokens | None = None
    clock: Clock = field(default_factory=Clock)
    policy: StubPolicy = field(default_factory=StubPolicy)
    state: ServiceState = field(init=False)
    host: ModelHost = field(init=False)
    registry: SessionRegistry = field(init=False)
    access: AccessPolicy = field(init=False)

    def __post_init__(self) -> None:
        model = LoadedModel(policy=self.policy, contract=self.policy.contract, model_version="stub/1")
        self.state = ServiceState(self.limits.max_restarts)
        self.host = ModelHost(lambda: model, self.limits, self.state, self.clock)
        self.registry = SessionRegistry(self.limits.reserve_share)
        self.access = AccessPolicy(
            GatewayParts(limits=self.limits, state=self.state, registry=self.registry, host=self.host, tokens=self.tokens, clock=self.clock)
        )
        self.host.start()
        wait_until(lambda: self.host.answers)

    def hello(self, cell: str = "a", **changes: object) -> Hello:
        """A HELLO of a cell whose embodiment is the policy's."""
        return Hello(cell=cell, epoch=1, embodiment=self.policy.contract.embodiment, **changes)  # type: ignore[arg-type]

    def opened(self, cell: str = "a", caller: Caller = ANYBODY) -> Session:
        """A session in the registry. Call it on a running event loop."""
        asyncio.get_running_loop()
        answer = self.access.greet(self.hello(cell), caller, self.limits.lease_s)
        assert isinstance(answer, Accepted), answer
        assert self.host.model is not None
        session = Session(
            answer.ready, SessionPeer(cell=cell, caller=caller), self.host.model, self.host, lease_s=self.limits.lease_s, clock=self.clock
        )
        self.registry.add(session, answer.adapter, 0.0)
        return session


def observe(ready: Ready, seq: int = 1, *, episode: str = "e") -> Observe:
    """A request in the session of `ready`."""
    seen = make_observation(ready.contract.embodiment)
    return Observe(
        session_id=ready.session_id, epoch=ready.epoch, seq=seq, episode_id=episode, step=0, deadline_ms=1000.0, observation=seen
    )
