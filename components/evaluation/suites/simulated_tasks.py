"""The tasks of the recipe's own simulator (Meta-World, unless the recipe says otherwise) on seeds that were never demonstrated."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.artifacts.files import sha256_file
from components.config.data_config import CollectConfig
from components.config.recipe import EvalConfig
from components.config.simulators import SIMULATORS
from components.evaluation.suite import Case, installed_version
from components.simulation.interface import Simulator
from components.simulation.open import open_simulator


@dataclass(frozen=True, slots=True)
class SimulatedTasks:
    """Every task of `collect`, each on `cfg.seeds_per_task` initial states."""

    cfg: EvalConfig
    collect: CollectConfig

    @property
    def name(self) -> str:
        """The simulator's name."""
        return self.collect.simulator

    @property
    def version(self) -> str:
        """Versions of the simulator's packages; of one that is named by its class, the digest of its module: its name says nothing."""
        entry = SIMULATORS.get(self.collect.simulator)
        if entry is None:
            return _module_digest(self.collect.simulator.partition(":")[0])
        return ", ".join(f"{package} {installed_version(package)}" for package in entry.packages)

    @property
    def rules(self) -> Mapping[str, Any]:
        """How long an episode may take, and for how long one action is held."""
        return {"horizon_sim_steps": self.cfg.horizon_sim_steps, "sim_steps_per_action": self.collect.sim_steps_per_action}

    def cases(self) -> Sequence[Case]:
        """Seed after seed, the tasks in turn."""
        seeds = range(self.cfg.first_seed, self.cfg.first_seed + self.cfg.seeds_per_task)
        return [Case(task=task, seed=seed) for seed in seeds for task in self.collect.tasks]

    def open(self, case: Case) -> Simulator:
        """A simulator with the camera of the demonstrations and this evaluation's horizon."""
        return open_simulator(replace(self.collect, horizon_sim_steps=self.cfg.horizon_sim_steps, settle_steps=0))


def _module_digest(module: str) -> str:
    """Of the file that holds it; "" where there is none."""
    found = importlib.util.find_spec(module)
    path = Path(found.origin) if found is not None and found.origin is not None else None
    return f"{module} {sha256_file(path)[:16]}" if path is not None and path.is_file() else ""
