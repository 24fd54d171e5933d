"""Whether an episode solved its task: read from wherever a set says it, unknown where it does not, refused where two places disagree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.data.lerobot.reader import DatasetReader
from components.data.lerobot.success import stated_success
from model_core.spec.errors import DatasetError
from tests.plain_set import change_data, change_info, change_rows, plain_episode, with_column, write_plain_set

FLAG = {"dtype": "bool", "shape": [1], "names": None}


def plain(root: Path, episodes: int = 3) -> Path:
    return write_plain_set(root / "set", [plain_episode(n, length=10) for n in range(episodes)])


def add_frame_flags(root: Path, name: str, values: pa.Array) -> None:
    change_data(root, lambda table: with_column(table, name, values))
    features = json.loads((root / "meta/info.json").read_text())["features"]
    change_info(root, features=features | {name: FLAG})


def successes(root: Path) -> list[bool | None]:
    return [row.success for row in DatasetReader(root).rows]


def test_a_set_that_says_nothing_leaves_it_unknown(tmp_path: Path) -> None:
    root = plain(tmp_path)
    assert successes(root) == [None, None, None]
    assert DatasetReader(root).episode(1).success is None


@pytest.mark.parametrize("name", ["next.success", "is_episode_successful"])
def test_flags_of_frames_are_read(tmp_path: Path, name: str) -> None:
    root = plain(tmp_path)
    flags = np.zeros(30, bool)
    flags[[9, 25]] = True  # the last frame of episode 0, one in the middle of episode 2
    add_frame_flags(root, name, pa.array(flags))
    assert successes(root) == [True, False, True]


def test_frames_without_a_flag_leave_it_unknown(tmp_path: Path) -> None:
    root = plain(tmp_path)
    add_frame_flags(root, "next.success", pa.array([None] * 10 + [1.0] * 10 + [float("nan")] * 10, pa.float32()))
    assert successes(root) == [None, True, None]


def test_a_column_of_the_episodes_is_read(tmp_path: Path) -> None:
    root = plain(tmp_path)
    change_rows(root, lambda row: row | {"success": (True, False, None)[row["episode_index"]]})
    assert successes(root) == [True, False, None]


def test_two_places_that_disagree_are_refused(tmp_path: Path) -> None:
    root = plain(tmp_path)
    add_frame_flags(root, "next.success", pa.array(np.arange(30) == 9))
    change_rows(root, lambda row: row | {"success": True})
    with pytest.raises(
        DatasetError, match=r"episode 1: whether it solved .*meta/episodes success says solved, frames next.success says not solved.*Fix:"
    ):
        successes(root)


@pytest.mark.parametrize("value", ["yes", 0.7, [1, 0, 2]])
def test_what_is_no_flag_is_refused(value: object) -> None:
    with pytest.raises(DatasetError, match=r"set: episode 4: success holds .*expected true or false.*Fix:"):
        stated_success("set: episode 4", {"success": value})
