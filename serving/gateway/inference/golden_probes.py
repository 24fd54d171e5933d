"""Golden probes: recorded observations with the chunks that the model answered when it was packed.

They are replayed at every start. A service whose model answers differently (another library, a damaged file, wrong
statistics) does not become ready. A pair is two wire messages: `probes/00.observe` and `probes/00.chunk`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_core.bundle import PACK_AGAIN
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError
from model_core.spec.execution.probing import TOLERANCE, observation_digest, outside
from model_core.spec.protocol.wire import Chunk, Observe, decode_message
from model_core.spec.types import Observation, Policy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedProbe:
    """One observation and its recorded chunk."""

    name: str
    observation: Observation
    expected: Chunk


def load_golden_probes(folder: Path) -> list[RecordedProbe]:
    """Every probe in `folder`, in order. Raises WireError for a damaged file, CheckpointError for a missing half."""
    probes = []
    for path in sorted(folder.glob("*.observe")):
        answer = path.with_suffix(".chunk")
        if not answer.exists():
            raise CheckpointError(f"golden probe {path.name} has no recorded answer {answer.name}; {PACK_AGAIN}")
        observe, chunk = decode_message(path.read_bytes()), decode_message(answer.read_bytes())
        if not isinstance(observe, Observe) or not isinstance(chunk, Chunk):
            raise CheckpointError(f"golden probe {path.stem} is not an OBSERVE and a CHUNK; {PACK_AGAIN}")
        probes.append(RecordedProbe(name=path.stem, observation=observe.observation, expected=chunk))
    return probes


def failed_golden_probes(policy: Policy, contract: PolicyContract, probes: list[RecordedProbe], tolerance: float = TOLERANCE) -> list[str]:
    """Replay every probe; returns a sentence for each that is answered differently. Empty means that the model is the packed one.

    Every golden probe of the contract must be there, hold the same observation, and be answered inside its box. Compared is the mean
    distance of the actions as a fraction of each dimension's range: the same machine gives 0, another processor may flip a
    near tie, and a wrong model is far outside `tolerance`.
    """
    span_A = contract.embodiment.action.high - contract.embodiment.action.low
    complaints = _not_the_contracts(contract, probes)
    golden = {probe.name: probe for probe in contract.golden_probes}
    for probe in probes:
        decision = policy.decide(probe.observation)
        if decision.chunk is None:
            complaints.append(f"probe {probe.name}: refused with {decision.refusal}")
        elif probe.expected.contract_id != contract.policy_id:
            complaints.append(f"probe {probe.name}: recorded under contract {probe.expected.contract_id}, this is {contract.policy_id}")
        elif decision.chunk.actions_KA.shape != probe.expected.actions_KA.shape:
            complaints.append(f"probe {probe.name}: chunk {decision.chunk.actions_KA.shape}, recorded {probe.expected.actions_KA.shape}")
        else:
            distance = float(np.mean(np.abs(decision.chunk.actions_KA - probe.expected.actions_KA) / span_A))
            if not distance <= tolerance:
                complaints.append(f"probe {probe.name}: actions differ by {distance:.3f} of their range, at most {tolerance} is allowed")
            elif probe.name in golden and (share := outside(golden[probe.name], decision.chunk.actions_KA)) > tolerance:
                complaints.append(f"probe {probe.name}: {share:.0%} of the actions lie outside the contract's box, at most {tolerance:.0%}")
    return complaints


def _not_the_contracts(contract: PolicyContract, probes: list[RecordedProbe]) -> list[str]:
    asked = {probe.name: observation_digest(probe.observation) for probe in probes}
    complaints = [f"probe {g.name}: the contract names it, the bundle lacks it" for g in contract.golden_probes if g.name not in asked]
    wrong = [g.name for g in contract.golden_probes if asked.get(g.name, g.observation_digest) != g.observation_digest]
    return complaints + [f"probe {name}: it does not ask what the contract's probe asks" for name in wrong]
