"""Recordings of cells as a source of a recipe: read where they are, of one embodiment, and nothing is left out without a word.

Run: .venv/bin/python -m pytest tests/unit/test_recordings_source.py -n 0
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.config.data_config import FreezeConfig
from components.config.records import Silent
from components.config.source_config import SourceConfig, source_opener
from components.data.freeze import freeze
from components.data.frozen_dataset import read_frozen
from components.data.sources import raw_index
from components.data.sources.joined import JoinedSource
from components.data.sources.open import open_raw
from components.data.sources.recordings import RecordingsSource, open_recordings
from components.data.sources.unlabelled import hand_on
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import Episode, Provenance
from model_core.spec.errors import DatasetError, SpecError
from model_core.spec.protocol.wire import decode_episode, encode_episode
from serving.workcell.robot.episode_recorder import recording_into, write_episode
from tests.episodes import BODY, episode, write_dataset

CELL = Provenance(producer="policy:button/3", cell="cell-a", seed=1)


def recorded(number: int, body: EmbodimentSpec | None = BODY, **changes: Any) -> Episode:
    return replace(episode(number), episode_id=f"run-{number}", provenance=CELL, body=body, **changes)


def spool(folder: Path, *episodes: Episode) -> Path:
    for one in episodes:
        write_episode(folder, one)
    return folder


def config(folder: Path, **changes: Any) -> SourceConfig:
    settings: dict[str, Any] = {"name": "cells", "kind": "recordings", "path": str(folder), **changes}
    return SourceConfig(**settings)


def opened(folder: Path, **changes: Any) -> RecordingsSource:
    return open_recordings(config(folder, **changes))


def test_a_recording_is_an_episode_of_the_robot_that_it_names(tmp_path: Path) -> None:
    assert source_opener("recordings") == "components.data.sources.recordings:open_recordings"
    meant = [recorded(number) for number in range(3)]
    source = opened(spool(tmp_path, *meant))
    assert source.embodiment == BODY
    assert [(row.index, row.number, row.episode_id, row.length, row.start) for row in source.rows] == [
        (n, n, f"run-{n}", 12, 12 * n) for n in range(3)
    ]
    assert source.rows[1].provenance == CELL
    read = source.episode(1)
    assert np.array_equal(read.images["front"], meant[1].images["front"])
    assert np.array_equal(read.depth_m["front"], meant[1].depth_m["front"])
    assert np.array_equal(read.actions_TA, meant[1].actions_TA)
    assert read.body is None, "it is in the terms of the source now"
    light = source.episode(1, images=False, depth=False)
    assert (dict(light.images), dict(light.depth_m)) == ({}, {})
    assert np.array_equal(light.proprio_TP, meant[1].proprio_TP)
    assert source.notes == ()


def test_reading_without_images_checks_every_byte_all_the_same(tmp_path: Path) -> None:
    data = bytearray(encode_episode(recorded(0)))
    assert len(decode_episode(bytes(data), images=False, depth=False).images) == 0
    data[-40] ^= 1
    (tmp_path / "bad.episode").write_bytes(bytes(data))
    spool(tmp_path, recorded(1))
    source = opened(tmp_path)
    assert [row.episode_id for row in source.rows] == ["run-1"]
    (told,) = source.notes
    assert told.startswith("cells: bad.episode cannot be read and is left out (the recorded episode is damaged")


def test_failures_and_copies_are_left_out_and_counted(tmp_path: Path) -> None:
    spool(tmp_path / "monday", recorded(0), recorded(1, success=False), recorded(2, success=None))
    shutil.copytree(tmp_path / "monday", tmp_path / "monday-again")
    source = opened(tmp_path)
    assert [row.episode_id for row in source.rows] == ["run-0", "run-2"]
    assert source.notes == ("cells: 1 recordings are left out: did not solve its task", "cells: 3 recordings are left out: there already")
    everything = opened(tmp_path, options={"keep_failures": True})
    assert [row.success for row in everything.rows] == [True, False, None]
    sure = opened(tmp_path, options={"only_successful": True})
    assert [row.episode_id for row in sure.rows] == ["run-0"]
    assert "its recording does not say how it ended" in " ".join(sure.notes)


def test_the_recipe_selects_by_number_id_and_task(tmp_path: Path) -> None:
    spool(tmp_path, *(recorded(number) for number in range(4)))
    assert [row.number for row in opened(tmp_path, include=("0:2", "run-3")).rows] == [0, 1, 3]
    source = opened(tmp_path, tasks=("close the green drawer",))
    assert [row.task for row in source.rows] == ["drawer-close-v3"] * 2
    assert source.episode(1, images=False).episode_id == "run-3"
    assert source.notes == ("cells: 2 recordings are left out: by include or tasks",)
    with pytest.raises(DatasetError, match=r"none of 4 recordings is used: by include or tasks \(4x\)"):
        opened(tmp_path, include=("0",), tasks=("close the green drawer",))


def test_the_digest_is_of_what_is_used(tmp_path: Path) -> None:
    spool(tmp_path / "here", recorded(0), recorded(1))
    spool(tmp_path / "there", recorded(0), recorded(1), recorded(2))
    assert opened(tmp_path / "here").digest == opened(tmp_path / "there", include=("0:2",), name="x", weight=2.0).digest
    assert opened(tmp_path / "here").digest != opened(tmp_path / "there").digest


def test_units_and_names_of_a_cell_become_those_of_the_embodiment(tmp_path: Path) -> None:
    dims = tuple(replace(d, unit="mm", low=1000 * d.low, high=1000 * d.high) if d.unit == "m" else d for d in BODY.proprio.dims)
    other = replace(BODY, proprio=replace(BODY.proprio, dims=dims))
    first = recorded(0)
    factor = np.array([1000, 1000, 1000, 1], np.float32)
    spool(tmp_path, first, recorded(1, other, proprio_TP=episode(1).proprio_TP * factor))
    source = opened(tmp_path)
    assert source.episode(1).proprio_TP == pytest.approx(episode(1).proprio_TP, rel=1e-6)
    assert len(source.notes) == 3
    assert "unit scale: proprio.dims[0].unit: 'mm' is converted to 'm' (1 recordings)" in source.notes[0]


OTHER = [
    (replace(BODY, control_hz=10.0), "control_hz: expected 20"),
    (replace(BODY, gripper_open=1.0, gripper_range=(-1.0, 1.0)), "gripper_open: expected -1"),
    (replace(BODY, action=replace(BODY.action, mode="absolute")), "action.mode: expected 'delta'"),
]


@pytest.mark.parametrize(("stated", "words"), OTHER)
def test_recordings_under_another_contract_are_refused(tmp_path: Path, stated: EmbodimentSpec, words: str) -> None:
    spool(tmp_path, recorded(0), recorded(1), recorded(2, stated))
    with pytest.raises(DatasetError, match=r"1 of 3 recordings were made under a contract with another embodiment; run-2\.episode") as told:
        opened(tmp_path)
    assert words in str(told.value)
    assert "Fix:" in str(told.value)
    assert len(opened(tmp_path, include=("0:2",)).rows) == 2


def test_another_robot_is_refused_by_name(tmp_path: Path) -> None:
    spool(tmp_path, recorded(0), recorded(1, replace(BODY, name="arm-b"), embodiment="arm-b"))
    with pytest.raises(DatasetError, match=r"1 of 2 recordings are of another robot than 'metaworld-sawyer', such as 'run-1' of 'arm-b'"):
        opened(tmp_path)


def test_what_is_no_folder_of_recordings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"nothing is recorded in .*empty .*Fix: name the folder"):
        opened(tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"got a LeRobot data set at .*a data set is a source of kind 'lerobot'"):
        opened(write_dataset(tmp_path / "set", [episode(0)]))
    spool(tmp_path / "old", recorded(0, None))
    with pytest.raises(DatasetError, match=r"no recording says what robot recorded it.*Fix: name an embodiment file"):
        opened(tmp_path / "old")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/a.episode").write_bytes(b"ACTWEPIS")
    with pytest.raises(DatasetError, match=r"none of 1 recordings can be read; the first, a.episode: .*Fix:"):
        opened(tmp_path / "torn")
    spool(tmp_path / "two/a", recorded(0))
    spool(tmp_path / "two/b", recorded(0, executed_TA=episode(0).actions_TA))
    with pytest.raises(DatasetError, match="both hold an episode 'run-0' and differ"):
        opened(tmp_path / "two")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stride": 2}, "Fix: leave stride out"),
        ({"cameras": {"front": "a"}}, "Fix: leave cameras out"),
        ({"options": {"keep_failure": True}}, "unknown option 'keep_failure', expected keep_failures or only_successful"),
        ({"options": {"keep_failures": "yes"}}, "expected true or false, got 'yes'"),
    ],
)
def test_settings_that_recordings_do_not_have_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    spool(tmp_path, recorded(0))
    with pytest.raises(SpecError, match=words):
        opened(tmp_path, **changes)


def test_a_folder_that_a_cell_still_writes_into_is_refused(tmp_path: Path) -> None:
    spool(tmp_path, recorded(0))
    with recording_into(tmp_path, "cell a/1"), pytest.raises(DatasetError, match=r"a cell still records into .*\(\.cell-a-1\.recording\)"):
        opened(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-0.episode"]
    assert len(opened(tmp_path).rows) == 1
    (tmp_path / ".cell-a.recording").touch()  # of a cell that was killed: nobody holds it
    assert len(opened(tmp_path).rows) == 1
    half = tmp_path / ".run-1.episode.12.34.tmp"
    half.write_bytes(b"ACTW")
    with pytest.raises(DatasetError, match=r"a cell still records into .*Fix: end the cell first"):
        opened(tmp_path)


def test_a_folder_that_cannot_be_written_does_not_stop_a_cell(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with recording_into(tmp_path / "file", "cell-a"):
        pass


def test_a_recording_that_changes_or_goes_is_seen(tmp_path: Path) -> None:
    spool(tmp_path, recorded(0), recorded(1))
    source = opened(tmp_path)
    write_episode(tmp_path, recorded(0, success=None))
    with pytest.raises(DatasetError, match=r"recording run-0.episode was changed while it was in use"):
        source.episode(0)
    (tmp_path / "run-1.episode").unlink()
    with pytest.raises(DatasetError, match=r"recording run-1.episode cannot be read .*Fix: restore it"):
        source.episode(1)


def test_recordings_stand_beside_a_data_set_and_are_frozen(tmp_path: Path) -> None:
    sources = [
        config(spool(tmp_path / "spool", *(recorded(n) for n in range(10, 14)))),
        SourceConfig(name="bench", path=str(write_dataset(tmp_path / "set", [episode(n) for n in range(4)])), weight=2.0),
    ]
    record = raw_index.write_index(sources, tmp_path / "raw", Silent())
    assert record["producers"] == {"policy:button/3": 4, "expert:test": 4}
    raw_index.keep_places(tmp_path / "raw", sources)
    raw = tmp_path / "raw/dataset"
    assert isinstance(open_raw(raw), JoinedSource)
    hand_on(open_raw(raw).rows, tmp_path / "labels")
    freeze(FreezeConfig(name="own", validation_fraction=0.2, chunk_length=4), raw, tmp_path / "labels", tmp_path / "out", Silent())
    manifest, contract = read_frozen(tmp_path / "out")
    assert contract.embodiment == BODY
    assert sorted(set(manifest["sources"])) == ["expert:test", "policy:button/3"]
    spool(tmp_path / "spool", recorded(20))
    with pytest.raises(DatasetError, match=r"'cells' at .* was changed after its index was made"):
        open_raw(raw)
