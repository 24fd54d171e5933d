"""What each reasoning level costs on recorded decisions: time, forwards, and how much of it was served as requested.

Levels answer in turn, each drafting from its own last decision of the session. "reuse-depth" counts as served where the model still
agreed with the last depth string; where it did not, the decision was decoded in full.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from components.config.records import Progress
from components.evaluation.observation_recording import Recording
from model_core.checkpoint import Checkpoint
from model_core.engine.decode import DecodingEngine
from model_core.engine.resources import EngineOptions
from model_core.policy import PolicyOptions, ReasoningPolicy
from model_core.port.of_checkpoint import port_of
from model_core.spec.types import LEVELS, Decision, DecisionRequest


def measure_levels(checkpoint: Checkpoint, recording: Recording, dtype: torch.dtype, progress: Progress) -> dict[str, dict[str, Any]]:
    """{level: {"p50_ms", "p95_ms", "forwards", "served"}} of the levels that the checkpoint's contract has."""
    port = port_of(checkpoint)
    engine = DecodingEngine(checkpoint.model, port.language, EngineOptions(dtype=dtype, constrained=port.constrained))
    engine.warm_up()
    policies = {
        level: ReasoningPolicy(checkpoint.model, port, checkpoint.contract, PolicyOptions(remember=0), engine=_alike(checkpoint, engine))
        for level in LEVELS
        if level in checkpoint.contract.reasoning.levels
    }
    made: dict[str, list[tuple[float, Decision]]] = {level: [] for level in policies}
    last: dict[tuple[str, int], Decision] = {}
    for number, seen in enumerate(recording):
        for level, policy in policies.items():
            previous = last.get((level, seen.session))
            request = DecisionRequest(observation=seen.observation, level=level, previous=previous, consumed=seen.consumed)
            began = time.perf_counter()
            decision = policy.answer([request])[0]
            made[level].append(((time.perf_counter() - began) * 1e3, decision))
            last[level, seen.session] = decision
        progress.update(number + 1, len(recording), "every level in turn")
    return {level: _row(level, found) for level, found in made.items()}


def _alike(checkpoint: Checkpoint, engine: DecodingEngine) -> DecodingEngine:
    """An engine of its own, which has seen no other level's answers."""
    options = EngineOptions(dtype=engine.dtype, constrained=engine.options.constrained, numerics=engine.numerics, costs=engine.costs)
    return DecodingEngine(checkpoint.model, engine.language, options)


def _row(level: str, found: list[tuple[float, Decision]]) -> dict[str, Any]:
    answered = [(ms, decision) for ms, decision in found if decision.refusal is None]
    times = [ms for ms, _ in answered] or [0.0]
    return {
        "p50_ms": float(np.median(times)),
        "p95_ms": float(np.quantile(times, 0.95)),
        "forwards": float(np.mean([decision.counts["forwards"] for _, decision in answered])) if answered else 0.0,
        "served": sum(decision.level == level for _, decision in answered) / len(found),
    }
