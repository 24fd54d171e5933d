"""`actwright ingest` on other people's data sets: what is taken in is right and told, what is not is refused with the field.

Run: .venv/bin/python -m pytest tests/integration/test_intake_commands.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.artifacts.empty_databases import copy_database
from components.data.lerobot.reader import DatasetReader, DatasetWriter
from components.simulation.interface import FreeCamera
from components.simulation.metaworld import embodiment
from model_core.spec.episode import Episode, Provenance
from tests.faults.fork_server import ForkServer
from tests.plain_set import (
    CLOSE,
    CommandResult,
    PlainLayout,
    change_data,
    change_info,
    mark_of,
    plain_episode,
    with_column,
    write_plain_set,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ranks")]
BODY = embodiment(cameras=(FreeCamera(width=80, height=80),))


@pytest.fixture
def actwright(ranks: ForkServer, tmp_path: Path) -> Callable[..., CommandResult]:
    """Run a command with everything that it keeps under `tmp_path`."""
    copy_database("mlflow", tmp_path / "home" / "mlflow.db")

    def call(*words: str) -> CommandResult:
        done = ranks.run(*words, under=tmp_path)
        line = done.said.strip()
        return CommandResult(code=done.code, result=json.loads(line) if line else None, stderr=" ".join(done.told.split()))

    return call


def taken(home: Path) -> DatasetReader:
    (folder,) = (home / "home/store/ingest").glob("*/dataset")
    return DatasetReader(folder)


def own_episode(number: int, task: str) -> Episode:
    one = plain_episode(number, length=10)
    return Episode(
        episode_id=f"made-{number}",
        embodiment=BODY.name,
        task=task,
        instruction=CLOSE,
        success=True,
        provenance=Provenance(producer="teleop:test", cell="bench", seed=number),
        images={"front": one.frames_THW3},
        depth_m={},
        geometry={},
        proprio_TP=one.state_TP,
        actions_TA=one.actions_TA,
        executed_TA=one.actions_TA,
        timestamps_T=np.arange(10) / 20,
    )


def test_a_plain_set_is_taken_in_and_what_it_leaves_unsaid_is_told(actwright: Callable[..., CommandResult], tmp_path: Path) -> None:
    root = write_plain_set(tmp_path / "set", [plain_episode(n, length=10) for n in range(3)])
    done = actwright("ingest", str(root))
    assert done.code == 0, done.stderr
    assert done.result is not None
    assert (done.result["episodes"], done.result["not_successful"], done.result["success_unknown"]) == (3, 0, 3)
    assert "3 do not say whether they solved their task: taken in, unless --only-successful leaves them out" in done.stderr
    assert "3 do not say what their numbers mean" in done.stderr
    reader = taken(tmp_path)
    assert [mark_of(reader.episode(n).images["front"][4]) for n in range(3)] == [(n, 4) for n in range(3)]
    assert [row.success for row in reader.rows] == [None, None, None]

    refused = actwright("ingest", str(root), "--only-successful")
    assert refused.code != 0
    assert "no source says whether its episodes were successful. Fix: take them in without --only-successful" in refused.stderr


def test_failures_that_are_said_are_left_out(actwright: Callable[..., CommandResult], tmp_path: Path) -> None:
    root = write_plain_set(tmp_path / "set", [plain_episode(n, length=10) for n in range(3)])
    flags = np.arange(30) == 19  # the last frame of episode 1
    change_data(root, lambda table: with_column(table, "next.success", pa.array(flags)))
    features = json.loads((root / "meta/info.json").read_text())["features"]
    change_info(root, features=features | {"next.success": {"dtype": "bool", "shape": [1], "names": None}})
    done = actwright("ingest", str(root))
    assert done.code == 0, done.stderr
    assert done.result is not None
    assert (done.result["episodes"], done.result["not_successful"], done.result["success_unknown"]) == (1, 2, 0)
    assert mark_of(taken(tmp_path).episode(0).images["front"][0])[0] == 1


def test_another_rate_and_another_body_are_refused_before_work_is_spent(actwright: Callable[..., CommandResult], tmp_path: Path) -> None:
    made = [plain_episode(n, length=10) for n in range(2)]
    root = write_plain_set(tmp_path / "set", made, PlainLayout(fps=30))
    done = actwright("ingest", str(root))
    assert done.code != 0
    assert "control_hz: expected 20 as the body 'metaworld-sawyer' of the recipe, got 30" in done.stderr
    assert "Fix:" in done.stderr
    turned = replace(BODY, gripper_open=1.0, gripper_range=(-1.0, 1.0))
    with DatasetWriter(tmp_path / "turned", turned) as writer:
        writer.add(own_episode(0, "drawer-close-v3"))
    done = actwright("ingest", str(tmp_path / "turned"))
    assert done.code != 0
    assert "turned/meta/actwright.json: gripper_open: expected -1 as the body 'metaworld-sawyer' of the recipe, got 1" in done.stderr


def test_what_is_converted_and_what_has_one_sentence_is_told(actwright: Callable[..., CommandResult], tmp_path: Path) -> None:
    swapped = replace(BODY, cameras=(replace(BODY.cameras[0], color="bgr"),))
    with DatasetWriter(tmp_path / "set", swapped) as writer:
        for number, task in enumerate(("drawer-close-v3", "drawer-shut")):
            one = own_episode(number, task)
            writer.add(replace(one, images={"front": np.ascontiguousarray(one.images["front"][..., ::-1])}))
    done = actwright("ingest", str(tmp_path / "set"))
    assert done.code == 0, done.stderr
    assert "converted in 2 episodes: channel order: cameras[0].color: 'bgr' is converted to 'rgb'" in done.stderr
    assert "2 tasks are asked for with one sentence, 'close the green drawer': 'drawer-close-v3', 'drawer-shut'" in done.stderr
    assert mark_of(taken(tmp_path).episode(1).images["front"][3]) == (1, 3)
