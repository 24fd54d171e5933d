"""Two tasks that are asked for with one sentence are named, and one task in two sources is not two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from components.config.records import Silent
from components.data.ingest import IngestOptions, ingest
from components.data.inspection.sentences import shared_sentences, told
from components.data.lerobot.reader import DatasetReader
from tests.episodes import BODY, episode, write_dataset


@pytest.mark.parametrize(
    ("asked", "shared"),
    [
        ([("a", "pick the cube"), ("b", "push it")], {}),
        ([("a", "pick the cube"), ("b", "Pick the  cube.")], {"pick the cube": ["a", "b"]}),
        ([("pick the cube", "pick the cube"), ("pick cube", "pick the cube")], {}),  # one source names the task, the other does not
        ([("pick cube", "pick cube"), ("pick cube ", "pick cube ")], {"pick cube": ["pick cube", "pick cube "]}),
        ([("task_index 0", "pick"), ("task_index 3", "pick")], {"pick": ["task_index 0", "task_index 3"]}),
    ],
)
def test_sentences_of_two_tasks(asked: list[tuple[str, str]], shared: dict[str, list[str]]) -> None:
    assert shared_sentences(asked) == shared
    assert all("A policy cannot tell them apart" in line for line in told(shared))


def test_a_recording_without_a_task_name_has_that_of_its_sentence(tmp_path: Path) -> None:
    named = write_dataset(tmp_path / "named", [episode(1)])
    unnamed = replace(episode(3), task="Close the green drawer.", instruction="Close the green drawer.")
    plain = write_dataset(tmp_path / "plain", [unnamed])
    options = IngestOptions(embodiment=BODY, tasks=("drawer-close-v3",))
    record = ingest([named, plain], tmp_path / "out", Silent(), options)
    assert (record["episodes"], record["other_tasks"], record["shared_sentences"]) == (2, 0, {})
    assert [row.task for row in DatasetReader(tmp_path / "out/dataset").rows] == ["drawer-close-v3"] * 2
