"""The stages are described once: the loop, the plain stages, progress and DVC have the names of the table, and no second list exists."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from components.config.recipe import Recipe
from components.config.stages import DATA_STAGES, LOCAL_STAGES, STAGE_NAMES, STAGES, stage_named
from flows.pipeline.run_context import MAKERS
from flows.terminal.stage_progress import TITLES

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
    assert set(stage.config) <= set(Recipe(name="x").to_json())
    assert stage.work.endswith(".")


def test_the_loop_has_one_task_for_every_stage():
    read = "print(*sorted(v.name for v in vars(loop).values() if isinstance(v, Task)))"
    code = f"from prefect import Task; from flows.pipeline import loop; {read}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.split() == sorted(STAGE_NAMES)


def lists_of_stages(path: Path) -> list[int]:
    """Lines of literals that list four or more stages."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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
