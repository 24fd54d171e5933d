"""The real simulator: same seed, same initial state, held actions, metric depth, and a pinhole that lands on the gripper.

Run: .venv/bin/python -m pytest tests/integration/test_simulator.py
"""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from components.config.data_config import CameraConfig, CollectConfig
from components.simulation.interface import FreeCamera
from components.simulation.metaworld import MetaWorld, embodiment
from components.simulation.metaworld_tasks import INSTRUCTIONS
from components.simulation.mujoco_renderer import RENDERER, _mujoco_camera
from components.simulation.open import open_simulator
from components.simulation.robot import make_robot, robot_options
from components.simulation.two_buttons import TwoButtons
from flows.pipeline.stages.training import simulation_of
from model_core.spec.errors import SimulatorError, SpecError

pytestmark = pytest.mark.xdist_group("simulator")
TASKS = ("coffee-button-v3", "drawer-close-v3")


@pytest.fixture(scope="module")
def sim():
    made = MetaWorld()
    yield made
    made.close()


def fingerprint(sim, task, seed, steps=3):
    total = hashlib.sha256()
    sim.reset(task, seed, render=False)
    for _ in range(steps):
        seen = sim.observe()
        for part in (seen.images["front"], sim.depth_m()["front"], seen.proprio_P, sim.tcp_3()):
            total.update(part.tobytes())
        sim.step(sim.expert_action_A())
    return total.hexdigest()


def test_an_initial_state_is_its_seed_whatever_came_before(sim):
    first = {task: fingerprint(sim, task, 11) for task in TASKS}
    assert fingerprint(sim, TASKS[1], 12) != first[TASKS[1]]  # of the task that was drawn last: another model costs a second
    again = {task: fingerprint(sim, task, 11) for task in reversed(TASKS)}
    assert again == first


@pytest.mark.soak  # short: whatever came before it, above; test_collect has the same bytes from processes of its own
def test_an_initial_state_is_its_seed_in_another_process(sim):
    """Where somebody else imported mujoco first, and nothing told it how to draw."""
    program = (
        "import mujoco, warnings; warnings.filterwarnings('ignore')\n"
        "from tests.integration.test_simulator import MetaWorld, fingerprint\n"
        "print(fingerprint(MetaWorld(), 'drawer-close-v3', 21))"
    )
    silent = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=silent)
    assert done.stdout.strip() == fingerprint(sim, "drawer-close-v3", 21)


def test_two_simulators_of_one_process_do_not_mix_their_images(sim):
    other = MetaWorld()
    sim.reset(TASKS[0], 1, render=False)
    other.reset(TASKS[1], 1, render=False)
    mine, theirs = sim.observe().images["front"], other.observe().images["front"]
    assert np.array_equal(sim.observe().images["front"], mine)
    assert np.array_equal(other.observe().images["front"], theirs)
    assert not np.array_equal(mine, theirs)


def test_an_action_is_held_for_its_simulator_steps_and_success_is_latched():
    sim = MetaWorld(sim_steps_per_action=4, horizon_sim_steps=202)
    sim.reset("drawer-close-v3", 3, render=False)
    assert sim.step(np.zeros(4)).sim_steps == 4
    start = sim.proprio_P()
    sim.step(np.array([0.0, 0.0, 1.0, 0.0]))
    assert sim.proprio_P()[2] > start[2]
    outcome = sim.step(np.zeros(4))
    while not outcome.done:
        outcome = sim.step(sim.expert_action_A())
    assert outcome.success
    assert sim.step(np.zeros(4)).success
    while outcome.sim_steps < 202:
        outcome = sim.step(np.zeros(4))
    assert sim.step(np.zeros(4)).sim_steps == 202
    sim.close()


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_succeeds_with_held_actions(sim, task):
    solved = 0
    for seed in range(500, 506):
        sim.reset(task, seed, render=False)
        outcome = sim.step(sim.expert_action_A())
        for _ in range(49):
            if outcome.done:
                break
            outcome = sim.step(sim.expert_action_A())
        solved += outcome.success
    assert solved == 6


def test_the_pinhole_lands_between_the_fingers(sim):
    """Moving the hand straight up moves the projected tip as far as the picture moves."""
    sim.reset("drawer-close-v3", 5, render=False)
    geometry = sim.geometry()["front"]
    for _ in range(3):
        before_u, before_v, _ = geometry.project(sim.tcp_3()[None])[0]
        before = sim.observe().images["front"].astype(int)
        sim.step(np.array([0.0, 0.0, 1.0, -1.0]))
        after_u, after_v, _ = geometry.project(sim.tcp_3()[None])[0]
        changed = np.abs(sim.observe().images["front"].astype(int) - before).max(axis=2) > 40
        rows, columns = np.nonzero(changed)
        near = (np.abs(rows - (before_v + after_v) / 2) < 8) & (np.abs(columns - (before_u + after_u) / 2) < 8)
        assert near.sum() > 5


def test_depth_is_metric_and_agrees_with_the_pinhole(sim):
    """When the closed gripper presses on the drawer, the depth at the tip is that of the fingers, a little in front."""
    sim.reset("drawer-close-v3", 7, render=False)
    outcome = sim.step(sim.expert_action_A())
    while not outcome.done:
        outcome = sim.step(sim.expert_action_A())
    depth = sim.depth_m()["front"]
    assert depth.dtype == np.float32
    assert depth.max() <= 3.0
    u, v, z = sim.geometry()["front"].project(sim.tcp_3()[None])[0]
    window = depth[round(v) - 3 : round(v) + 2, round(u) - 2 : round(u) + 3]
    assert np.abs(window - z).min() < 0.04


def test_camera_and_body_are_what_they_say():
    camera = FreeCamera(width=64, height=48, azimuth=90.0)
    sim = MetaWorld(cameras=(camera,), sim_steps_per_action=2)
    seen = sim.reset("drawer-close-v3", 1)
    assert seen.images["front"].shape == (48, 64, 3)
    assert sim.embodiment == embodiment(cameras=(camera,), sim_steps_per_action=2)
    assert sim.embodiment.control_hz == 40.0
    assert (seen.proprio_P >= sim.embodiment.proprio.low).all()
    assert (seen.proprio_P <= sim.embodiment.proprio.high).all()
    sim.close()


def test_the_instruction_table_covers_the_package():
    from metaworld.policies import ENV_POLICY_MAP

    assert set(INSTRUCTIONS) == set(ENV_POLICY_MAP)
    assert len(set(INSTRUCTIONS.values())) == 50
    assert all(text == text.lower() and text.replace(" ", "").isalpha() for text in INSTRUCTIONS.values())


def test_wrong_use_says_what_to_do(sim):
    with pytest.raises(SimulatorError, match="no task 'juggle'"):
        sim.reset("juggle", 1)
    with pytest.raises(SimulatorError, match="reset"):
        MetaWorld().step(np.zeros(4))


def test_a_workcell_robot_does_its_job():
    robot = make_robot("coffee-button-v3", 950_001)
    first = robot.observe()
    assert robot.instruction == INSTRUCTIONS["coffee-button-v3"] == first.instruction
    outcome = robot.act(np.zeros(4, np.float32))
    assert not outcome.success
    robot.reset(950_001)
    assert np.array_equal(robot.observe().images["front"], first.images["front"])
    robot.close()


def test_a_workcell_robot_stands_where_the_recipe_says():
    cfg = CollectConfig(
        image_size=48,
        max_depth_m=1.1,
        camera=CameraConfig(name="side", azimuth=90.0),
        instructions={"coffee-button-v3": "make coffee"},
    )
    options = json.loads(json.dumps(robot_options(simulation_of(cfg))))
    sim = open_simulator(cfg)
    robot = make_robot("coffee-button-v3", 950_001, **options)
    assert robot.embodiment == sim.embodiment
    seen = robot.observe()
    assert seen.images["side"].shape == (48, 48, 3)
    assert seen.instruction == robot.instruction == "make coffee"
    assert robot.depth_m()["side"].max() == pytest.approx(1.1)
    assert sim.reset("coffee-button-v3", 950_001).instruction == "make coffee"
    for got, expected in zip(robot.geometry().values(), sim.geometry().values(), strict=True):
        assert np.array_equal(got.world_to_camera_44, expected.world_to_camera_44)
    robot.close()
    sim.close()


def test_a_camera_of_the_scene_moves_with_the_hand_and_is_the_robots_too():
    cfg = CollectConfig(tasks=("push-v3",), image_size=48, scene_cameras=("gripper",))
    sim = open_simulator(cfg)
    first = sim.reset("push-v3", 10_003)
    assert [camera.name for camera in sim.embodiment.cameras] == ["front", "gripper"]
    assert {name: image.shape for name, image in first.images.items()} == {"front": (48, 48, 3), "gripper": (48, 48, 3)}
    assert set(sim.depth_m()) == set(sim.geometry()) == {"front"}
    for _ in range(6):
        sim.step(np.array([1.0, 1.0, 0.0, -1.0], np.float32))
    before, after = (
        {name: image[..., 2].astype(int) - image[..., 0] > 60 for name, image in one.images.items()} for one in (first, sim.observe())
    )
    stayed = {name: float((before[name] & after[name]).sum() / before[name].sum()) for name in before}
    assert stayed["gripper"] > 0.8 > 0.2 > stayed["front"], "the blue finger stands still before the camera that the hand carries"
    robot = make_robot("push-v3", 10_003, **json.loads(json.dumps(robot_options(simulation_of(cfg)))))
    assert robot.embodiment == sim.embodiment
    assert np.array_equal(robot.observe().images["gripper"], first.images["gripper"])
    robot.close()
    sim.close()


def test_a_camera_that_no_scene_holds_is_refused_with_those_that_are():
    with pytest.raises(SimulatorError, match=r"no camera 'wrist'. Fix: name one of gripper, behind_gripper"):
        open_simulator(CollectConfig(scene_cameras=("wrist",)))
    with pytest.raises(SimulatorError, match=r"offers no choice of them, got gripper. Fix: --set 'collect.scene_cameras=\[\]'"):
        open_simulator(CollectConfig(simulator="components.simulation.two_buttons:TwoButtons", scene_cameras=("gripper",)))
    with pytest.raises(SpecError, match="name a camera twice"):
        CollectConfig(scene_cameras=("front",))


def test_of_two_buttons_only_the_tasks_own_counts_and_the_other_ends_the_episode():
    two = TwoButtons()
    images = [two.reset(task, 5).images["front"] for task in ("yellow", "either-blue", "contrary-yellow")]
    assert all(np.array_equal(images[0], image) for image in images), "the goal would be seen"
    assert [two.instruction(task).split()[-2] for task in ("yellow", "blue", "contrary-yellow", "either-blue")] == [
        *("yellow", "blue", "blue", "a")
    ]
    blue = pressed(two, "blue", two)
    assert (blue.success, blue.done) == (True, True)
    yellow, other = TwoButtons(), TwoButtons()
    wrong = pressed(yellow, "yellow", other)
    assert (wrong.success, wrong.done) == (False, True)
    assert wrong.sim_steps < 500
    with pytest.raises(SimulatorError, match=r"no task 'green'\. Fix: name one of yellow, blue"):
        two.reset("green", 0)


def pressed(sim, task, shown):
    """The last outcome of `sim` where the expert of `shown` presses; another one does the other task on the same scene."""
    sim.reset(task, 5, render=False)
    if shown is not sim:
        shown.reset("blue", 5, render=False)
    outcome = sim.step(np.zeros(4))
    while not outcome.done:
        action_A = shown.expert_action_A()
        outcome = sim.step(action_A)
        if shown is not sim:
            shown.step(action_A)
    return outcome


@pytest.mark.parametrize("task", ["coffee-button-v3", "peg-insert-side-v3"])
def test_depth_of_the_images_own_pass_is_what_mujocos_renderer_draws_a_second_time_for(sim, task):
    import mujoco

    sim.reset(task, 11, render=False)
    for _ in range(2):
        image, depth = sim.observe().images["front"], sim.depth_m()["front"]
        RENDERER.close()
        with mujoco.Renderer(sim.env.model, 80, 80) as plain:
            for off in ("SHADOW", "REFLECTION", "SKYBOX"):
                plain.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{off}")] = 0
            plain.update_scene(sim.env.data, _mujoco_camera(mujoco, sim.env.model, sim.cameras[0]))
            assert np.array_equal(plain.render(), image)
            plain.enable_depth_rendering()
            plain.update_scene(sim.env.data, _mujoco_camera(mujoco, sim.env.model, sim.cameras[0]))
            assert np.array_equal(np.minimum(plain.render(), np.float32(3.0)), depth)
        assert not np.array_equal(sim.step(sim.expert_action_A(), render=True).observation.images["front"], image)
        assert not np.array_equal(sim.depth_m()["front"], depth)
