"""The road of a team with recordings and no simulator: sets that the public writers wrote in, a served policy and a cell of that robot out.

Run: .venv/bin/python -m pytest tests/integration/test_own_data.py -m "soak or not soak"
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from components.artifacts.empty_databases import copy_database
from components.artifacts.step_store import StepStore
from components.config.data_config import NO_LABELS, AnnotateConfig, VqvaeConfig
from components.config.recipe import Recipe
from components.data.frozen_dataset import load_split, read_frozen
from flows.pipeline.run_context import RunContext, make_until
from flows.platform.settings import load_settings
from flows.platform.wiring import Platform
from flows.terminal.stage_progress import StagePanel
from model_core.spec.errors import SpecError
from tests.integration.loop_runs import Home
from tests.label_models import write_depth_model, write_pointing_model
from tests.road import SETS, command, described, recipe_of, write_kinematics, write_recipe

pytestmark = pytest.mark.xdist_group("gx")


def by_models(root: Path) -> AnnotateConfig:
    """Depth Anything and a pointing model, the classes with random weights: what they answer is no truth, and the road is the same."""
    return AnnotateConfig(
        depth_annotator="depth_anything",
        depth_model=str(write_depth_model(root / "depth")),
        point_annotator="pointing",
        point_model=str(write_pointing_model(root / "pointing", points=True)),
        vqvae=VqvaeConfig(steps=60, frames=200),
    )


def by_kinematics(root: Path) -> AnnotateConfig:
    """No model at all: where the calibrated camera sees the tool centre that the state holds. Traces, and no depth."""
    return AnnotateConfig(
        depth_annotator=NO_LABELS, point_annotator="kinematics", point_model=str(write_kinematics(root / "kinematics")), max_abstained=0.1
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home for commands in processes of their own, and for those in this one."""
    made = Home(tmp_path)
    copy_database("mlflow", tmp_path / "home" / "mlflow.db")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def inspected(name: str, embodiment: Path) -> None:
    report = command("data", "inspect", SETS / name, "--embodiment", embodiment)
    assert report["set_aside"] == {}, report
    assert report["episodes"] == 48


def travelled(home: Home, recipe: Recipe) -> None:
    """`actwright run` of this recipe, and what its report says."""
    done = home.actwright("run", str(write_recipe(recipe, home.root)), timeout_s=1500)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout)["verdict"] == "promote", done.stderr[-3000:]
    assert "evaluate on held-out episodes" in done.stderr
    assert "closed loop" not in done.stderr
    summary = home.summary()
    assert summary["evaluation"]["open_loop"]["error_ratio"] <= 0.5
    assert set(summary["stages"]) == {"collect", "validate", "annotate", "freeze", "train", "evaluate", "gate", "package", "report"}
    assert summary["dataset"]["episodes"] == 48
    assert "of the mean action&#39;s error" in (home.root / "runs/latest/report.html").read_text()


def packed(home: Home) -> tuple[Path, Path]:
    """The bento, and its contract."""
    bento = next((home.root / "home/store/package").glob("*/bento"))
    return bento, next(bento.rglob("bundle/contract.json"))


def acted(home: Home, policy: Path, contract: Path, levels: list[str]) -> None:
    """A cell of that robot acts on the served policy: the driver refuses whatever breaks a limit or the protocol."""
    assert json.loads(contract.read_text())["reasoning"].get("levels", ["full", "reuse-depth", "trace+action", "action"]) == levels
    service = home.start("serve", str(policy), "--port", "0")
    try:
        assert service.stdout is not None
        told = json.loads(service.stdout.readline())
        cell = home.actwright(
            *("workcell", "run", "--robot", "strict", "--option", f"contract={contract}", "--option", "steps=6"),
            *("--task", "grasp the red block", "--url", told["policy"], "--deadline-ms", "30000", "--result", "cell.json"),
        )
        assert cell.returncode == 0, cell.stderr[-3000:]
        told = json.loads(cell.stdout)
        assert (told["episodes"], told["refusals"], told["holds"]) == (1, 0, 0), cell.stderr[-3000:]
        assert told["decisions"] >= 2
    finally:
        service.terminate()
        service.wait(60)


@pytest.mark.timeout(900)
def test_a_set_of_lerobot_0_4_4_with_traces_of_kinematics_goes_all_the_way_to_a_cell(home: Home) -> None:
    """Version 3.0, metres and radians a step, no depth: 12 of its episodes, and so few steps that only the road is shown."""
    embodiment = described("v30", home.root)
    few = {"steps": 10, "warmup_steps": 1}
    recipe = recipe_of("v30", embodiment, by_kinematics(home.root), include=("0:12",), train=few)
    settings = load_settings()
    platform = Platform(settings=settings, store=StepStore(settings.store_root))
    context = RunContext(platform=platform, recipe=recipe, panel=StagePanel(live=False))
    measured = make_until(context, "evaluate").record
    assert measured["open_loop"]["error_ratio"] > 0
    checkpoint = context.step("train").path / "checkpoint"
    acted(home, checkpoint, checkpoint / "contract.json", ["trace+action", "action"])


@pytest.mark.soak  # short: the road above, stage by stage
@pytest.mark.timeout(900)
def test_a_set_of_lerobot_0_4_4_with_traces_of_kinematics_becomes_a_policy_that_a_cell_acts_on(home: Home) -> None:
    """The same road as one command, with all episodes and steps enough to learn from its images."""
    embodiment = described("v30", home.root)
    inspected("v30", embodiment)
    travelled(home, recipe_of("v30", embodiment, by_kinematics(home.root)))
    acted(home, *packed(home), ["trace+action", "action"])


@pytest.mark.soak  # short: each number of both sets in test_public_writers, labels of models in test_annotate
@pytest.mark.timeout(900)
def test_a_set_of_lerobot_0_3_3_is_described_inspected_labelled_by_models_and_frozen(home: Home) -> None:
    """Version 2.1, steps as parts of their limits: of three episodes, as far as the data set version."""
    embodiment = described("v21", home.root)
    inspected("v21", embodiment)
    labels = replace(by_models(home.root), vqvae=VqvaeConfig(steps=20, frames=40))
    path = write_recipe(recipe_of("v21", embodiment, labels, include=("0:3",)), home.root)
    made = {stage: Path(command("data", stage, path)["path"]) for stage in ("collect", "validate", "annotate", "freeze")}
    _, contract = read_frozen(made["freeze"])
    assert contract.embodiment.gripper_open == -1.0
    assert contract.reasoning.levels[0] == "full"
    assert contract.reasoning.codebook_digest
    split = load_split(made["freeze"], "train")
    assert split.images_NVHW3.shape[1:] == (2, 48, 64, 3)
    assert split.depth_codes_NG is not None
    assert split.trace_N52 is not None
    assert len(set(split.depth_codes_NG.ravel().tolist())) > 1
    labelled = json.loads((made["annotate"] / "provenance.json").read_text())["records"]
    assert {record["annotator"].split(":")[0] for record in labelled} == {"depth-anything/1", "pointing/1"}


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_set_of_lerobot_0_3_3_with_labels_of_models_becomes_a_policy_that_a_cell_acts_on(home: Home) -> None:
    """The whole road of version 2.1, at full reasoning: depth tokens and traces of random models, then actions."""
    embodiment = described("v21", home.root)
    inspected("v21", embodiment)
    travelled(home, recipe_of("v21", embodiment, by_models(home.root)))
    acted(home, *packed(home), ["full", "reuse-depth", "trace+action", "action"])


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_set_of_lerobot_0_4_4_with_depth_and_traces_of_kinematics_becomes_a_policy_that_a_cell_acts_on(home: Home) -> None:
    """The whole road of version 3.0, at full reasoning: depth tokens of a random model, traces of kinematics, then actions."""
    embodiment = described("v30", home.root)
    labels = replace(by_models(home.root), point_annotator="kinematics", point_model=str(write_kinematics(home.root / "kinematics")))
    travelled(home, recipe_of("v30", embodiment, labels))
    acted(home, *packed(home), ["full", "reuse-depth", "trace+action", "action"])


def test_what_a_person_has_not_confirmed_is_not_trained_on(home: Home) -> None:
    draft = home.root / "draft.yaml"
    command("embodiment", "draft", SETS / "v30", "--out", draft)
    nothing = AnnotateConfig(depth_annotator=NO_LABELS, point_annotator=NO_LABELS)
    with pytest.raises(SpecError, match=r"5 items are still to be confirmed(?s:.*)which of the two values opens the gripper\?"):
        command("train", write_recipe(recipe_of("v30", draft, nothing), home.root))
    assert not (home.root / "home/store/train").exists()
