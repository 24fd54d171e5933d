"""Our side of the comparison with vla-eval, in the environment that both share: the same cases through our own suite and closed loop.

python -m tests.conformance.libero_side make CHECKPOINT SUITES              a policy that knows the sentences of these suites
python -m tests.conformance.libero_side run CHECKPOINT SUITES MAX_STEPS LOG    prints a row for every episode; the policy writes LOG

SUITES: {"libero_object": [2, 1], ...}, suite -> how many tasks, how many initial states of each.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from components.config.recipe import EvalConfig
from components.evaluation.rollout import roll_out
from components.evaluation.suite import open_benchmark
from components.evaluation.suites.benchmark import Benchmark
from model_core.contracts import read_contracts
from model_core.spec.documents import to_document
from model_core.spec.execution.guard import Guarded
from tests.conformance.libero_policy import Noted, write_policy


def opened(name: str, tasks: int, states: int) -> Benchmark:
    """The first tasks of a suite on its first states."""
    suite = open_benchmark(name)
    assert isinstance(suite, Benchmark)
    return suite.chosen(tasks=[task.name for task in suite.tasks[:tasks]], count=states)


def make(checkpoint: Path, suites: dict[str, list[int]]) -> None:
    """Write the policy."""
    write_policy(checkpoint, [task.instruction for name in suites for task in opened(name, 10, 1).tasks])


def run(checkpoint: Path, suites: dict[str, list[int]], max_steps: int, log: Path) -> None:
    """Task after task, state after state: the order of vla-eval."""
    (contract,) = read_contracts(checkpoint).values()
    policy = Guarded(policy=Noted(checkpoint, log), contract=contract)
    for name, (tasks, states) in suites.items():
        suite = replace(opened(name, tasks, states).fitted(contract), horizon=max_steps)
        cfg = EvalConfig(suite=name, execute_horizon=contract.execute_horizon)
        for task in suite.chosen_tasks:
            cases = [case for case in suite.cases() if case.task == task.name]
            sim = suite.open(cases[0])
            for case in cases:
                (rollout,) = roll_out(policy, [sim], case.task, [case.seed], cfg)
                if rollout.row.stop_reason == "env_error":
                    raise SystemExit(f"{name}, {case.task}: the simulator ended: {rollout.row.detail}")
                row = {"suite": name, "instruction": task.instruction, **to_document(rollout.row)}
                print(json.dumps(row), flush=True)  # noqa: T201
            sim.close()


if __name__ == "__main__":
    work, folder, chosen = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    make(folder, chosen) if work == "make" else run(folder, chosen, int(sys.argv[4]), Path(sys.argv[5]))
