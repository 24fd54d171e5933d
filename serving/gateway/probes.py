"""Golden probes: recorded questions with the answers that the packed model gave when it was packed.

They are replayed at every start. A service whose model answers differently (another library, a damaged file, wrong
statistics) does not become ready. A pair is two wire messages: `probes/00.observe` and `probes/00.chunk`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError
from model_core.spec.types import Observation, Policy
from model_core.spec.wire import Chunk, Observe, decode_message

TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probe:
    """One question and its recorded answer."""

    name: str
    observation: Observation
    expected: Chunk


def load_probes(folder: Path) -> list[Probe]:
    """Every probe in `folder`, in order. Raises WireError for a damaged file, CheckpointError for a missing half."""
    probes = []
    for path in sorted(folder.glob("*.observe")):
        answer = path.with_suffix(".chunk")
        if not answer.exists():
            raise CheckpointError(f"golden probe {path.name} has no recorded answer {answer.name}; package the model again")
        observe, chunk = decode_message(path.read_bytes()), decode_message(answer.read_bytes())
        if not isinstance(observe, Observe) or not isinstance(chunk, Chunk):
            raise CheckpointError(f"golden probe {path.stem} is not an OBSERVE and a CHUNK; package the model again")
        probes.append(Probe(name=path.stem, observation=observe.observation, expected=chunk))
    return probes


def failed_probes(policy: Policy, contract: PolicyContract, probes: list[Probe], tolerance: float = TOLERANCE) -> list[str]:
    """Ask every probe; a sentence for each that is answered differently. Empty means that the model is the packed one.

    Compared is the mean distance of the actions as a fraction of each dimension's range: the same machine gives 0,
    another processor may flip a near tie, and a wrong model is far outside `tolerance`.
    """
    span_A = contract.embodiment.action.high - contract.embodiment.action.low
    complaints = []
    for probe in probes:
        decision = policy.decide(probe.observation)
        if decision.chunk is None:
            complaints.append(f"probe {probe.name}: refused with {decision.refusal}")
        elif probe.expected.contract_id != contract.contract_id:
            complaints.append(f"probe {probe.name}: recorded under contract {probe.expected.contract_id}, this is {contract.contract_id}")
        elif decision.chunk.actions_KA.shape != probe.expected.actions_KA.shape:
            complaints.append(f"probe {probe.name}: chunk {decision.chunk.actions_KA.shape}, recorded {probe.expected.actions_KA.shape}")
        else:
            distance = float(np.mean(np.abs(decision.chunk.actions_KA - probe.expected.actions_KA) / span_A))
            if not distance <= tolerance:
                complaints.append(f"probe {probe.name}: actions differ by {distance:.3f} of their range, at most {tolerance} is allowed")
    return complaints
