"""The closed loop with scripted simulators: chunks, holds, refusals, failing simulators, and what is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from components.config.data_config import CollectConfig
from components.config.recipe import EvalConfig
from components.config.records import RolloutRow
from components.evaluation.evaluate import cases_of, make_report, plan_groups
from components.evaluation.rollout import roll_out
from components.evaluation.suite import Case, open_suite
from components.evaluation.suites.simulated_tasks import SimulatedTasks
from components.simulation.interface import StepOutcome
from model_core.spec.errors import SpecError
from model_core.spec.execution.guard import Guarded
from model_core.spec.types import ActionChunk, Decision, Observation, Refusal, RefusalCode, StopReason
from tests.fakes import make_contract, make_embodiment, make_observation

CONTRACT = make_contract()
CFG = EvalConfig(execute_horizon=4, max_refusals_in_a_row=3, seeds_per_task=5, batch=2, first_seed=100)


class ScriptedSimulator:
    """A simulator that is solved after `solved_at` steps, fails at `fails_at` and ends after 20; keeps what was executed."""

    def __init__(self, *, solved_at: int = 99, fails_at: int = 99) -> None:
        self.embodiment = make_embodiment()
        self.solved_at, self.fails_at = solved_at, fails_at
        self.executed: list[np.ndarray] = []

    def reset(self, task: str, seed: int, *, render: bool = True) -> Observation:
        self.executed = []
        return make_observation(value=0)

    def observe(self) -> Observation:
        return make_observation(value=len(self.executed))

    def step(self, action_A: np.ndarray, *, render: bool = False) -> StepOutcome:
        self.executed.append(action_A)
        steps = len(self.executed)
        if steps >= self.fails_at:
            raise FloatingPointError("the physics blew up")
        success = steps >= self.solved_at
        return StepOutcome(success=success, done=success or steps >= 20, sim_steps=steps)


class Script:
    """Answers with whatever `answer` makes of an observation; keeps the batch sizes."""

    def __init__(self, answer: Callable[[Observation], Decision]) -> None:
        self.answer, self.batches = answer, list[int]()

    def decide(self, observation: Observation) -> Decision:
        return self.answer(observation)

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        self.batches.append(len(observations))
        return [self.answer(one) for one in observations]


def chunk(observation: Observation, *, scale: float = 1.0) -> Decision:
    """dx counts the steps since the observation, dy tells when that was."""
    actions = np.zeros((8, 4), np.float32)
    actions[:, 0] = np.arange(8) / 100 * scale
    actions[:, 1] = observation.images["front"].flat[0] / 100
    return Decision(contract_id="x", chunk=ActionChunk(actions_KA=actions, control_hz=20.0))


def refuse(observation: Observation) -> Decision:
    return Decision(contract_id="x", refusal=Refusal(code=RefusalCode.PARSE, reason="mumbled"))


def run(answer: Callable[[Observation], Decision], *simulators: ScriptedSimulator) -> tuple[list[RolloutRow], Script]:
    script = Script(answer)
    found = roll_out(Guarded(policy=script, contract=CONTRACT), simulators, "push", range(len(simulators)), CFG, strip_seeds=frozenset({0}))  # type: ignore[arg-type]
    assert len(found[0].frames) == found[0].row.decisions
    return [one.row for one in found], script


def test_a_chunk_is_executed_up_to_the_horizon_then_a_new_one_is_asked_for() -> None:
    simulator = ScriptedSimulator()
    (row,), _ = run(chunk, simulator)
    assert (row.steps, row.decisions, row.stop_reason) == (20, 5, "max_steps")
    executed = np.stack(simulator.executed)
    np.testing.assert_allclose(executed[:, 0], np.tile(np.arange(4) / 100, 5))
    np.testing.assert_allclose(executed[:, 1], np.repeat([0, 4, 8, 12, 16], 4) / 100)


def test_simulators_ask_together_and_leave_when_solved() -> None:
    rows, script = run(chunk, ScriptedSimulator(solved_at=3), ScriptedSimulator(solved_at=9), ScriptedSimulator())
    assert [(r.success, r.steps, r.stop_reason) for r in rows] == [(True, 3, "success"), (True, 9, "success"), (False, 20, "max_steps")]
    assert script.batches == [3, 2, 2, 1, 1]


def test_refusals_hold_and_end_the_episode_with_the_reason() -> None:
    simulator = ScriptedSimulator()
    (row,), _ = run(refuse, simulator)
    assert (row.stop_reason, row.refusals, row.decisions, row.success) == ("refused", 3, 3, False)
    assert row.detail == "PARSE: mumbled"
    assert [list(a) for a in simulator.executed] == [[0, 0, 0, -1]] * 2


def test_one_refusal_is_asked_again_at_the_next_tick() -> None:
    simulator = ScriptedSimulator()
    (row,), _ = run(lambda o: refuse(o) if o.images["front"].flat[0] == 4 else chunk(o), simulator)
    assert (row.refusals, row.decisions, row.stop_reason) == (1, 6, "max_steps")
    np.testing.assert_allclose(np.stack(simulator.executed)[3:7, 0], [0.03, 0.0, 0.0, 0.01])


def test_what_the_guard_will_not_let_through_is_not_executed() -> None:
    simulator = ScriptedSimulator()
    (row,), _ = run(lambda o: chunk(o, scale=50.0), simulator)
    assert row.stop_reason == StopReason.GUARD_STOPPED
    assert "UNSAFE: action outside its limits in dx" in row.detail
    assert np.abs(np.stack(simulator.executed)[:, :3]).max() == 0


def test_a_failing_simulator_voids_its_own_trial_only() -> None:
    rows, _ = run(chunk, ScriptedSimulator(solved_at=2), ScriptedSimulator(fails_at=5))
    assert rows[1].stop_reason == "env_error"
    assert rows[1].detail == "FloatingPointError: the physics blew up"
    report = make_report(CFG, open_suite(CFG, CollectConfig()), CONTRACT, "digest", rows, {})
    assert (report.successes, report.trials) == (1, 1)
    assert len(report.episodes) == 2
    assert report.per_task["push"].interval.low < 1.0


def test_a_suite_that_repeats_an_initial_state_is_refused() -> None:
    @dataclass(frozen=True)
    class Listed(SimulatedTasks):
        listed: tuple[Case, ...] = ()

        def cases(self) -> tuple[Case, ...]:
            return self.listed

    a, b = Case(task="a", seed=1), Case(task="b", seed=1)
    listed = [Listed(CFG, CollectConfig(), listed=cases) for cases in ((a, b), (a, b, a), ())]
    assert cases_of(listed[0]) == (a, b)
    with pytest.raises(SpecError, match=r"expected each case once, got again \['a, seed 1'\]\. Fix: give each case a seed"):
        cases_of(listed[1])
    with pytest.raises(SpecError, match="has no cases"):
        cases_of(listed[2])


def test_groups_are_fixed_and_cover_every_seed_once() -> None:
    groups = plan_groups(cfg := replace(CFG, films_per_task=3), open_suite(cfg, CollectConfig(tasks=("a", "b"))).cases())
    assert [(g.task, g.seeds) for g in groups[:3]] == [("a", (100, 101)), ("b", (100, 101)), ("a", (102, 103))]
    assert sorted(s for g in groups if g.task == "b" for s in g.seeds) == list(range(100, 105))
    assert [g.strip_seeds for g in groups if g.task == "a"] == [(100, 101), (102,), ()]
