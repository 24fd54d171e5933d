"""Evaluation with a drawn trace: the expert's way as a person would draw it, whole or what lies ahead, and scenes that cannot be drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from components.config.recipe import EvalConfig
from components.config.records import RolloutRow
from components.evaluation.arena.variants import variants_of
from components.evaluation.drawn_line import DrawnLine
from components.evaluation.evaluate import protocol_of
from components.evaluation.rollout import roll_out
from components.evaluation.suite import open_suite
from components.simulation.interface import FreeCamera, StepOutcome
from flows.pipeline.recipes import get_recipe
from model_core.spec.episode import CameraGeometry
from model_core.spec.errors import SpecError
from model_core.spec.execution.guard import Guarded
from model_core.spec.types import ActionChunk, Decision, Observation
from tests.fakes import make_contract, make_embodiment, make_observation

CAMERA = FreeCamera(width=101, height=101, azimuth=90.0, elevation=0.0, distance=1.0, lookat=(0.0, 0.0, 0.0)).geometry(90.0)


class OneWay:
    """The gripper goes 5 cm to the right at each step; `solved_at` ends it. The camera looks along it from 1 m: 50 pixels a metre."""

    def __init__(self, *, solved_at: int = 4) -> None:
        self.embodiment, self.solved_at, self.steps = make_embodiment(), solved_at, 0

    def reset(self, task: str, seed: int, *, render: bool = True) -> Observation:
        self.steps = 0
        return make_observation(value=0)

    def observe(self) -> Observation:
        return make_observation(value=self.steps)

    def step(self, action_A: np.ndarray, *, render: bool = False) -> StepOutcome:
        self.steps += 1
        return StepOutcome(success=self.steps == self.solved_at, done=self.steps >= min(self.solved_at, 8), sim_steps=self.steps)

    def expert_action_A(self) -> np.ndarray:
        return np.zeros(4, np.float32)

    def tcp_3(self) -> np.ndarray:
        return np.array([0.05 * self.steps, 0.0, 0.0], np.float32)

    def geometry(self) -> dict[str, CameraGeometry]:
        return {"front": CAMERA}


def asked(cfg: EvalConfig, simulator: OneWay) -> tuple[RolloutRow, list[Observation]]:
    seen: list[Observation] = []

    class Keeps:
        def decide_many(self, observations: list[Observation]) -> list[Decision]:
            seen.extend(observations)
            return [Decision(contract_id="x", chunk=ActionChunk(actions_KA=np.zeros((8, 4), np.float32), control_hz=20.0))]

        def decide(self, observation: Observation) -> Decision:
            return self.decide_many([observation])[0]

    (done,) = roll_out(Guarded(policy=Keeps(), contract=make_contract()), [simulator], "push", [7], cfg)  # type: ignore[list-item]
    return done.row, seen


def test_the_whole_line_goes_with_every_observation_and_what_lies_ahead_begins_at_the_gripper() -> None:
    cfg = EvalConfig(execute_horizon=2, seeds_per_task=1)
    row, seen = asked(replace(cfg, steering="whole"), OneWay())
    expected = [[128, 128], [134, 128], [140, 128], [147, 128], [153, 128]]  # 10 of 101 pixels, as 0..255
    assert (row.success, row.decisions) == (True, 2)
    assert [one.steering.points_N2.tolist() for one in seen if one.steering] == [expected, expected]
    _, seen = asked(replace(cfg, steering="ahead"), OneWay())
    first, second = (one.steering.points_N2.tolist() for one in seen if one.steering)
    assert first == expected
    assert (second[0], second[-1], len(second)) == (expected[2], expected[-1], 5)
    _, seen = asked(cfg, OneWay())
    assert [one.steering for one in seen] == [None, None]


@pytest.mark.parametrize(("solved_at", "told"), [(99, "the expert does not solve it"), (1, "does not see the gripper's way")])
def test_a_scene_that_cannot_be_drawn_is_void(solved_at: int, told: str) -> None:
    simulator = OneWay(solved_at=solved_at)
    if solved_at == 1:
        simulator.tcp_3 = lambda: np.array([0.0, -5.0, 0.0])  # type: ignore[method-assign]
    row, seen = asked(EvalConfig(steering="whole"), simulator)
    assert (row.stop_reason, row.decisions, seen) == ("env_error", 0, [])
    assert told in row.detail


def test_a_gripper_beyond_the_end_is_given_the_way_to_the_end_and_one_out_of_view_what_it_had_not_passed() -> None:
    line = DrawnLine(np.array([[0.0, 0.0], [50.0, 0.0]]), 101, 101)
    trace, passed = line.ahead(np.array([90.0, 0.0]), 0.0)
    assert (trace.points_N2[[0, -1]].tolist(), passed) == ([[230, 0], [128, 0]], 1.0)
    trace, passed = line.ahead(np.array([25.0, 0.0]), 0.0)
    unseen, still = line.ahead(np.array([-9.0, 0.0]), passed)
    assert (unseen.points_N2.tolist(), still) == (trace.points_N2.tolist(), passed)


def test_steering_is_a_rule_of_the_evaluation_and_needs_a_policy_that_takes_traces() -> None:
    recipe = get_recipe("steering")
    suite = open_suite(recipe.evaluate, recipe.collect)
    assert "steering" not in protocol_of(recipe.evaluate, suite, 20.0)  # reports of before steering stay comparable
    _, drawn = variants_of(recipe, ["steered"])
    assert protocol_of(drawn.recipe.evaluate, suite, 20.0)["steering"] == "whole"
    assert drawn.recipe.train == recipe.train
    bare = replace(recipe.annotate, point_annotator="none")
    with pytest.raises(SpecError, match=r"takes none\. Fix: set evaluate\.steering=none"):
        replace(recipe, annotate=bare, evaluate=replace(recipe.evaluate, steering="whole", reasoning="action"))
