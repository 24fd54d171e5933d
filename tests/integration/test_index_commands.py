"""The data stages one by one over a team's own folder: each reads the index of sources, and freezing tells what actions would be lost.

Run: .venv/bin/python -m pytest tests/integration/test_index_commands.py -n 0
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.config.data_config import NO_LABELS, AnnotateConfig, FreezeConfig, ValidateConfig
from components.config.recipe import EvalConfig, PackageConfig, Recipe
from components.config.source_config import SourceConfig
from tests.faults.fork_server import Done, ForkServer
from tests.older_set import DATA
from tests.own_data import CAMERAS, EMBODIMENT_FILE, write_own_set

EPISODES = 12
PERCENT = 'name: gripper, unit: "1", mode: absolute, low: -1.0, high: 1.0'


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as running:
        yield running


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


@pytest.mark.soak
def test_the_stages_read_an_index_and_freezing_tells_what_actions_would_be_lost(server, tmp_path):
    recipe = written(tmp_path)
    for stage in ("collect", "validate", "annotate"):
        done = run(server, tmp_path, "data", stage, str(recipe))
        assert done.code == 0, f"{stage}: {done.told}"
    assert not (tmp_path / "data/collect/undigested").exists()

    passed_through = run(server, tmp_path, "data", "freeze", str(recipe))
    assert passed_through.code == 1
    assert "action 'gripper' is passed through" in passed_through.told
    assert "freeze.mask=[true,true,true]" in passed_through.told
    assert not (tmp_path / "data/freeze").exists()

    document = json.loads(recipe.read_text())
    document["freeze"]["mask"] = [True, True, True]
    recipe.write_text(json.dumps(document))
    frozen = run(server, tmp_path, "data", "freeze", str(recipe))
    assert frozen.code == 0, frozen.told
    (told,) = [line for line in frozen.told.splitlines() if "action 'dx'" in line]
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
    assert "run the stage collect of its recipe here" in unknown.told


def run(server: ForkServer, under: Path, *words: str) -> Done:
    return server.run(*words, under=under)
