"""A policy in closed loop with simulators, side by side: the execution is the workcell's own (`ChunkPlayer`, `Guarded`).

The cells of a batch ask together, so one forward pass answers all of them. A cell whose simulator fails ends with ENV_ERROR and
is no trial; the others continue. What is refused is not executed: the cell holds and asks again at the next tick.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.config.recipe import EvalConfig
from components.config.records import RolloutRow
from components.evaluation.drawn_line import DrawnLine, Steering, draw_line, steered
from components.simulation.benchmarks.progress import MeasuresProgress
from components.simulation.interface import Simulator
from model_core.spec.execution.chunking import ChunkPlayer, targets_KA
from model_core.spec.execution.holding import hold_action
from model_core.spec.execution.requests import as_request_policy
from model_core.spec.types import Decision, DecisionRequest, Observation, Policy, RefusalCode, StopReason

logger = logging.getLogger(__name__)

_GUARDED = (RefusalCode.UNSAFE, RefusalCode.NONFINITE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RolloutFrame:
    """One decision for the rollout strip: camera image and prediction. step: control step. Trace and depth codes may be empty."""

    step: int
    image_HW3: NDArray[np.uint8]
    trace_N2: NDArray[np.int64]
    codes_G: NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write as npz."""
        np.savez_compressed(path, step=self.step, image_HW3=self.image_HW3, trace_N2=self.trace_N2, codes_G=self.codes_G)

    @classmethod
    def load(cls, path: Path) -> RolloutFrame:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in ("image_HW3", "trace_N2", "codes_G")}
            return cls(step=int(content["step"]), **arrays)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """How one episode went. decide_ms: time of each of its decisions (its share of the batch's)."""

    row: RolloutRow
    frames: tuple[RolloutFrame, ...] = ()
    decide_ms: tuple[float, ...] = ()


@dataclass(slots=True, eq=False)
class _Cell:
    """One episode while it runs."""

    sim: Simulator
    task: str
    seed: int
    player: ChunkPlayer
    keeps_frames: bool
    max_refusals: int
    steering: Steering = "none"
    line: DrawnLine | None = None
    passed: float = 0.0  # share of the line
    last_action_A: NDArray[np.float32] | None = None
    proprio_P: NDArray[np.float32] | None = None
    steps: int = 0
    decisions: int = 0
    refusals: int = 0
    refusals_in_a_row: int = 0
    success: bool = False
    holds: int = 0
    stop: StopReason | None = None
    detail: str = ""
    frames: list[RolloutFrame] = field(default_factory=list)
    decide_ms: list[float] = field(default_factory=list)
    previous: Decision | None = None
    consumed: int = 0

    def request(self, observation: Observation) -> DecisionRequest:
        """The question, with the last decision as a source of drafts: faster, and the same answer."""
        return DecisionRequest(observation=observation, previous=self.previous, consumed=self.consumed)

    def begin(self) -> None:
        if self.steering != "none":
            self._guarded(self._draw)
        if self.stop is None:
            self._guarded(lambda: self.sim.reset(self.task, self.seed, render=False))

    def _draw(self) -> None:
        self.line = draw_line(self.sim, self.task, self.seed)

    def look(self) -> Observation | None:
        """A fresh observation, or None when the simulator failed (the cell has then stopped)."""
        seen: list[Observation] = []
        self._guarded(lambda: seen.append(self._observation()))
        if seen:
            self.proprio_P = seen[0].proprio_P
        return seen[0] if seen else None

    def _observation(self) -> Observation:
        observation = self.sim.observe()
        if self.line is None:
            return observation
        trace, self.passed = steered(self.sim, self.line, self.steering, self.passed)
        return replace(observation, steering=trace)

    def take(self, observation: Observation, decision: Decision, milliseconds: float) -> None:
        """Install a chunk, or count the refusal."""
        self.decisions += 1
        self.decide_ms.append(milliseconds)
        if self.keeps_frames:
            self.frames.append(_rollout_frame(self.steps, observation, decision))
        if decision.chunk is not None:
            self.refusals_in_a_row = 0
            rows_KA = targets_KA(decision.chunk.actions_KA, self.sim.embodiment, observation.proprio_P)
            self.player.install(replace(decision.chunk, actions_KA=rows_KA))
            return
        self.refusals += 1
        self.refusals_in_a_row += 1
        self.player.clear()
        if decision.refusal is not None and self.refusals_in_a_row >= self.max_refusals:
            self.detail = f"{decision.refusal.code}: {decision.refusal.reason}"
            self.stop = StopReason.GUARD_STOPPED if decision.refusal.code in _GUARDED else StopReason.REFUSED

    def tick(self) -> None:
        """Execute one control step: the chunk's next action, else hold."""
        self._guarded(self._step)

    def _step(self) -> None:
        action_A = self.player.next_action()
        self.consumed += action_A is not None
        if action_A is None:
            self.holds += 1
            action_A = hold_action(self.sim.embodiment, self.last_action_A, self.proprio_P)
        self.last_action_A = action_A
        outcome = self.sim.step(action_A)
        self.steps += 1
        self.success = outcome.success
        if outcome.done:
            self.stop = StopReason.SUCCESS if outcome.success else StopReason.MAX_STEPS

    def _guarded(self, work: Callable[[], object]) -> None:
        # Here it is decided that a simulator's failure voids this trial and no other, whatever it raised.
        try:
            work()
        except Exception as error:
            self.stop, self.detail = StopReason.ENV_ERROR, f"{type(error).__name__}: {error}"
            logger.warning("episode.voided task=%s seed=%d reason=%s", self.task, self.seed, self.detail)

    def _progress(self) -> float:
        """Of a void trial none: what was reached before the simulator failed is no evidence."""
        if self.stop is StopReason.ENV_ERROR:
            return 0.0
        return self.sim.progress if isinstance(self.sim, MeasuresProgress) else float(self.stop is StopReason.SUCCESS)

    def rollout(self) -> Rollout:
        stop = self.stop or StopReason.MAX_STEPS
        row = RolloutRow(
            task=self.task,
            seed=self.seed,
            success=stop is StopReason.SUCCESS,
            stop_reason=stop.value,
            steps=self.steps,
            decisions=self.decisions,
            refusals=self.refusals,
            detail=self.detail,
            progress=self._progress(),
            holds=self.holds,
        )
        return Rollout(row=row, frames=tuple(self.frames), decide_ms=tuple(self.decide_ms))


def roll_out(
    policy: Policy,
    simulators: Sequence[Simulator],
    task: str,
    seeds: Sequence[int],
    cfg: EvalConfig,
    *,
    strip_seeds: frozenset[int] = frozenset(),
) -> list[Rollout]:
    """Run `policy` (already guarded) once on every seed of `task`, a simulator each, in lockstep. strip_seeds: whose frames are kept."""
    cells = [
        _Cell(
            sim=sim,
            task=task,
            seed=seed,
            player=ChunkPlayer(cfg.execute_horizon),
            keeps_frames=seed in strip_seeds,
            max_refusals=cfg.max_refusals_in_a_row,
            steering=cfg.steering,
        )
        for sim, seed in zip(simulators, seeds, strict=False)
    ]
    for cell in cells:
        cell.begin()
    while live := [cell for cell in cells if cell.stop is None]:
        _ask(policy, [cell for cell in live if cell.player.wants_chunk])
        for cell in live:
            if cell.stop is None:
                cell.tick()
    return [cell.rollout() for cell in cells]


def _ask(policy: Policy, cells: list[_Cell]) -> None:
    seen = [(cell, observation) for cell in cells if (observation := cell.look()) is not None]
    if not seen:
        return
    began = time.perf_counter()
    decisions = as_request_policy(policy).answer([cell.request(observation) for cell, observation in seen])
    each_ms = (time.perf_counter() - began) * 1e3 / len(seen)
    for (cell, observation), decision in zip(seen, decisions, strict=True):
        cell.take(observation, decision, each_ms)


def _rollout_frame(step: int, observation: Observation, decision: Decision) -> RolloutFrame:
    reasoning = decision.reasoning
    return RolloutFrame(
        step=step,
        image_HW3=next(iter(observation.images.values())),
        trace_N2=reasoning.trace.points_N2 if reasoning and reasoning.trace else np.zeros((0, 2), np.int64),
        codes_G=reasoning.depth.codes_G if reasoning and reasoning.depth else np.zeros(0, np.int64),
    )
