"""A policy without weights whose every number can be recomputed: for tests, conformance runs and load.

`StubPolicy(contract, service_s=0.05)` takes `service_s` per block whatever the batch, understands every level, edit,
prefix actions and steering, and its chunk follows from the observation: `expected_actions(observation, contract)`. So an
answer that reaches the wrong session, or belongs to an older observation, is detected by comparing two arrays.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, PolicyContract, ReasoningSpec, VectorSpec
from model_core.spec.stats import UnnormStats
from model_core.spec.types import (
    DEPTH_CELLS,
    LEVELS,
    ActionChunk,
    ActionReasoning,
    Decision,
    DecisionRequest,
    DepthTokens,
    Observation,
    Refusal,
    RefusalCode,
    Trace,
)

MODEL_VERSION = "stub/1"
# The cost of each level as a share of a full answer, about as a real model's lengths.
LEVEL_SHARE: Mapping[str, float] = {"full": 1.0, "reuse-depth": 0.6, "trace+action": 0.5, "action": 0.25}


def stub_contract(
    *, cameras: int = 1, size: int = 16, control_hz: float = 20.0, chunk_length: int = 8, execute_horizon: int = 4
) -> PolicyContract:
    """A small arm: `cameras` square images of `size`, four state and four action dimensions in [-1, 1], delta actions."""
    names = ("front", "wrist", "left", "right")[:cameras]
    body = EmbodimentSpec(
        name="stub-arm",
        cameras=tuple(CameraSpec(name=name, width=size, height=size) for name in names),
        proprio=VectorSpec(dims=tuple(DimSpec(name=n, unit="m", low=-2.0, high=2.0) for n in ("x", "y", "z", "opening"))),
        action=VectorSpec(dims=tuple(DimSpec(name=n, unit="1", low=-1.0, high=1.0) for n in ("dx", "dy", "dz", "gripper")), mode="delta"),
        control_hz=control_hz,
        gripper_dim="gripper",
        gripper_open=-1.0,
        hold=(0.0, 0.0, 0.0, None),
    )
    stats = UnnormStats(q01=(-1.0,) * 4, q99=(1.0,) * 4, mask=tuple(dim.name != body.gripper_dim for dim in body.action.dims), count=10)
    return PolicyContract(
        embodiment=body,
        stats=stats,
        reasoning=ReasoningSpec(trace_camera=names[0]),
        chunk_length=chunk_length,
        execute_horizon=execute_horizon,
    )


def fingerprint(observation: Observation) -> bytes:
    """32 bytes that follow from images, state and instruction, and from nothing else."""
    digest = hashlib.sha256()
    for name, image_HW3 in observation.images.items():
        digest.update(name.encode() + zlib.crc32(np.ascontiguousarray(image_HW3).data).to_bytes(4, "big"))  # not sha256: it is timed
    digest.update(np.ascontiguousarray(observation.proprio_P, np.float32).tobytes())
    digest.update(observation.instruction.encode())
    return digest.digest()


def expected_actions(observation: Observation, contract: PolicyContract) -> NDArray[np.float32]:
    """The chunk (K, A) that the stub answers to `observation`, inside the inner half of the contract's limits."""
    spec = contract.embodiment.action
    rng = np.random.default_rng(int.from_bytes(fingerprint(observation)[:8], "little"))
    unit_KA = rng.uniform(0.25, 0.75, (contract.chunk_length, len(spec)))
    return (spec.low + unit_KA * (spec.high - spec.low)).astype(np.float32)


@dataclass(slots=True, kw_only=True)
class StubPolicy:
    """A `RequestPolicy` that takes `service_s` of time for a full answer and no processor.

    blocks: in how many steps a full answer is decoded (other requests may join and leave in between). per_row_s: more time per row and
    block. calls: batch size of every block that ran. gate: when set, every block waits for it (20 s at most). fault: called
    before every block with the rows; what it raises is what the model raises. change: applied to every decision.
    """

    contract: PolicyContract = field(default_factory=stub_contract)
    model_version: str = MODEL_VERSION
    service_s: float = 0.0
    per_row_s: float = 0.0
    blocks: int = 1
    calls: list[int] = field(default_factory=list)
    gate: threading.Event | None = None
    fault: Callable[[Sequence[DecisionRequest]], None] | None = None
    change: Callable[[Decision], Decision] = lambda decision: decision
    sleep: Callable[[float], None] = time.sleep

    def decide(self, observation: Observation) -> Decision:
        """PendingResult one observation."""
        return self.decide_many([observation])[0]

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        """PendingResult several observations at once."""
        return self.answer([DecisionRequest(observation=observation) for observation in observations])

    def answer(self, requests: Sequence[DecisionRequest]) -> list[Decision]:
        """PendingResult several requests at once."""
        together = self.open_round(max(len(requests), 1))
        order = {together.join(request): place for place, request in enumerate(requests)}
        found: dict[int, Decision] = {}
        while together.active:
            found.update({order[key]: decision for key, decision in together.step()})
        return [found[place] for place in range(len(requests))]

    def open_round(self, capacity: int) -> StubRound:
        """Rows that join and leave between blocks."""
        return StubRound(self, capacity)

    def run_block(self, requests: Sequence[DecisionRequest]) -> None:
        """One block's worth of time for these rows."""
        self.calls.append(len(requests))
        if self.fault is not None:
            self.fault(requests)
        if self.gate is not None:
            self.gate.wait(20)
        seconds = self.service_s / self.blocks + self.per_row_s * len(requests)
        if seconds > 0:
            self.sleep(seconds)

    def decision(self, request: DecisionRequest) -> Decision:
        """The decision of a finished row."""
        refusal = _refusal(request)
        if refusal is not None:
            return Decision(contract_id=self.contract.contract_id, model_version=self.model_version, refusal=refusal)
        level = request.level or LEVELS[0]
        actions_KA = expected_actions(request.observation, self.contract)
        if request.committed_DA is not None:
            actions_KA[: len(request.committed_DA)] = request.committed_DA
        reasoning = ActionReasoning(
            depth=predicted_depth(request, level), trace=predicted_trace(request, level), bins_KA=np.zeros((0, 0), np.int64)
        )
        return self.change(
            Decision(
                contract_id=self.contract.contract_id,
                model_version=self.model_version,
                reasoning=reasoning,
                chunk=ActionChunk(actions_KA=actions_KA, control_hz=self.contract.embodiment.control_hz),
                timing_ms={"decode": 1e3 * self.service_s},
                level=level,
                counts={"forwards": self.blocks},
            )
        )


class StubRound:
    """`DecisionRound` over a stub. Not thread-safe."""

    def __init__(self, policy: StubPolicy, capacity: int) -> None:
        self._policy, self._capacity = policy, capacity
        self._rows: dict[int, tuple[DecisionRequest, int]] = {}
        self._keys = itertools.count(1)

    @property
    def active(self) -> int:
        """Requests in it."""
        return len(self._rows)

    def join(self, request: DecisionRequest) -> int:
        """Take a request in."""
        key = next(self._keys)
        share = LEVEL_SHARE.get(request.level, 1.0)
        self._rows[key] = (request, max(1, round(self._policy.blocks * share)))
        return key

    def step(self) -> list[tuple[int, Decision]]:
        """Run one block for the oldest `capacity` rows."""
        taken = list(self._rows)[: self._capacity]
        if not taken:
            return []
        self._policy.run_block([self._rows[key][0] for key in taken])
        finished = []
        for key in taken:
            request, left = self._rows[key]
            self._rows[key] = (request, left - 1)
            if left <= 1:
                del self._rows[key]
                finished.append((key, self._finish(request)))
        return finished

    def leave(self, key: int) -> None:
        """Take a request out."""
        self._rows.pop(key, None)

    def _finish(self, request: DecisionRequest) -> Decision:
        decision = self._policy.decision(request)
        reasoning = decision.reasoning
        if request.on_part is not None and decision.refusal is None and reasoning is not None:
            for name, value in (("depth", reasoning.depth), ("trace", reasoning.trace)):
                if value is not None:
                    request.on_part(name, value)
        return decision


def predicted_depth(request: DecisionRequest, level: str) -> DepthTokens | None:
    """The depth tokens of an answer: an edited one as it came, otherwise random numbers seeded by the observation."""
    if level not in {"full", "reuse-depth"}:
        return None
    if request.depth is not None:
        return request.depth
    seed = int.from_bytes(fingerprint(request.observation)[8:16], "little")
    return DepthTokens(codes_G=np.random.default_rng(seed).integers(0, 128, DEPTH_CELLS))


def predicted_trace(request: DecisionRequest, level: str) -> Trace | None:
    """The trace of an answer: edited or steered as it came, otherwise random numbers seeded by the observation."""
    if request.trace is not None or request.observation.steering is not None:
        return request.trace or request.observation.steering
    if level == "action":
        return None
    seed = int.from_bytes(fingerprint(request.observation)[16:24], "little")
    return Trace(points_N2=np.random.default_rng(seed).integers(0, 256, (5, 2)))


def _refusal(request: DecisionRequest) -> Refusal | None:
    if request.is_cancelled is not None and request.is_cancelled():
        return Refusal(code=RefusalCode.CANCELLED, reason="the request was cancelled")
    if request.level and request.level not in LEVELS:
        return Refusal(code=RefusalCode.CONTRACT, reason=f"no level {request.level!r}; there are {', '.join(LEVELS)}")
    return None
