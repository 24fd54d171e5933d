"""Built-in suites: which cases they hold, whom they refuse and with what advice, and what is counted of their trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.config.data_config import CollectConfig
from components.config.judging.suites import SUITES
from components.config.recipe import EvalConfig, Recipe
from components.config.stages import PAIRS, stage_named
from components.evaluation.evaluate import evaluate
from components.evaluation.suite import open_suite
from components.evaluation.suites.metaworld import EASY, HARD, MT10, TIER_OF, metaworld_loop, metaworld_mt50
from components.evaluation.suites.two_buttons import two_buttons
from components.simulation.metaworld import embodiment
from components.simulation.metaworld_tasks import INSTRUCTIONS
from components.simulation.open import open_simulator
from flows.commands.main import command_line
from flows.commands.overrides import with_changes
from flows.pipeline.recipes import get_recipe
from flows.pipeline.stages.comparison import block_recipe
from flows.pipeline.stages.step import StepKey
from model_core.spec.errors import ContractError, SpecError
from tests.fakes import make_contract
from tests.tiny_checkpoint import write_tiny_checkpoint

SPOKEN = tuple(sorted({word for text in INSTRUCTIONS.values() for word in text.split()}))


def contract(words: tuple[str, ...] = SPOKEN, **body: object):
    return replace(make_contract(replace(embodiment(), **body)), words=words)


def called(*words: object):
    return CliRunner().invoke(command_line("suite"), ["suite", *map(str, words)])


# --- cases -----------------------------------------------------------------------------------------------------------


def test_cases_are_numbered_states_of_named_tasks_and_nothing_of_the_collection() -> None:
    cfg = EvalConfig(suite="metaworld_mt10", tasks=("push-v3", "reach-v3"), first_state=3, seeds_per_task=2)
    elsewhere = CollectConfig(tasks=("hammer-v3",), image_size=96, sim_steps_per_action=8)
    suite = open_suite(cfg, elsewhere)
    assert [(case.task, case.seed) for case in suite.cases()] == [("reach-v3", 3), ("push-v3", 3), ("reach-v3", 4), ("push-v3", 4)]
    assert suite.rules == open_suite(cfg, CollectConfig()).rules
    assert suite.rules["horizon_sim_steps"] == 500
    assert suite.version.startswith("edition 1, metaworld 3.1.1, mujoco 3.3.0")


def test_the_suites_hold_what_they_say() -> None:
    assert len(MT10) == len(set(MT10)) == 10
    whole = metaworld_mt50()
    tiers = [task.tier for task in whole.tasks]
    assert {tier: tiers.count(tier) for tier in dict.fromkeys(tiers)} == {EASY: 28, "medium": 11, HARD: 6, "very hard": 5}
    assert set(TIER_OF) <= {task.name for task in whole.tasks} == set(INSTRUCTIONS)
    assert [case.seed for case in metaworld_loop().chosen(count=2).cases()] == [930_000, 930_000, 930_001, 930_001]
    told = {task.name: task.instruction for task in two_buttons().tasks}
    assert told["either-yellow"] == told["either-blue"]
    assert (told["contrary-yellow"], told["contrary-blue"]) == (told["blue"], told["yellow"])
    assert set(get_recipe("steering").evaluate.tasks) < set(told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"suite": "metaworld_mt5"}, r"no suite 'metaworld_mt5'.*did you mean 'metaworld_mt50'.*Fix"),
        ({"suite": "metaworld_mt10", "tasks": ("fly-v3",)}, r"has no task fly-v3\. Fix: `actwright suite show metaworld_mt10`"),
        ({"suite": "metaworld_mt10", "seeds_per_task": 51}, r"50 initial states a task \(0 to 49\); asked for 51 from 0\. Fix"),
        ({"tasks": ("push-v3",)}, r"evaluate\.tasks .* Fix: set evaluate\.suite"),
    ],
)
def test_what_a_suite_does_not_hold_is_refused_with_what_to_do(changes, told) -> None:
    with pytest.raises(SpecError, match=told):
        open_suite(EvalConfig(**changes), CollectConfig())


# --- the policy -------------------------------------------------------------------------------------------------------


def test_image_size_and_control_rate_are_the_policys_and_stand_in_the_rules() -> None:
    own = embodiment(sim_steps_per_action=8)
    camera = replace(own.cameras[0], width=64, height=64)
    suite = metaworld_loop().fitted(replace(make_contract(replace(own, cameras=(camera,))), words=SPOKEN))
    assert suite.rules["image_size"] == [64, 64]
    sim = suite.open(suite.cases()[0])
    assert sim.embodiment.control_hz == 10.0
    assert sim.embodiment.cameras[0].width == 64


def test_cameras_of_the_scene_are_the_policys_too() -> None:
    body = open_simulator(CollectConfig(scene_cameras=("gripper",))).embodiment
    suite = metaworld_loop().fitted(replace(make_contract(body), words=SPOKEN))
    assert suite.rules["cameras"] == ["front", "gripper"]
    assert suite.open(suite.cases()[0]).embodiment == body


def test_another_body_and_untaught_words_are_refused_with_what_to_do() -> None:
    suite = metaworld_loop()
    with pytest.raises(ContractError, match=r"for the embodiment 'metaworld-sawyer', the policy is for 'so101'.*Fix: name a suite"):
        suite.fitted(contract(name="so101"))
    taught = tuple(INSTRUCTIONS["drawer-close-v3"].split())
    with pytest.raises(ContractError, match=r"1 of 2 tasks: coffee-button-v3 .*never taught 'button'.*--tasks drawer-close-v3"):
        suite.fitted(contract(taught))
    assert suite.chosen(tasks=("drawer-close-v3",)).fitted(contract(taught)).cases()
    with pytest.raises(ContractError, match=r"fits none of the 1 sentences.*Fix: choose what it was taught \(a policy that was trained"):
        suite.fitted(replace(contract(), templates=("pick up {something}",)))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite") / "checkpoint"
    write_tiny_checkpoint(folder, embodiment=embodiment())
    return folder


def test_the_command_refuses_what_is_not_installed_and_what_does_not_fit(checkpoint: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ACTWRIGHT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setitem(SUITES, "libero_object", replace(SUITES["libero_object"], packages=("a-package-that-is-nowhere",)))
    absent = called("run", "libero_object", checkpoint)
    assert absent.exit_code == 2
    assert "suite 'libero_object' is not installed here: a-package-that-is-nowhere missing" in told_in(absent)
    assert "Fix: pip install 'actwright[libero]'" in told_in(absent)
    assert "not installed: a-package-that-is-nowhere" in called("list").stderr
    refused = called("run", "metaworld_mt10", checkpoint, "--cases", 1)
    assert isinstance(refused.exception, ContractError)
    assert "asks in words that the policy does not take" in str(refused.exception)
    assert "--tasks drawer-close-v3" in str(refused.exception)
    other = tmp_path / "other"
    write_tiny_checkpoint(other, embodiment=replace(embodiment(), name="another-arm"))
    refused = called("run", "metaworld_loop", other, "--cases", 1)
    assert isinstance(refused.exception, ContractError)
    assert "the policy is for 'another-arm'" in str(refused.exception)
    line = called("run", "metaworld_loop", checkpoint, "--steering", "sideways")
    assert line.exit_code == 2
    assert "expected none, whole, ahead. Fix: name one of these" in " ".join(line.stderr.replace("│", " ").split())
    level = called("run", "metaworld_loop", checkpoint, "--reasoning", "deep")
    assert level.exit_code == 2
    assert "the policy answers at full" in told_in(level)
    assert not list((tmp_path / "home").rglob("report.json"))


def told_in(result) -> str:
    """What was printed, without the frame and line ends of the message."""
    return " ".join(result.stderr.replace("│", " ").split())


# --- recipes that name a suite ----------------------------------------------------------------------------------------


def test_further_blocks_of_the_gate_are_the_next_states_of_the_suite_until_there_are_none() -> None:
    changes = ["evaluate.suite=metaworld_mt10", "evaluate.first_state=5", "gate.max_pairs=60"]
    recipe = with_changes(Recipe(name="x"), changes)
    blocks = []
    while (block := block_recipe(recipe, len(blocks))) is not None:
        blocks.append(block.evaluate)
    assert [(block.first_state, block.seeds_per_task) for block in blocks] == [(25, 10), (35, 10), (45, 5)]
    assert {block.first_seed for block in blocks} == {recipe.evaluate.first_seed}
    cases = [case for block in blocks for case in open_suite(block, CollectConfig()).cases()]
    assert len(cases) == len(set(cases)) == 250


def test_the_code_of_a_named_suite_is_part_of_the_key() -> None:
    named, plain = (Recipe(name="x", evaluate=EvalConfig(suite=suite)) for suite in ("metaworld_mt10", ""))
    for stage in (stage_named("evaluate"), PAIRS):
        keys = [StepKey(stage=stage, recipe=recipe, inputs={}) for recipe in (named, plain)]
        assert keys[0].code_version != keys[1].code_version
    assert len({StepKey(stage=stage_named("train"), recipe=recipe, inputs={}).code_version for recipe in (named, plain)}) == 1


def test_evaluate_refuses_before_any_trial(checkpoint: Path, tmp_path: Path) -> None:
    cfg = EvalConfig(suite="metaworld_mt10", seeds_per_task=1, workers=1)
    with pytest.raises(ContractError, match="never taught"):
        evaluate(cfg, checkpoint, tmp_path / "out", None, suite=open_suite(cfg, CollectConfig()))  # type: ignore[arg-type]
