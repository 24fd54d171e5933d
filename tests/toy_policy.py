"""A policy without weights for the real simulator: what it does follows from the picture, and every run of it is the same."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np

from components.simulation.metaworld import embodiment
from model_core.spec.contract import PolicyContract, ReasoningSpec
from model_core.spec.stats import UnnormStats
from model_core.spec.types import ActionChunk, ActionReasoning, Decision, DepthTokens, Observation, Policy, Trace

CONTRACT = PolicyContract(
    embodiment=embodiment(),
    stats=UnnormStats(q01=(-1.0,) * 4, q99=(1.0,) * 4, mask=(True, True, True, False)),
    reasoning=ReasoningSpec(trace_camera="front"),
    chunk_length=8,
    execute_horizon=8,
)


class ToyPolicy:
    """Random actions drawn from the picture's bytes; a blind one draws them from nothing."""

    def __init__(self, *, blind: bool) -> None:
        self.blind = blind

    def decide(self, observation: Observation) -> Decision:
        seen = b"" if self.blind else observation.images["front"].tobytes()
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(seen).digest()[:8], "little"))
        actions = rng.uniform(-1, 1, size=(8, 4)).astype(np.float32)
        actions[:, 1] = 1.0  # forward: some drawers get closed
        reasoning = ActionReasoning(
            depth=DepthTokens(codes_G=rng.integers(0, 128, 100)),
            trace=Trace(points_N2=rng.integers(0, 256, (5, 2))),
            bins_KA=np.zeros((8, 4), np.int64),
        )
        return Decision(contract_id=CONTRACT.contract_id, reasoning=reasoning, chunk=ActionChunk(actions_KA=actions, control_hz=20.0))

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        return [self.decide(one) for one in observations]


def open_toy(checkpoint: Path, reasoning: str) -> tuple[Policy, PolicyContract]:
    """checkpoint/toy.json: {"blind": bool, "dies": bool (where it is opened in a worker process)}."""
    plan = json.loads((checkpoint / "toy.json").read_text())
    if plan.get("dies") and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return ToyPolicy(blind=plan.get("blind", False)), CONTRACT
