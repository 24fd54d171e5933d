"""Suites on the real simulator: the benchmark's own goals, stages of progress, and a policy through the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.evaluation.suite import open_suite
from components.evaluation.suites.metaworld import GOAL_SEED, metaworld_loop, metaworld_mt10
from components.simulation.benchmarks.metaworld_states import STAGED, MetaWorldStates, benchmark_goals
from components.simulation.metaworld import MetaWorld, embodiment
from flows.pipeline.recipes import get_recipe
from model_core.spec.errors import SimulatorError
from tests.integration.loop_runs import Home
from tests.tiny_checkpoint import write_tiny_checkpoint

pytestmark = pytest.mark.xdist_group("evaluate")
TASK = "drawer-close-v3"


def test_the_recipe_of_all_fifty_tasks_demonstrates_them_so_that_the_slow_experts_succeed_and_is_judged_on_their_suite() -> None:
    recipe = get_recipe("metaworld_mt50")
    assert set(recipe.collect.tasks) == set(MetaWorld().tasks)
    assert open_suite(recipe.evaluate, recipe.collect).cases()[-1].task in recipe.collect.tasks
    sim = MetaWorld(sim_steps_per_action=recipe.collect.sim_steps_per_action, horizon_sim_steps=recipe.collect.horizon_sim_steps)
    for task in ("bin-picking-v3", "lever-pull-v3"):
        sim.reset(task, recipe.collect.first_seed, render=False)
        outcome = sim.step(sim.expert_action_A())
        while not outcome.done:
            outcome = sim.step(sim.expert_action_A())
        assert outcome.success, task
    sim.close()


def test_a_state_of_the_benchmark_is_the_one_that_the_package_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    import metaworld

    monkeypatch.setattr(metaworld, "_N_GOALS", 9)  # the first of its fifty: drawing them all takes seconds
    benchmark_goals.cache_clear()
    suite = metaworld_mt10().chosen(tasks=(TASK,), first=7, count=1)
    (case,) = suite.cases()
    sim = suite.open(case)
    sim.reset(case.task, case.seed, render=False)
    official = metaworld.MT1(TASK, seed=GOAL_SEED)
    env = official.train_classes[TASK]()
    env.set_task(official.train_tasks[7])
    expected_39, _ = env.reset()
    assert isinstance(sim, MetaWorldStates)
    assert env._target_pos is not None
    assert np.array_equal(sim._state_39, expected_39)
    assert np.array_equal(sim.env._target_pos, env._target_pos)
    sim.reset(case.task, 8, render=False)
    assert not np.array_equal(sim.env._target_pos, env._target_pos)
    with pytest.raises(SimulatorError, match=r"the number of a goal, 0 to 8, got 9"):
        sim.reset(case.task, 9)
    sim.close()
    env.close()
    benchmark_goals.cache_clear()


def test_the_expert_solves_states_and_passes_the_stages() -> None:
    suite = metaworld_loop().chosen(tasks=(TASK,), count=2)
    first, second = suite.cases()
    sim = suite.open(first)
    sim.reset(TASK, first.seed, render=False)
    assert isinstance(sim, MetaWorldStates)
    seen = [sim.progress]
    while not (outcome := sim.step(sim.expert_action_A())).done:
        seen.append(sim.progress)
    assert outcome.success
    assert seen[0] == 0.0
    assert sorted(seen) == seen
    assert sim.progress == 1.0
    sim.reset(TASK, second.seed, render=False)
    assert sim.progress == 0.0
    sim.close()


def test_the_loops_suite_lays_out_what_its_recipe_evaluates_on() -> None:
    suite = metaworld_loop()
    ours, plain = suite.open(suite.cases()[0]), MetaWorld()
    for sim in (ours, plain):
        sim.reset(TASK, 930_000, render=False)
    assert isinstance(ours, MetaWorldStates)
    assert np.array_equal(ours._state_39, plain._state_39)
    ours.close()
    plain.close()


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", sorted(STAGED))
def test_a_stage_is_down_at_first_and_passed_before_the_experts_success(task: str) -> None:
    sim = MetaWorldStates(sim_steps_per_action=1)
    for seed in (1, 2, 3):
        sim.reset(task, seed, render=False)
        stages = []
        while not (outcome := sim.step(sim.expert_action_A())).done:
            stages.append(sim.progress)
        assert stages[0] == 0.0
        assert 0.5 in stages or not outcome.success
    sim.close()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_policy_on_a_suite_through_the_command_stopped_and_taken_up_again(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    write_tiny_checkpoint(checkpoint, embodiment=embodiment())
    home = Home(tmp_path)
    words = ("suite", "run", "metaworld_loop", str(checkpoint), "--cases", "2", "--batch", "1", "--workers", "1")
    whole = home.actwright(*words)
    assert whole.returncode == 0, whole.stderr[-3000:]
    told = json.loads(whole.stdout)
    assert (told["suite"], told["trials"]) == ("metaworld_loop", 4)
    result = json.loads(Path(told["result"]).read_text())
    assert [row["name"] for row in result["tasks"]] == ["coffee-button-v3", TASK]
    assert "actwright suite run metaworld_loop" in Path(told["page"]).read_text()
    step = next((tmp_path / "home/store/suite").glob("*/report.json"))
    before = step.read_bytes()
    # a step of which the first groups are done: the others are run, and nothing else changes
    partial = step.parent.with_name(f"{step.parent.name}.partial")
    step.parent.rename(partial)
    (partial / "report.json").unlink()
    (partial / "manifest.json").unlink(missing_ok=True)
    again = home.actwright(*words)
    assert again.returncode == 0, again.stderr[-3000:]
    assert step.read_bytes() == before
    other = replace(embodiment(), name="another-arm")
    write_tiny_checkpoint(tmp_path / "other", embodiment=other)
    refused = home.actwright("suite", "run", "metaworld_loop", str(tmp_path / "other"), "--cases", "1")
    assert refused.returncode == 1
    assert "Fix: name a suite of the policy's embodiment" in refused.stderr
