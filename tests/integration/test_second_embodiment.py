"""A second simulated embodiment costs one module and its name in the recipe.

The functions of collect, validate, annotate, freeze and evaluate run on it, the last with a written policy in place of a trained one, and
it opens as the robot of a workcell. Training, gate, packaging and the served workcells are not run here.

Run: .venv/bin/python -m pytest tests/integration/test_second_embodiment.py
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from components.config.data_config import AnnotateConfig, CameraConfig, CollectConfig, FreezeConfig, ValidateConfig, VqvaeConfig
from components.config.recipe import EvalConfig
from components.config.records import Silent
from components.config.simulators import SIMULATORS, SimulatorEntry
from components.data.annotate import annotate
from components.data.attempts import Attempt, Perturbation
from components.data.collect import collect
from components.data.freeze import freeze
from components.data.frozen_dataset import load_split
from components.data.validate import validate
from components.evaluation.evaluate import evaluate
from components.evaluation.rollout import roll_out
from components.evaluation.suite import Case, open_suite
from components.simulation.interface import AlreadySolvedError
from components.simulation.metaworld import MetaWorld
from components.simulation.open import open_simulator
from components.simulation.robot import make_robot, robot_options
from model_core.spec.contract import PolicyContract, ReasoningSpec
from model_core.spec.errors import SpecError
from model_core.spec.stats import UnnormStats
from model_core.spec.types import ActionChunk, Decision, Observation, Policy, Refusal, RefusalCode
from tests.planar_arm import SOLVED_SEEDS, TARGET, TASK, PlanarArm, reach, table_points

pytestmark = pytest.mark.xdist_group("gx")
COLLECT = CollectConfig(
    simulator="tests.planar_arm:PlanarArm",
    tasks=(TASK,),
    episodes_per_task=6,
    workers=1,
    sim_steps_per_action=2,
    horizon_sim_steps=150,
    noise_levels=(0.0, 0.1),
    burst_probability=0.0,
    image_size=64,
    camera=CameraConfig(azimuth=0.0, elevation=-80.0, distance=1.2, lookat=(0.2, 0.0, 0.0)),
    max_depth_m=2.0,
)


@dataclass
class VisualServo(Policy):
    """It finds the red square in the image and moves the tip there: a policy that solves the task and depends on its image."""

    contract: PolicyContract

    def decide(self, observation: Observation) -> Decision:
        image = observation.images["front"].astype(int)
        reds = np.argwhere(np.abs(image - TARGET).sum(axis=-1) < 60)
        geometry = open_simulator(COLLECT).geometry()["front"]
        target = table_points(geometry)[reds[:, 0], reds[:, 1]].mean(axis=0)[:2] if len(reds) else np.zeros(2)
        angles, rows = np.array(observation.proprio_P[1:], np.float64), []
        for _ in range(self.contract.chunk_length):
            rows.append(reach(angles, target, COLLECT.sim_steps_per_action))
            angles = angles + rows[-1][1:] * 0.02 * COLLECT.sim_steps_per_action
        chunk = ActionChunk(actions_KA=np.stack(rows), control_hz=self.contract.embodiment.control_hz)
        return Decision(contract_id=self.contract.contract_id, chunk=chunk)

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        return [self.decide(one) for one in observations]


class Standstill(Policy):
    """It never knows what to do."""

    def decide(self, observation: Observation) -> Decision:
        return Decision(contract_id="x", refusal=Refusal(code=RefusalCode.PARSE, reason="no answer"))

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        return [self.decide(one) for one in observations]


def open_servo(checkpoint: Path, reasoning: str) -> tuple[Policy, PolicyContract]:
    """checkpoint/contract.json: what freezing made."""
    contract = PolicyContract.from_json(json.loads((checkpoint / "contract.json").read_text()))
    return VisualServo(contract), contract


def test_the_stages_before_and_after_training_run_on_it(tmp_path: Path) -> None:
    recorded = collect(COLLECT, tmp_path / "collect", Silent())
    assert recorded["episodes"] == 6
    dataset = tmp_path / "collect" / "dataset"
    assert validate(ValidateConfig(data_docs=False), dataset, tmp_path / "validate", Silent())["valid"] == 6

    cfg = AnnotateConfig(vqvae=VqvaeConfig(steps=4, batch=8, frames=32))
    labelled = annotate(cfg, dataset, tmp_path / "validate" / "valid.json", tmp_path / "labels", Silent())
    assert (labelled["episodes"], labelled["rejected"]) == (6, 0)

    frozen = tmp_path / "frozen"
    freeze(FreezeConfig(name="planar", validation_fraction=0.45), dataset, tmp_path / "labels", frozen, Silent())
    contract = PolicyContract.from_json(json.loads((frozen / "contract.json").read_text()))
    assert contract.embodiment == open_simulator(COLLECT).embodiment
    assert contract.stats.mask == (False, True, True), "the gripper is the first dimension here, and it is passed through"
    assert load_split(frozen, "train").actions_NKA.shape[2] == 3

    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "contract.json").write_text((frozen / "contract.json").read_text())
    asked = EvalConfig(seeds_per_task=3, horizon_sim_steps=200, batch=3, workers=1, image_swap_frames=12)
    measured = evaluate(
        asked,
        checkpoint,
        tmp_path / "evaluate",
        Silent(),
        suite=open_suite(asked, COLLECT),
        frozen=frozen,
        policy="tests.integration.test_second_embodiment:open_servo",
    )
    assert (measured["successes"], measured["trials"]) == (3, 3)
    assert measured["contract_id"] == contract.contract_id
    assert measured["protocol"]["suite"] == "tests.planar_arm:PlanarArm"


def test_an_initial_state_that_solves_the_task_is_no_demonstration_and_no_trial(tmp_path: Path) -> None:
    first = SOLVED_SEEDS[0] - 1
    for keep_failures in (False, True):
        cfg = replace(COLLECT, episodes_per_task=3, first_seed=first, keep_failures=keep_failures)
        recorded = collect(cfg, tmp_path / str(keep_failures), Silent())
        assert (recorded["attempts"], recorded["episodes"], recorded["failed"]) == (3, 2, 1)

    asked = EvalConfig(seeds_per_task=3, first_seed=first, horizon_sim_steps=40, batch=3, workers=1)
    sims = [open_simulator(COLLECT) for _ in range(3)]
    rows = [one.row for one in roll_out(Standstill(), sims, TASK, range(first, first + 3), asked)]
    assert [row.stop_reason for row in rows] == ["refused", "env_error", "refused"]
    assert not any(row.success for row in rows)
    assert "AlreadySolvedError: reach-red: initial state 7777" in rows[1].detail
    with pytest.raises(AlreadySolvedError):
        make_robot(TASK, SOLVED_SEEDS[0], **robot_options(COLLECT))


def test_a_flag_that_is_up_after_the_first_step_of_meta_world_is_no_success() -> None:
    sim = MetaWorld()
    sim.reset("drawer-close-v3", 10_000, render=False)
    assert not sim.step(np.zeros(4)).success
    sim.reset("drawer-close-v3", 10_000, render=False)
    sim.env.unwrapped._set_obj_xyz(0.0)  # the drawer is closed
    with pytest.raises(AlreadySolvedError, match="before the robot has moved"):
        sim.step(np.zeros(4))
    sim.close()


def test_it_is_a_workcells_robot_too() -> None:
    options = json.loads(json.dumps(robot_options(COLLECT)))
    robot = make_robot(TASK, 950_000, **options)
    assert robot.embodiment == open_simulator(COLLECT).embodiment
    assert robot.versions == {"planar-arm": "1"}
    seen = robot.observe()
    assert seen.images["front"].shape == (64, 64, 3)
    assert not robot.act(np.array([1.0, 0.5, 0.0], np.float32)).success
    assert robot.proprio_P()[0] == 1.0


def test_one_entry_gives_it_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIMULATORS, "planar", SimulatorEntry(source="tests.planar_arm:PlanarArm"))
    sim = open_simulator(CollectConfig(simulator="planar", tasks=(TASK,)))
    assert isinstance(sim, PlanarArm)


def test_the_gripper_follows_the_expert_where_it_is_named() -> None:
    noisy = CollectConfig(tasks=("t",), noise_levels=(0.5,), burst_probability=0.0)
    perturbation = Perturbation(noisy, Attempt(task="t", seed=1), np.array([True, False, False]))
    executed = np.stack([perturbation.apply(np.full(3, 0.25, np.float32)) for _ in range(500)])
    followed = (executed == np.float32(0.25)).mean(axis=0)
    assert followed[0] > 0.85
    assert followed[1:].max() < 0.05


@dataclass(frozen=True)
class NearTargets:
    """A benchmark suite of somebody else, in this file alone: the seeds whose target is near."""

    collect_cfg: CollectConfig
    name: str = "near-targets"
    version: str = "1"

    @property
    def rules(self) -> dict[str, int]:
        return {"horizon_sim_steps": 200}

    def cases(self) -> list[Case]:
        return [Case(task=TASK, seed=seed) for seed in (7, 3)]

    def open(self, case: Case) -> PlanarArm:
        sim = open_simulator(self.collect_cfg)
        assert isinstance(sim, PlanarArm)
        return sim


class NoTargets(NearTargets):
    """A suite that somebody forgot to fill."""

    def cases(self) -> list[Case]:
        return []


def open_near(cfg: EvalConfig, collect_cfg: CollectConfig) -> NearTargets:
    """What `evaluate.suite` names."""
    return NearTargets(collect_cfg)


@pytest.mark.soak  # short: its refusals below; the evaluation of all stages above
def test_a_suite_of_ones_own_is_one_file(tmp_path: Path) -> None:
    contract = PolicyContract(
        embodiment=open_simulator(COLLECT).embodiment,
        stats=UnnormStats(q01=(0.0, -1.0, -1.0), q99=(1.0, 1.0, 1.0), mask=(False, True, True)),
        reasoning=ReasoningSpec(trace_camera="front"),
        chunk_length=8,
        execute_horizon=4,
    )
    (tmp_path / "contract.json").write_text(json.dumps(contract.to_json()))
    cfg = EvalConfig(suite="tests.integration.test_second_embodiment:open_near", batch=2, workers=1)
    servo = "tests.integration.test_second_embodiment:open_servo"
    measured = evaluate(cfg, tmp_path, tmp_path / "out", Silent(), suite=open_suite(cfg, COLLECT), policy=servo)
    assert [(row["task"], row["seed"]) for row in measured["episodes"]] == [(TASK, 3), (TASK, 7)]
    protocol = measured["protocol"]
    assert (protocol["suite"], protocol["suite_version"], protocol["horizon_sim_steps"]) == ("near-targets", "1", 200)


def test_a_suite_that_is_empty_or_not_there_is_refused(tmp_path: Path) -> None:
    cfg = EvalConfig(suite="tests.integration.test_second_embodiment:open_near")
    suite = open_suite(cfg, COLLECT)
    assert [(case.task, case.seed) for case in suite.cases()] == [(TASK, 7), (TASK, 3)]
    with pytest.raises(SpecError, match="suite 'none' has no cases"):
        evaluate(cfg, tmp_path, tmp_path / "empty", Silent(), suite=NoTargets(COLLECT, name="none"))
    with pytest.raises(SpecError, match=r"no suite 'tests\.nowhere:suite' .*evaluate\.suite"):
        open_suite(EvalConfig(suite="tests.nowhere:suite"), COLLECT)
