"""One attempt of a scripted expert, and the perturbations of its actions."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import CollectConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One task from one initial state (seed)."""

    task: str
    seed: int

    @property
    def episode_id(self) -> str:
        """Names the attempt everywhere."""
        return f"{self.task}-{self.seed:06d}"


class Perturbation:
    """What is added to the expert's action: correlated noise of one strength an episode, and short random pushes.

    The gripper follows the expert in nine steps of ten, so that a grasp survives.
    """

    def __init__(self, cfg: CollectConfig, attempt: Attempt, gripper_A: NDArray[np.bool_]) -> None:
        self._rng = np.random.default_rng([attempt.seed, zlib.crc32(attempt.task.encode())])
        self._cfg = cfg
        self._strength = float(self._rng.choice(np.array(cfg.noise_levels)))
        self._gripper_A = gripper_A
        self._noise_A = np.zeros(len(gripper_A))
        self._push_A = np.zeros(len(gripper_A))
        self._push_left = 0

    def apply(self, action_A: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action to execute in place of `action_A`, within -1..1."""
        cfg, rng = self._cfg, self._rng
        fresh = np.sqrt(1.0 - cfg.noise_correlation**2) * self._strength
        self._noise_A = cfg.noise_correlation * self._noise_A + fresh * rng.standard_normal(len(action_A))
        if self._push_left == 0 and rng.random() < cfg.burst_probability:
            self._push_left = int(rng.integers(cfg.burst_steps[0], cfg.burst_steps[1] + 1))
            self._push_A = rng.uniform(-1.0, 1.0, len(action_A))
        executed_A = action_A + self._noise_A
        if self._push_left > 0:
            executed_A = self._push_A.copy()
            self._push_left -= 1
        if rng.random() > 0.1:
            executed_A[self._gripper_A] = action_A[self._gripper_A]
        return np.clip(executed_A, -1.0, 1.0).astype(np.float32)
