"""Whether a cell's embodiment fits the contract of the served policy: READY, or REJECT with every field that differs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from model_core.spec.contract import PROTOCOL_VERSION
from model_core.spec.conversion import compare
from model_core.spec.protocol.wire import Hello, Ready, Reject
from model_core.spec.types import RefusalCode
from serving.gateway.sessions.observation_adapter import ObservationAdapter


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A HELLO that is answered with READY. adapter: how the cell's observations are read."""

    ready: Ready
    adapter: ObservationAdapter


def greet(hello: Hello, ready: Ready) -> Accepted | Reject:
    """Answer a HELLO with `ready`, or with every field that does not fit."""
    contract = ready.contract
    if hello.protocol != PROTOCOL_VERSION:
        text = f"the service speaks protocol {PROTOCOL_VERSION}, the cell {hello.protocol}; install matching versions"
        return Reject(code=RefusalCode.CONTRACT, reason=text, epoch=hello.epoch)
    found = compare(contract, hello.embodiment)
    differences = [m.explain() for m in found.refusals]
    if hello.expected_contract_id and hello.expected_contract_id != contract.contract_id:
        differences.append(f"contract_id: the service has {contract.contract_id!r}, this cell expects {hello.expected_contract_id!r}")
    if differences:
        text = f"cell {hello.cell!r} does not fit contract {contract.contract_id} in {len(differences)} field(s): {differences[0]}"
        details = tuple(d[:1000] for d in differences[:256])
        return Reject(code=RefusalCode.CONTRACT, reason=text[:4000], epoch=hello.epoch, details=details)
    adapter = ObservationAdapter(contract, found.conversions)
    return Accepted(ready=replace(ready, conversions=tuple(c.explain()[:1000] for c in found.conversions)), adapter=adapter)
