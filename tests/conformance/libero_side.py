"""Our side of the comparison with vla-eval, in the environment that both share: the same cases through our own suite and closed loop.

python -m tests.conformance.libero_side make CHECKPOINT SUITES HORIZON    a policy of these sentences that executes HORIZON actions
python -m tests.conformance.libero_side run CHECKPOINT SUITES MAX_STEPS LOG    prints a row for every episode; the policy writes LOG

SUITES: {"libero_object": {"instructions": [...], "states": 1}, ...}, suite -> the sentences of its tasks, how many initial states of each.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from components.config.recipe import EvalConfig
from components.evaluation.rollout import roll_out
from components.evaluation.suite import open_benchmark
from components.evaluation.suites.benchmark import Benchmark
from components.simulation import libero_layouts
from model_core.contracts import read_contracts
from model_core.spec.documents import to_document
from model_core.spec.execution.guard import Guarded
from tests.conformance.libero_policy import Noted, write_policy


def opened(name: str, instructions: list[str], states: int) -> Benchmark:
    """The tasks of a suite that have these sentences, on its first states."""
    suite = open_benchmark(name)
    assert isinstance(suite, Benchmark)
    return suite.chosen(tasks=[task.name for task in suite.tasks if task.instruction in instructions], count=states)


def make(checkpoint: Path, suites: dict[str, dict[str, Any]], execute_horizon: int) -> None:
    """Write the policy."""
    write_policy(checkpoint, [sentence for chosen in suites.values() for sentence in chosen["instructions"]], execute_horizon)


@contextlib.contextmanager
def one_generator() -> Iterator[None]:
    """Inside, resets draw on from one generator, seeded once for a task, as vla-eval's do. Our suite seeds it before every reset, so that a
    state is laid out the same whatever ran before it."""
    drawn: Any = None

    @contextlib.contextmanager
    def going_on(seed: int) -> Iterator[None]:
        nonlocal drawn
        kept = np.random.get_state()
        np.random.seed(seed)
        if drawn is not None:
            np.random.set_state(drawn)
        try:
            yield
        finally:
            drawn = np.random.get_state()
            np.random.set_state(kept)

    with patch.object(libero_layouts, "_numpy_seed", going_on):
        yield


def run(checkpoint: Path, suites: dict[str, dict[str, Any]], max_steps: int, log: Path) -> None:
    """Task after task, state after state: the order of vla-eval."""
    (contract,) = read_contracts(checkpoint).values()
    policy = Guarded(policy=Noted(checkpoint, log), contract=contract)
    for name, chosen in suites.items():
        suite = opened(name, chosen["instructions"], chosen["states"]).fitted(contract)
        suite = replace(suite, horizon=min(suite.horizon, max_steps))
        cfg = EvalConfig(suite=name, execute_horizon=contract.execute_horizon)
        for task in suite.chosen_tasks:
            cases = [case for case in suite.cases() if case.task == task.name]
            sim = suite.open(cases[0])
            with one_generator():
                for case in cases:
                    (rollout,) = roll_out(policy, [sim], case.task, [case.seed], cfg)
                    if rollout.row.stop_reason == "env_error":
                        raise SystemExit(f"{name}, {case.task}: the simulator ended: {rollout.row.detail}")
                    row = {"suite": name, "instruction": task.instruction, **to_document(rollout.row)}
                    print(json.dumps(row), flush=True)  # noqa: T201
            sim.close()


if __name__ == "__main__":
    work, folder, chosen = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    make(folder, chosen, int(sys.argv[4])) if work == "make" else run(folder, chosen, int(sys.argv[4]), Path(sys.argv[5]))
