"""The fault server's answers on one connection, by script, without sockets or a clock.

Used by the server on real sockets and by tests on a virtual clock, so that both inject the same faults.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from numpy.typing import NDArray

from model_core.spec.contract import PolicyContract
from model_core.spec.protocol.wire import Chunk, Control, Hello, Message, Observe, Ready, Reject, encode_message
from model_core.spec.types import RefusalCode
from serving.fault_injection.catalog import BYTES, MEANING
from serving.fault_injection.contents import chunk_for, contract_for, falsify, stationary_actions
from serving.fault_injection.damage import damage
from serving.fault_injection.script import PlannedFaults, Rule, Script

ActionSource = Callable[[Observe, PolicyContract], NDArray]
Frame = bytes | str
MOST_KEPT = 64


class Responder:
    """One connection. contract: None fits it to the body of HELLO. answer: (observe, contract) -> actions (K, A)."""

    def __init__(
        self,
        script: Script,
        connection: int,
        *,
        contract: PolicyContract | None = None,
        answer: ActionSource | None = None,
        model_version: str = "faults/1",
    ) -> None:
        self.is_half_open = False
        self._script, self._connection = script, connection
        self._contract, self._model_version = contract, model_version
        self._answer = answer or (lambda observe, agreed: stationary_actions(agreed, observe))
        self._ready: Ready | None = None
        self._kept: deque[bytes] = deque(maxlen=MOST_KEPT)
        self._held: list[Frame] = []

    @property
    def rule(self) -> Rule | None:
        """What is wrong with this connection from its beginning."""
        return self._script.for_connection(self._connection)

    def greet(self, hello: Hello) -> Ready | Reject:
        """The answer to HELLO."""
        name = "" if self.rule is None else self.rule.fault
        if name == "refuse":
            return Reject(code=RefusalCode.CONTRACT, reason="refused by the script", epoch=hello.epoch, details=("everything: by script",))
        if name == "not-ready":
            return Reject(code=RefusalCode.NOT_READY, reason="not ready, by the script", epoch=hello.epoch, retryable=True)
        contract = self._contract or contract_for(hello.embodiment)
        if name == "other-contract":
            body = contract.embodiment
            contract = replace(contract, embodiment=replace(body, control_hz=body.control_hz / 3))
        epoch = hello.epoch + 1 if name == "wrong-ready-epoch" else hello.epoch
        self._ready = Ready(session_id=f"{self._connection:08x}", epoch=epoch, model_version=self._model_version, contract=contract)
        return self._ready

    def control(self, control: Control) -> Control | None:
        """PING is answered by PONG, LEASE by LEASE; the rest needs no answer."""
        kinds = {"PING": "PONG", "LEASE": "LEASE"}
        return None if self.is_half_open or control.kind not in kinds else replace(control, kind=kinds[control.kind])

    def answers(self, observe: Observe, number: int, planned: PlannedFaults) -> list[Frame]:
        """The frames that go out for the `number`-th request, in order; none where the script drops the answer."""
        names = planned.names
        self.is_half_open = self.is_half_open or "half-open" in names
        if self.is_half_open or "drop" in names or self._ready is None:
            return []
        by_name = {rule.fault: rule for rule in planned.rules}
        chunk = chunk_for(observe, self._ready.contract, self._model_version, self._answer(observe, self._ready.contract))
        frame = self._frame(chunk, observe, number, planned)
        if "reorder" in by_name:
            self._held.append(frame)
            return []
        out: list[Frame] = [self._kept[0]] if "replay" in by_name and self._kept else []
        out += [frame] * (1 + (by_name["duplicate"].count if "duplicate" in by_name else 0))
        self._kept.append(encode_message(chunk))
        out += self._held
        self._held = []
        return out

    def _frame(self, chunk: Chunk, observe: Observe, number: int, planned: PlannedFaults) -> Frame:
        assert self._ready is not None
        contract = self._ready.contract
        message: Message = chunk
        for rule in planned.rules:
            if rule.fault == "reject":
                message = _reject(observe, rule)
            elif rule.fault in MEANING and isinstance(message, Chunk):
                message = falsify(rule.fault, message, contract, self._script.rng(number, rule.fault))
        frame: Frame = encode_message(message)
        for rule in planned.rules:
            if rule.fault in BYTES and isinstance(frame, bytes):
                frame = damage(rule.fault, frame, self._script.rng(number, rule.fault), count=rule.count)
        return frame


def _reject(observe: Observe, rule: Rule) -> Reject:
    code = RefusalCode(rule.text) if rule.text in RefusalCode.__members__ else RefusalCode.INTERNAL
    return Reject(session_id=observe.session_id, epoch=observe.epoch, seq=observe.seq, code=code, reason="by the script", retryable=True)
