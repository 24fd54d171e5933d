"""An untrained policy of LIBERO in the view of published ones: a real network, served and run in closed loop, that notes what it does.

The body is what vla-eval sends: two cameras of 256 x 256, eight state numbers, seven delta actions at 20 Hz.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from model_core.policy import load_policy
from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec
from model_core.spec.types import Decision, Observation, Policy
from tests.tiny_checkpoint import write_tiny_checkpoint

SIZE = 256


def body() -> EmbodimentSpec:
    """What a published LIBERO policy sees and does."""
    cameras = tuple(
        CameraSpec(name=name, width=SIZE, height=SIZE, role=role) for name, role in (("agentview", "front"), ("wrist", "wrist"))
    )
    state = tuple(DimSpec(name=f"state_{place}", unit="1", low=-10.0, high=10.0) for place in range(8))
    moves = tuple(DimSpec(name=f"delta_{place}", unit="1", low=-1.0, high=1.0) for place in range(6))
    return EmbodimentSpec(
        name="published-libero",
        cameras=cameras,
        proprio=VectorSpec(dims=state),
        action=VectorSpec(dims=(*moves, DimSpec(name="gripper", unit="effort", low=-1.0, high=1.0)), mode="delta"),
        control_hz=20.0,
        gripper_dim="gripper",
        gripper_open=-1.0,
        hold=(0.0,) * 6 + (None,),
        gripper_range=(1.0, -1.0),
    )


def write_policy(folder: Path, instructions: Sequence[str], execute_horizon: int) -> None:
    """Its checkpoint."""
    words = tuple(text.lower() for text in instructions)
    write_tiny_checkpoint(folder, embodiment=body(), instructions=words, execute_horizon=execute_horizon)


class Noted:
    """A policy that adds a line to a file for every decision: what was asked in which words, what was seen and what is done, by digest."""

    def __init__(self, checkpoint: Path, log: Path) -> None:
        self.inner: Policy = load_policy(checkpoint, reasoning="action")
        self._log = log

    def decide(self, observation: Observation) -> Decision:
        """Answer one observation."""
        return self.decide_many([observation])[0]

    def decide_many(self, observations: Sequence[Observation]) -> list[Decision]:
        """Answer several."""
        decisions = self.inner.decide_many(list(observations))
        with self._log.open("a", encoding="utf-8") as file:
            for observation, decision in zip(observations, decisions, strict=True):
                file.write(json.dumps(noted(observation, decision)) + "\n")
        return decisions


def noted(observation: Observation, decision: Decision) -> dict[str, object]:
    """One decision. images, state, actions: SHA-256, cut to 16 digits."""
    images = b"".join(observation.images[name].tobytes() for name in sorted(observation.images))
    actions = decision.chunk.actions_KA if decision.chunk is not None else None
    return {
        "instruction": observation.instruction,
        "images": _digest(images),
        "state": _digest(observation.proprio_P.astype("float32").tobytes()),
        "actions": "" if actions is None else _digest(actions.astype("float32").tobytes()),
        "first": [] if actions is None else [round(float(value), 4) for value in actions[0]],
        "refusal": "" if decision.refusal is None else decision.refusal.reason,
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
