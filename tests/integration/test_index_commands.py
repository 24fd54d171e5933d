"""The data stages one by one over a team's own folder: each reads the index of sources, and freezing tells what actions would be lost.

Run: .venv/bin/python -m pytest tests/integration/test_index_commands.py -n 0
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.config.data_config import NO_LABELS, AnnotateConfig, FreezeConfig, ValidateConfig
from components.config.recipe import EvalConfig, PackageConfig, Recipe
from components.config.source_config import SourceConfig
from flows.commands.main import command_line
from flows.terminal.output import ended, print_line
from tests.faults.fork_server import Done, ForkServer
from tests.older_set import DATA
from tests.own_data import CAMERAS, EMBODIMENT_FILE, write_own_set

pytestmark = pytest.mark.xdist_group("forked")
EPISODES = 12
PERCENT = 'name: gripper, unit: "1", mode: absolute, low: -1.0, high: 1.0'


def written(root: Path) -> Path:
    """A set whose gripper is 0..100, with one large step of dx, its embodiment file and a recipe; the recipe file."""
    write_own_set(root / "set", EPISODES)
    for number in range(EPISODES):
        path = root / "set" / DATA.format(episode_chunk=0, episode_index=number)
        table = pq.read_table(path)
        actions = np.stack(table["action"].to_pylist()).astype(np.float32)
        actions[:, 0] = (actions[:, 0] + 1) * 50
        if number == 3:
            actions[5, 2] = 0.99
        column = pa.FixedSizeListArray.from_arrays(pa.array(actions.ravel()), 3)
        pq.write_table(table.set_column(table.column_names.index("action"), "action", column), path)
    percent = EMBODIMENT_FILE.replace(PERCENT, "name: gripper, unit: percent, mode: absolute, low: 0, high: 100")
    (root / "arm.yaml").write_text(percent.replace("values: [-1.0, 1.0], open: 1.0", "values: [0, 100], open: 100"))
    source = SourceConfig(name="bench", path=str(root / "set"), embodiment=str(root / "arm.yaml"), cameras=CAMERAS)
    recipe = Recipe(
        name="own",
        data=(source,),
        validate=ValidateConfig(min_frames=4, data_docs=False, max_bad_fraction=0.5),
        annotate=AnnotateConfig(depth_annotator=NO_LABELS, point_annotator=NO_LABELS),
        freeze=FreezeConfig(name="own", validation_fraction=0.2, chunk_length=4, execute_horizon=2),
        evaluate=EvalConfig(reasoning="action"),
        package=PackageConfig(model_name="bench-arm", reasoning="action"),
    )
    path = root / "own.json"
    path.write_text(json.dumps(recipe.to_json()))
    return path


def stages(recipe: str) -> None:
    """Every data stage, then freezing again with a mask that normalises the gripper: one process, so the code's digest is taken once."""
    for stage in ("collect", "validate", "annotate", "freeze"):
        print_line(f"{stage}: code {command(stage, recipe)}")
    masked = Path(recipe).with_name("masked.json")
    document = json.loads(Path(recipe).read_text())
    document["freeze"]["mask"] = [True, True, True]
    masked.write_text(json.dumps(document))
    print_line(f"masked: code {command('freeze', str(masked))}")


def command(stage: str, recipe: str) -> int:
    """`actwright data STAGE RECIPE`; its exit code."""
    return ended(lambda: command_line("data")(["data", stage, recipe]))


@pytest.mark.soak  # the rules of both notes: tests/unit/test_accounting.py
def test_the_stages_read_an_index_and_freezing_tells_what_actions_would_be_lost(server, tmp_path):
    done = run(server, tmp_path, "call", "tests.integration.test_index_commands:stages", str(written(tmp_path)))
    codes = re.findall(r"(?m)^(\w+): code (\d+)$", done.told)
    assert codes == [("collect", "0"), ("validate", "0"), ("annotate", "0"), ("freeze", "1"), ("masked", "0")], done.told
    assert not (tmp_path / "data/collect/undigested").exists()
    refused, masked = done.told[: done.told.index("freeze: code")], done.told[done.told.index("freeze: code") :]
    assert re.search(r"dataset error: .*action 'gripper' is passed through.*freeze\.mask=\[true,true,true\]", refused)
    (told,) = [line for line in masked.splitlines() if "action 'dx'" in line]
    assert re.search(r"1 of \d+ steps .* hold values of 0\.99\.\.0\.99 m", told)
    assert "freeze.mask=[false,true,true]" in told


def test_a_command_that_reads_one_folder_says_that_an_index_is_none(server, tmp_path):
    recipe = written(tmp_path)
    assert run(server, tmp_path, "data", "collect", str(recipe)).code == 0
    for words in (("data", "inspect", "data/collect"), ("data", "passport", "data/collect"), ("embodiment", "draft", "data/collect")):
        refused = run(server, tmp_path, *words)
        assert refused.code == 2, refused.told
        assert "is an index of sources (bench)" in " ".join(refused.told.replace("│", " ").split())
    unknown = run(server, tmp_path, "data", "show", "data/collect")
    assert unknown.code == 1
    assert "is a copy of an index of sources (bench)" in unknown.told


def run(server: ForkServer, under: Path, *words: str) -> Done:
    return server.run(*words, under=under)
