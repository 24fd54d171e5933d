"""What a policy saw in closed loop: its observations in order, so that its decisions can be timed and certified without a simulator.

One npz file without pickles. A session is one episode; decision i of a session follows decision i-1, of whose chunk `consumed` rows
were executed in between: exactly what temporal drafts are made from. Observations are what the policy that ran had led itself to, so a
replay of the same checkpoint asks the same questions that its robots ask.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from components.adapters.worker_pool import worker_pool
from components.config.data_config import CollectConfig
from components.config.recipe import EvalConfig
from components.config.records import Progress
from components.evaluation.observation_recording import Recording
from components.evaluation.policy_loader import DEFAULT_POLICY, check_embodiment, open_policy
from components.evaluation.rollout import roll_out
from components.simulation.interface import Simulator, StepOutcome
from components.simulation.open import open_simulator
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.errors import require
from model_core.spec.types import Observation, Policy

logger = logging.getLogger(__name__)

FIRST_SEED = 960_000  # neither demonstrations nor evaluations use these seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drive:
    """What a worker process needs: plain values only."""

    checkpoint: Path
    collect: CollectConfig
    cfg: EvalConfig
    policy: str


@dataclass(slots=True, eq=False)
class _Tape:
    """What one episode saw."""

    seen: list[Observation] = field(default_factory=list)
    consumed: list[int] = field(default_factory=list)


def record(
    checkpoint: Path,
    decisions: int,
    progress: Progress,
    *,
    collect: CollectConfig,
    cfg: EvalConfig,
    first_seed: int = FIRST_SEED,
    policy: str = DEFAULT_POLICY,
    digest: str = "",
) -> Recording:
    """Let `checkpoint` act on fresh seeds of every task of `collect` until it has decided `decisions` times.

    Whole groups of episodes run side by side in `cfg.workers` processes, each with its own renderer; the result does not depend on
    how many. Raises `ContractError` when the simulator is not the embodiment that the checkpoint was made for.
    """
    require(decisions > 0, "decisions must be above 0", got=decisions)
    check_embodiment(open_simulator(collect), open_policy(policy, checkpoint, cfg.reasoning)[1])
    drive = _Drive(checkpoint=checkpoint.resolve(), collect=collect, cfg=cfg, policy=policy)
    tapes: list[tuple[str, int, _Tape]] = []
    with worker_pool(cfg.workers, lambda: "record: a rollout process was killed (out of memory?). Fix: run again") as pool:
        waves = _waves(collect.tasks, cfg, first_seed)
        while (done := sum(len(tape.seen) for _, _, tape in tapes)) < decisions:
            progress.update(done, decisions, "driving the policy")
            for (task, seeds), made in zip(wave := next(waves), pool.map(_drive, [drive] * len(wave), wave), strict=True):
                tapes += [(task, seed, tape) for seed, tape in zip(seeds, made, strict=True) if tape.seen]
    progress.update(decisions, decisions, "driving the policy")
    return _joined(tapes, {"checkpoint_digest": digest, "execute_horizon": cfg.execute_horizon, "simulator": collect.simulator}).first(
        decisions
    )


def _waves(tasks: Sequence[str], cfg: EvalConfig, first_seed: int) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    """One group of every task, again and again with the next seeds."""
    while True:
        yield [(task, tuple(range(first_seed, first_seed + cfg.batch))) for task in tasks]
        first_seed += cfg.batch


_OPENED: dict[str, Policy] = {}
_SIMULATORS: dict[str, list[Simulator]] = {}


def _drive(drive: _Drive, group: tuple[str, tuple[int, ...]]) -> list[_Tape]:
    """In a worker, which keeps its policy, simulators and renderer: one group of episodes; what each of them saw."""
    import torch

    torch.set_num_threads(1)  # the processes share the cores
    task, seeds = group
    key = f"{drive.policy} {drive.checkpoint} {drive.cfg.reasoning}"
    if key not in _OPENED:
        _OPENED[key] = open_policy(drive.policy, drive.checkpoint, drive.cfg.reasoning)[0]
    options = replace(drive.collect, horizon_sim_steps=drive.cfg.horizon_sim_steps, settle_steps=0)
    simulators = _SIMULATORS.setdefault(repr(options), [])
    simulators.extend(open_simulator(options) for _ in range(len(seeds) - len(simulators)))
    watched = [_Watched(simulator) for simulator in simulators[: len(seeds)]]
    roll_out(_OPENED[key], cast(list[Simulator], watched), task, seeds, drive.cfg)
    return [sim.tape for sim in watched]


class _Watched:
    """A simulator that writes down what is asked of it. A rollout looks exactly once a decision, and steps once an executed row."""

    def __init__(self, inner: Simulator) -> None:
        self._inner = inner
        self.tape = _Tape()
        self._steps = 0

    @property
    def embodiment(self) -> EmbodimentSpec:
        return self._inner.embodiment

    def reset(self, task: str, seed: int, *, render: bool = True) -> Observation:
        self._steps = 0
        return self._inner.reset(task, seed, render=render)

    def observe(self) -> Observation:
        seen = self._inner.observe()
        self.tape.seen.append(seen)
        self.tape.consumed.append(self._steps)
        self._steps = 0
        return seen

    def step(self, action_A: NDArray[np.floating], *, render: bool = False) -> StepOutcome:
        self._steps += 1
        return self._inner.step(action_A, render=render)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _joined(tapes: Sequence[tuple[str, int, _Tape]], source: Mapping[str, Any]) -> Recording:
    seen = [observation for _, _, tape in tapes for observation in tape.seen]
    instructions = tuple(dict.fromkeys(observation.instruction for observation in seen))
    episodes = [{"task": task, "seed": seed, "decisions": len(tape.seen)} for task, seed, tape in tapes]
    return Recording(
        images={name: np.stack([observation.images[name] for observation in seen]) for name in seen[0].images},
        proprio_TP=np.stack([observation.proprio_P for observation in seen]).astype(np.float32),
        instructions=instructions,
        instruction_T=np.array([instructions.index(observation.instruction) for observation in seen], np.int64),
        session_T=np.repeat(np.arange(len(tapes)), [len(tape.seen) for _, _, tape in tapes]),
        consumed_T=np.array([rows for _, _, tape in tapes for rows in tape.consumed], np.int64),
        source={**source, "episodes": episodes},
    )
