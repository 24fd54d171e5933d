"""A cell that speaks the protocol by hand, so that it can speak it wrongly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from websockets.exceptions import ConnectionClosed

from model_core.spec.contract import EmbodimentSpec, PolicyContract
from model_core.spec.protocol.wire import Chunk, Control, Message, Observe, Part, Ready, Reject
from model_core.spec.types import Observation, RefusalCode
from serving.gateway.inference.stub_policy import StubPolicy, expected_actions, stub_contract
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway, LoadedModel
from tests import peers
from tests.loopback import serve, wait_until

CONTRACT = stub_contract()


@contextlib.contextmanager
def stub_service(policy: StubPolicy | None = None, limits: GatewayLimits | None = None) -> Iterator[tuple[str, Gateway]]:
    """The real gateway over the stub, in this process, on a real socket: ("127.0.0.1:port", gateway)."""
    model = policy or StubPolicy(contract=CONTRACT)
    gateway = Gateway(
        lambda: LoadedModel(policy=model, contract=model.contract, model_version=model.model_version),
        limits or GatewayLimits(warm_up_s=0.0),
    )
    with serve(gateway) as address:
        wait_until(lambda: gateway.is_ready)
        yield address, gateway


def observation(value: int = 7, contract: PolicyContract = CONTRACT, instruction: str = "push the button") -> Observation:
    """What a body of this contract could see."""
    body = contract.embodiment
    return Observation(
        images={c.name: np.full((c.height, c.width, 3), value, np.uint8) for c in body.cameras},
        proprio_P=np.zeros(len(body.proprio), np.float32),
        instruction=instruction,
    )


class Peer(peers.Peer):
    """One connection of the stub's body, with the patience that a service under fault needs. `ready` after a successful `greet`."""

    def __init__(self, address: str, cell: str = "cell-a", epoch: int = 1, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(address, cell, epoch, headers=headers, body=CONTRACT.embodiment)

    def receive(self, timeout_s: float = 20.0) -> Message:
        return super().receive(timeout_s)

    def sees(self, value: int) -> Observation:
        return observation(value)

    def answer(self, timeout_s: float = 20.0) -> Chunk | Reject:
        """The next chunk or refusal."""
        while True:
            message = self.receive(timeout_s)
            if isinstance(message, Chunk | Reject):
                return message
            assert isinstance(message, Part | Control), message

    def observe(self, seq: int, *, value: int = 7, deadline_ms: float = 10_000.0, **changes: object) -> Observe:
        return super().observe(seq, value=value, deadline_ms=deadline_ms, **changes)

    def ask(self, seq: int, **changes: object) -> Chunk | Reject:
        """Send a question and wait for its answer."""
        self.observe(seq, **changes)  # type: ignore[arg-type]
        return self.answer()

    def is_hung_up(self, timeout_s: float = 5.0) -> bool:
        try:
            while True:
                self.socket.recv(timeout=timeout_s)
        except ConnectionClosed:
            return True
        except TimeoutError:
            return False


@contextlib.contextmanager
def greeted(address: str, cell: str = "cell-a", **changes: object) -> Iterator[Peer]:
    """A peer after READY."""
    with Peer(address, cell) as peer:
        answer = peer.greet(**changes)
        assert isinstance(answer, Ready), answer
        yield peer


def refused(message: Message, code: RefusalCode) -> Reject:
    assert isinstance(message, Reject), message
    assert message.code is code, message
    return message


def is_own_answer(message: Message, value: int, seq: int) -> bool:
    """Is it the chunk that the stub gives to `observation(value)`, for request `seq`?"""
    return (
        isinstance(message, Chunk)
        and message.seq == seq
        and np.array_equal(message.actions_KA, expected_actions(observation(value), CONTRACT))
    )


def other_body(**changes: object) -> EmbodimentSpec:
    """The stub's body with one thing changed."""
    return replace(CONTRACT.embodiment, **changes)
