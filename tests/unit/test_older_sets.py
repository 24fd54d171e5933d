"""LeRobot v2.0 and v2.1 folders, and images in rows or files: the same frames, actions and sentences as in the newest layout.

Run: .venv/bin/python -m pytest tests/unit/test_older_sets.py
"""

import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.data.inspection.dataset import dataset_findings
from components.data.lerobot.reader import DatasetReader
from components.data.sources.open import open_raw
from model_core.spec.errors import DatasetError
from tests.older_set import write_older_set
from tests.plain_set import CLOSE, OPEN, mark_of, plain_episode, with_column

SIZE, LENGTHS = 32, (10, 8, 9)
MADE = [plain_episode(n, length=length, size=SIZE, task=(CLOSE, OPEN)[n % 2]) for n, length in enumerate(LENGTHS)]
KEY = "observation.images.front"


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    return write_older_set(tmp_path_factory.mktemp("older") / "set", MADE)


@pytest.fixture
def copy(older, tmp_path):
    return shutil.copytree(older, tmp_path / "set")


def data_file(root, number):
    return next(root.glob(f"data/*/episode_{number:06d}.parquet"))


def are_right(root):
    reader = DatasetReader(root)
    assert [row.length for row in reader.rows] == list(LENGTHS)
    for row, made in zip(reader.rows, MADE, strict=True):
        read = reader.episode(row.index)
        assert [mark_of(frame) for frame in read.images["front"]] == [(row.number, step) for step in range(len(made))]
        assert np.array_equal(read.actions_TA, made.actions_TA)
        assert np.array_equal(read.proprio_TP, made.state_TP)
        assert read.instruction == made.tasks[0]
    reader.close()


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
@pytest.mark.parametrize("images", ["films", "bytes", "files"])
def test_every_frame_action_and_sentence_is_the_one_that_was_written(tmp_path, version, images):
    are_right(write_older_set(tmp_path / "set", MADE, images=images, codebase_version=version))


def test_an_image_column_of_the_newest_layout_is_read(tmp_path, older):
    """Episodes share one file there, in row groups that do not begin where episodes do."""
    root = write_older_set(tmp_path / "set", MADE, images="bytes")
    table = pa.concat_tables([pq.read_table(data_file(root, n)) for n in range(len(MADE))])
    starts = np.cumsum([0, *LENGTHS]).tolist()
    rows = [
        {
            "episode_index": n,
            "tasks": [made.tasks[0]],
            "length": len(made),
            "data/chunk_index": 0,
            "data/file_index": 0,
            "dataset_from_index": starts[n],
            "dataset_to_index": starts[n + 1],
        }
        for n, made in enumerate(MADE)
    ]
    shutil.rmtree(root / "data")
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(table, root / "data/chunk-000/file-000.parquet", row_group_size=6)
    pq.write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.table({"task_index": [0, 1], "task": [CLOSE, OPEN]}), root / "meta/tasks.parquet")
    info = json.loads((root / "meta/info.json").read_text())
    info |= {"codebase_version": "v3.0", "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"}
    (root / "meta/info.json").write_text(json.dumps(info))
    are_right(root)


def test_statistics_of_episodes_are_not_asked_for(older):
    assert not dataset_findings(DatasetReader(older))


def test_the_protocol_reads_it_and_names_what_nobody_described(older):
    source = open_raw(older)
    assert source.name == "set"
    assert len(source.digest) == 64
    with pytest.raises(DatasetError, match=r"does not describe the embodiment.*Fix: name an embodiment file"):
        _ = source.embodiment


def test_a_damaged_line_and_an_episode_twice_are_named(copy):
    path = copy / "meta/episodes.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[0]]))
    with pytest.raises(DatasetError, match="line 4: episode 0 is listed twice"):
        DatasetReader(copy)
    path.write_text("\n".join([lines[0], lines[1][:-5]]))
    with pytest.raises(DatasetError, match=r"episodes.jsonl, line 2 is not JSON"):
        DatasetReader(copy)


def test_an_episode_whose_rows_are_gone_is_named(copy):
    path = data_file(copy, 1)
    pq.write_table(pq.read_table(path).slice(0, 5), path)
    with pytest.raises(DatasetError, match="lists 3 episodes and 27 frames, the data files hold 24 frames"):
        _ = DatasetReader(copy).rows


def test_a_film_of_another_length_costs_only_its_episode(copy):
    films = sorted(copy.rglob("*.mp4"))
    shutil.copyfile(films[0], films[1])
    reader = DatasetReader(copy)
    assert reader.episode(0).images["front"].shape == (10, SIZE, SIZE, 3)
    with pytest.raises(DatasetError, match="holds 10 pictures from frame 0, its episodes take frames 0 to 7"):
        reader.episode(1)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ({"bytes": None, "path": None}, "holds no image"),
        ({"bytes": b"no image", "path": None}, "is no readable image"),
        ({"bytes": None, "path": "../../secret.png"}, "expected one inside the data set"),
        ({"bytes": None, "path": "images/nowhere.png"}, r"images/nowhere\.png cannot be read"),
        ("sixteen bits", "mode I;16, expected 8 bits"),
        ("larger", r"is an image of \(40, 40\), expected \(32, 32\)"),
    ],
)
def test_an_image_that_cannot_be_shown_is_named_by_its_row(tmp_path, cell, words):
    root = write_older_set(tmp_path / "set", MADE, images="bytes")
    if isinstance(cell, str):
        pixels = np.zeros((40, 40), np.uint16) if cell == "sixteen bits" else np.zeros((40, 40, 3), np.uint8)
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "PNG")
        cell = {"bytes": sink.getvalue(), "path": None}
    path = data_file(root, 1)
    table = pq.read_table(path)
    cells = table[KEY].to_pylist()
    cells[4] = cell
    pq.write_table(with_column(table, KEY, pa.array(cells, table[KEY].type)), path)
    reader = DatasetReader(root)
    with pytest.raises(DatasetError, match=words) as told:
        reader.episode(1)
    assert "row 4" in str(told.value)
    assert "Fix:" in str(told.value)
    assert reader.episode(0).images["front"].shape[1:] == (SIZE, SIZE, 3)
