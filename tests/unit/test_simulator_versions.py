"""Rollouts of two versions of a simulator are not compared: a minor version of MuJoCo moves trajectories apart within five steps."""

from __future__ import annotations

from importlib.metadata import version

from components.config.recipe import GateConfig
from components.evaluation.gate import gate
from components.evaluation.suites.simulated_tasks import SimulatedTasks
from flows.pipeline.recipes import get_recipe
from tests.unit.test_gate import report


def test_the_versions_of_the_simulator_are_part_of_the_rules():
    recipe = get_recipe("miniature")
    suite = SimulatedTasks(recipe.evaluate, recipe.collect)
    assert suite.version == f"metaworld {version('metaworld')}, mujoco {version('mujoco')}"
    other = suite.version.replace(version("mujoco"), "3.17.0")
    candidate = report(press=(20, 20), protocol={"suite_version": other})
    verdict = gate(GateConfig(), candidate, report(press=(20, 20), protocol={"suite_version": suite.version}))
    (check,) = [check for check in verdict.checks if check.name == "protocol"]
    assert not check.passed
    assert "mujoco 3.17.0" in check.reason
    assert "so they are not compared" in check.reason
