"""Faithful, hand-written stand-ins, shared by the tests. Fakes only for what cannot run here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, PolicyContract, ReasoningSpec, VectorSpec
from model_core.spec.episode import CameraGeometry, Episode, Provenance
from model_core.spec.stats import UnnormStats
from model_core.spec.types import DEPTH_CELLS, ActionChunk, ActionReasoning, Decision, DepthTokens, Observation, Trace


def make_embodiment(*, control_hz: float = 20.0, size: int = 16) -> EmbodimentSpec:
    """A small body of the same kind as the default one: one camera, hand position and gripper, delta actions."""
    return EmbodimentSpec(
        name="fake-arm",
        cameras=(CameraSpec(name="front", width=size, height=size),),
        proprio=VectorSpec(dims=tuple(DimSpec(name=n, unit="m", low=-2.0, high=2.0) for n in ("x", "y", "z", "opening"))),
        action=VectorSpec(dims=tuple(DimSpec(name=n, unit="1", low=-1.0, high=1.0) for n in ("dx", "dy", "dz", "gripper")), mode="delta"),
        control_hz=control_hz,
        gripper_dim="gripper",
        gripper_open=-1.0,
        hold=(0.0, 0.0, 0.0, None),
    )


def make_contract(embodiment: EmbodimentSpec | None = None, *, chunk_length: int = 8, execute_horizon: int = 4) -> PolicyContract:
    """A contract for `make_embodiment`."""
    body = embodiment or make_embodiment()
    dims = len(body.action)
    stats = UnnormStats(q01=(-1.0,) * dims, q99=(1.0,) * dims, mask=(True,) * (dims - 1) + (False,), count=10)
    return PolicyContract(
        embodiment=body,
        stats=stats,
        reasoning=ReasoningSpec(trace_camera=body.cameras[0].name),
        chunk_length=chunk_length,
        execute_horizon=execute_horizon,
        words=("push the button",),
    )


def make_observation(embodiment: EmbodimentSpec | None = None, *, value: int = 7, instruction: str = "push the button") -> Observation:
    """What a cell with this body could see: grey pictures of `value`."""
    body = embodiment or make_embodiment()
    return Observation(
        images={c.name: np.full((c.height, c.width, 3), value, np.uint8) for c in body.cameras},
        proprio_P=np.zeros(len(body.proprio), np.float32),
        instruction=instruction,
    )


def make_episode(*, steps: int = 6, size: int = 16, seed: int = 0, embodiment: str = "fake-arm") -> Episode:
    """A short episode with one camera, depth, geometry and gripper positions, from a seeded generator."""
    rng = np.random.default_rng(seed)
    return Episode(
        episode_id=f"episode-{seed}",
        embodiment=embodiment,
        task="button",
        instruction="push the button",
        success=True,
        provenance=Provenance(producer="expert:fake", cell="cell-a", seed=seed, versions={"fake": "1"}, render={"shadows": "off"}),
        images={"front": rng.integers(0, 256, (steps, size, size, 3), dtype=np.uint8)},
        depth_m={"front": rng.random((steps, size, size), dtype=np.float32)},
        geometry={"front": CameraGeometry(width=size, height=size, intrinsics_33=np.eye(3), world_to_camera_44=np.eye(4))},
        proprio_TP=rng.random((steps, 4), dtype=np.float32),
        actions_TA=rng.random((steps, 4), dtype=np.float32),
        executed_TA=rng.random((steps, 4), dtype=np.float32),
        timestamps_T=np.arange(steps) / 20.0,
        tcp_T3=rng.random((steps, 3), dtype=np.float32),
    )


@dataclass(slots=True, kw_only=True)
class EchoPolicy:
    """Answers every observation with a chunk whose first number tells the picture's first pixel (value / 255).

    seconds: how long each call takes. change: applied to every decision (to break it on purpose).
    """

    contract: PolicyContract = field(default_factory=make_contract)
    model_version: str = "echo/1"
    seconds: float = 0.0
    change: Callable[[Decision], Decision] = lambda decision: decision
    calls: list[int] = field(default_factory=list)
    gate: threading.Event | None = None

    def decide(self, observation: Observation) -> Decision:
        """Answer one observation."""
        return self.decide_many([observation])[0]

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        """Answer several observations in one call of `seconds`."""
        self.calls.append(len(observations))
        if self.gate is not None:
            self.gate.wait(20)
        time.sleep(self.seconds)
        return [self.change(self._answer(o)) for o in observations]

    def _answer(self, observation: Observation) -> Decision:
        pixel = int(next(iter(observation.images.values()))[0, 0, 0])
        actions_KA = np.zeros((self.contract.chunk_length, len(self.contract.embodiment.action)), np.float32)
        actions_KA[:, 0] = pixel / 255
        reasoning = ActionReasoning(
            depth=DepthTokens(codes_G=np.full(DEPTH_CELLS, pixel % 128, np.int64)),
            trace=Trace(points_N2=np.array([[pixel, 0], [0, pixel]], np.int64)),
            bins_KA=np.zeros(actions_KA.shape, np.int64),
        )
        return Decision(
            contract_id=self.contract.contract_id,
            model_version=self.model_version,
            reasoning=reasoning,
            chunk=ActionChunk(actions_KA=actions_KA, control_hz=self.contract.embodiment.control_hz),
            timing_ms={"decode": 1.0},
        )


def with_actions(decision: Decision, actions_KA: np.ndarray) -> Decision:
    """`decision` with other actions."""
    assert decision.chunk is not None
    return replace(decision, chunk=replace(decision.chunk, actions_KA=actions_KA))
