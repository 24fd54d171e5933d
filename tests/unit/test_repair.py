"""What a crashed recorder left becomes a whole set again: every kept frame is its own, and what was given up is said."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.config.records import Silent
from components.data.editing.repair.footer import read_without_footer
from components.data.editing.repair.rebuild import repair
from components.data.lerobot.reader import DatasetReader, dataset_digest
from components.data.lerobot.stale_statistics import stale_statistics
from model_core.spec.errors import DatasetError
from tests.older_set import write_older_set
from tests.plain_set import PlainEpisode, change_data, change_rows, mark_of, plain_episode, write_film, write_plain_set

FILM = "videos/observation.images.front/chunk-000/file-000.mp4"


@pytest.fixture
def episodes() -> list[PlainEpisode]:
    return [plain_episode(n, length=6 + n) for n in range(3)]


@pytest.fixture
def root(tmp_path, episodes) -> Path:
    return write_plain_set(tmp_path / "broken", episodes)


def lose_footer(root: Path, lost_bytes: int = 0) -> None:
    """The data file as a killed recorder leaves it: a row group an episode, and nothing behind them."""
    path = root / "data/chunk-000/file-000.parquet"
    table, sink = pq.read_table(path), io.BytesIO()
    writer = pq.ParquetWriter(sink, table.schema, compression="snappy")
    for number in range(3):
        writer.write_table(table.filter(pc.equal(table["episode_index"], number)))
    path.write_bytes(sink.getvalue()[: len(sink.getvalue()) - lost_bytes])


def repaired(root: Path, tmp_path: Path):
    before = dataset_digest(root)
    told = repair(root, tmp_path / "whole", Silent())
    assert dataset_digest(root) == before
    reader = DatasetReader(tmp_path / "whole")
    assert stale_statistics(reader) == []
    assert dataset_digest(tmp_path / "whole") == told.result
    return told, reader


def marks(reader: DatasetReader) -> list[tuple[int, int, int]]:
    """(old episode, first step, frames) of every episode, by what its images show; every image must be its step's."""
    found = []
    for row in reader.rows:
        seen = [mark_of(frame) for frame in reader.episode(row.index).images["front"]]
        assert [step for _, step in seen] == list(range(seen[0][1], seen[0][1] + row.length))
        assert len({episode for episode, _ in seen}) == 1
        found.append((*seen[0], row.length))
    return found


def test_a_recorder_that_never_finalized_loses_nothing_that_was_written(root, tmp_path, episodes):
    lose_footer(root)
    shutil.rmtree(root / "meta/episodes")
    with pytest.raises(DatasetError):
        _ = DatasetReader(root).rows
    told, reader = repaired(root, tmp_path)
    assert marks(reader) == [(0, 0, 6), (1, 0, 7), (2, 0, 8)]
    assert told.given_up == ()
    assert any("footer was missing, 21 rows" in line for line in told.restored)
    for index, one in enumerate(episodes):
        assert np.array_equal(reader.episode(index).actions_TA, one.actions_TA)
        assert np.array_equal(reader.episode(index).images["front"], one.frames_THW3)
    assert (tmp_path / "whole" / FILM).read_bytes() == (root / FILM).read_bytes()


def test_half_an_episode_at_the_end_is_given_up_and_its_frames_are_told(root, tmp_path):
    lose_footer(root, lost_bytes=300)
    shutil.rmtree(root / "meta/episodes")
    told, reader = repaired(root, tmp_path)
    assert marks(reader) == [(0, 0, 6), (1, 0, 7)]
    assert told.given_up == ("file-000.mp4 of observation.images.front: its last 8 frames, which have no rows",)


def test_a_list_of_episodes_that_is_shorter_than_the_data_is_completed(root, tmp_path):
    change_rows(root, lambda row: row if row["episode_index"] < 2 else None)
    told, reader = repaired(root, tmp_path)
    assert marks(reader) == [(0, 0, 6), (1, 0, 7), (2, 0, 8)]
    assert any("lists 2 episodes; 1 more were found" in line for line in told.restored)


def test_a_gap_among_the_rows_keeps_the_longest_run_with_its_own_frames(root, tmp_path):
    change_data(root, lambda table: table.filter(~np.isin(np.arange(table.num_rows), [8, 9])))  # of episode 1: frames 2 and 3
    told, reader = repaired(root, tmp_path)
    assert marks(reader) == [(0, 0, 6), (1, 4, 3), (2, 0, 8)]
    assert told.given_up == (
        "episode 1: rows are missing among its frames 0 to 6; frames 4 to 6 are kept, 2 rows before or after them are not",
    )


def test_a_gap_among_the_episodes_is_closed_where_their_frames_are_known(root, tmp_path):
    change_data(root, lambda table: table.filter(pc.not_equal(table["episode_index"], 1)))
    _, reader = repaired(root, tmp_path)
    assert marks(reader) == [(0, 0, 6), (2, 0, 8)]
    assert [row.number for row in reader.rows] == [0, 1]


def test_frames_that_could_be_a_neighbours_are_not_guessed(root, tmp_path):
    change_data(root, lambda table: table.filter(pc.not_equal(table["episode_index"], 1)))
    shutil.rmtree(root / "meta/episodes")
    told, reader = repaired(root, tmp_path)
    assert marks(reader) == [(0, 0, 6)]
    assert any("episode 2: 8 rows; which frames of observation.images.front are its own cannot be told" in line for line in told.given_up)


@pytest.mark.parametrize(("frames", "kept"), [(18, [(0, 0, 6), (1, 0, 7), (2, 0, 5)]), (14, [(0, 0, 6), (1, 0, 7)]), (24, None)])
def test_a_film_that_is_shorter_or_longer_than_the_rows(root, tmp_path, episodes, frames, kept):
    pictures = np.concatenate([one.frames_THW3 for one in episodes] + [episodes[0].frames_THW3[:3]])
    write_film(root / FILM, pictures[:frames], 20)
    told, reader = repaired(root, tmp_path)
    assert marks(reader) == (kept or [(0, 0, 6), (1, 0, 7), (2, 0, 8)])
    assert told.given_up


def test_tasks_are_taken_from_the_list_of_episodes_where_their_table_is_lost(root, tmp_path):
    (root / "meta/tasks.parquet").unlink()
    _, reader = repaired(root, tmp_path)
    assert {row.instruction for row in reader.rows} == {"close the green drawer"}
    shutil.rmtree(root / "meta/episodes")
    with pytest.raises(DatasetError, match="its task is not known"):
        repair(root, tmp_path / "nothing", Silent())
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("frames", [5, 9])
def test_a_version_2_1_set_with_a_torn_line_and_films_of_other_lengths(tmp_path, episodes, frames):
    root = write_older_set(tmp_path / "older", episodes)
    lines = root / "meta/episodes.jsonl"
    lines.write_text(lines.read_text()[:-20])
    film = next((root / "videos").rglob("episode_000001.mp4"))
    write_film(film, np.concatenate([episodes[1].frames_THW3, episodes[0].frames_THW3[:2]])[:frames], 20)
    next((root / "videos").rglob("episode_000000.mp4")).write_bytes(b"no film")
    told, reader = repaired(root, tmp_path)
    assert marks(reader) == [(1, 0, min(frames, 7)), (2, 0, 8)]
    assert any("episode 0: 6 rows, camera front has no frames of it" in line for line in told.given_up)


def test_nothing_is_rebuilt_of_nothing_and_never_into_a_folder_that_is_there(root, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(DatasetError, match="there already"):
        repair(root, tmp_path / "there", Silent())
    shutil.rmtree(root / "data")
    with pytest.raises(DatasetError, match="not one row is left"):
        repair(root, tmp_path / "whole", Silent())
    info = json.loads((root / "meta/info.json").read_text())
    assert info["total_episodes"] == 3


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
@pytest.mark.parametrize("rows", [3, 6000])
def test_rows_are_read_from_the_pages_of_a_file_without_a_footer(compression, rows):
    rng = np.random.default_rng(5)
    parts = [
        pa.table(
            {
                "observation.state": pa.FixedSizeListArray.from_arrays(rng.normal(size=6 * (rows + n)).astype(np.float32), 6),
                "frame_index": np.arange(rows + n),
                "note": ["said"] * (rows + n),
                "next.done": rng.random(rows + n) > 0.5,
            }
        )
        for n in range(3)
    ]
    sink = io.BytesIO()
    writer = pq.ParquetWriter(sink, parts[0].schema, compression=compression)
    for part in parts:
        writer.write_table(part)
    whole = read_without_footer(sink.getvalue(), parts[0].schema)
    torn = read_without_footer(sink.getvalue()[:-30], parts[0].schema)
    assert whole is not None
    assert whole.equals(pa.concat_tables(parts))
    assert torn is not None
    assert torn.equals(pa.concat_tables(parts[:2]))
    assert read_without_footer(b"PAR1" + b"\0" * 100, parts[0].schema) is None
    assert read_without_footer(b"", parts[0].schema) is None
