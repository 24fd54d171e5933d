"""Golden probes in the contract: a question by its digest, and the box in which its answer must lie."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import GoldenProbe, VectorSpec
from model_core.spec.types import Observation

TOLERANCE = 0.05


def observation_digest(observation: Observation) -> str:
    """SHA-256 (hex, 64) of what a policy is shown: names, shapes and pixels, state, instruction."""
    digest = hashlib.sha256()
    for name, image_HW3 in observation.images.items():
        digest.update(f"{name}\0{image_HW3.shape}\0".encode())
        digest.update(np.ascontiguousarray(image_HW3, np.uint8).tobytes())
    digest.update(np.ascontiguousarray(observation.proprio_P, "<f4").tobytes())
    digest.update(observation.instruction.encode())
    return digest.hexdigest()


def golden_probe(
    name: str, observation: Observation, actions_KA: NDArray[np.float32], action: VectorSpec, *, tolerance: float = TOLERANCE
) -> GoldenProbe:
    """The probe of a recorded answer: per dimension its lowest and highest value, wider by `tolerance` of the range."""
    margin_A = tolerance * (action.high - action.low).astype(np.float64)
    low_A, high_A = actions_KA.min(axis=0) - margin_A, actions_KA.max(axis=0) + margin_A
    return GoldenProbe(
        name=name,
        observation_digest=observation_digest(observation),
        action_low_A=tuple(round(float(x), 6) for x in low_A),
        action_high_A=tuple(round(float(x), 6) for x in high_A),
    )


def outside(probe: GoldenProbe, actions_KA: NDArray[np.float32]) -> float:
    """The share of the values of an answer (K, A) that lie outside the probe's box."""
    low_A, high_A = np.array(probe.action_low_A) - 1e-6, np.array(probe.action_high_A) + 1e-6
    return float(np.mean((actions_KA < low_A) | (actions_KA > high_A)))
