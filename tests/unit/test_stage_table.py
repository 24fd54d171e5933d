"""The stages are described once: the loop, the plain stages, progress and DVC have the names of the table, and no second list exists."""

from __future__ import annotations

import ast
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest

from components.artifacts.step_manifest import step_key
from components.config.recipe import Recipe
from components.config.stages import DATA_STAGES, LOCAL_STAGES, STAGE_NAMES, STAGES, stage_named
from flows.commands.overrides import with_changes
from flows.pipeline.run_context import MAKERS
from flows.pipeline.stages.step import StepKey
from flows.terminal.stage_progress import TITLES
from tests.architecture.sources import nodes_of

pytestmark = pytest.mark.xdist_group("sources")
ROOT = Path(__file__).parents[2]
TABLE = ROOT / "components" / "config" / "stages.py"


def test_every_stage_but_the_report_is_made_from_the_steps_before_it():
    assert tuple(MAKERS) == STAGE_NAMES[:-1]
    assert STAGE_NAMES[-1] == "report"


def test_what_is_derived_keeps_the_order_of_the_table():
    assert tuple(TITLES) == STAGE_NAMES
    assert STAGE_NAMES[: len(DATA_STAGES)] == DATA_STAGES
    assert STAGE_NAMES[: len(LOCAL_STAGES)] == LOCAL_STAGES
    assert set(DATA_STAGES) < set(LOCAL_STAGES)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_names_sections_that_a_recipe_has(stage):
    assert stage_named(stage.name) is stage
    for path in stage.config + stage.input_config:
        attrgetter(path)(Recipe(name="x"))
    assert stage.work.endswith(".")


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ("collect.noise_correlation=0.5", {"collect"}),
        ("collect.image_size=96", {"collect", "evaluate", "workcells"}),
        ("collect.workers=1", set()),
        ("validate.black_mean=2", {"collect", "validate"}),
        ("validate.min_frames=9", {"validate"}),
        ("train.seed=1", {"train"}),
        ("train.zero_stage=3", set()),  # a training that was begun at another stage, or by more processes, is gone on with
        ("package.model_name=other", {"gate", "package"}),
        ("name=other", {"report"}),
    ],
)
def test_a_change_of_the_recipe_changes_the_keys_of_the_stages_whose_rows_name_it(change, stages):
    def keys(recipe):
        rows = ((stage.name, StepKey(stage=stage, recipe=recipe, inputs={})) for stage in STAGES)
        return {name: step_key(name, key.config, {}, "") for name, key in rows}

    before, after = keys(Recipe(name="x")), keys(with_changes(Recipe(name="x"), [change]))
    assert {name for name in before if before[name] != after[name]} == stages


@pytest.mark.soak  # short: the summary of the smallest loop has every stage (test_kill_resume)
def test_the_loop_has_one_task_for_every_stage():
    read = "print(*sorted(v.name for v in vars(loop).values() if isinstance(v, Task)))"
    code = f"from prefect import Task; from flows.pipeline import loop; {read}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.split() == sorted(STAGE_NAMES)


def lists_of_stages(path: Path) -> list[int]:
    """Lines of literals that list four or more stages."""
    found = []
    for node in nodes_of(path):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            names = {part.value for part in node.elts if isinstance(part, ast.Constant)}
            if len(names & set(STAGE_NAMES)) >= 4:
                found.append(node.lineno)
    return found


def test_no_other_file_lists_the_stages(tmp_path):
    rooms = ("model_core", "components", "flows", "serving")
    paths = [path for room in rooms for path in (ROOT / room).rglob("*.py") if path != TABLE]
    assert not {path.relative_to(ROOT).as_posix(): lines for path in paths if (lines := lists_of_stages(path))}
    (tmp_path / "again.py").write_text("STAGES = ('collect', 'validate', 'annotate', 'freeze')\n")
    assert lists_of_stages(tmp_path / "again.py") == [1]
