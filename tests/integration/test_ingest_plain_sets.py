"""`actwright ingest` of another writer's set: what cannot be right is refused with exit code 1 and words that say what to do.

Run: .venv/bin/python -m pytest tests/integration/test_ingest_plain_sets.py
"""

import pytest

from flows.terminal.output import OUR_ERROR
from tests.plain_set import change_info, change_rows, plain_episode, write_plain_set

pytestmark = pytest.mark.xdist_group("forked")
FROM = "videos/observation.images.front/from_timestamp"


def older(root):
    change_info(root, codebase_version="v2.1")


def swapped(root):
    starts = {1: 20, 2: 10}
    change_rows(
        root,
        lambda row: (
            row | ({"dataset_from_index": starts[n], "dataset_to_index": starts[n] + 10} if (n := row["episode_index"]) in starts else {})
        ),
    )


def drifted(root):
    change_rows(root, lambda row: row | {FROM: row[FROM] + 0.03 * row["episode_index"]})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (older, ("LeRobot v2.1 data set, but its files are those of v3.0", "Fix: set codebase_version")),
        (swapped, ("episode 1 of meta/episodes begins at row 20", "is frame 0 of episode 2", "Fix:")),
        (drifted, ("episode 1 begins in the film", "which is frame 10.600", "Fix:")),
    ],
    ids=["v2.1", "starts exchanged", "starts that drift"],
)
def test_a_set_that_cannot_be_right_is_refused_before_anything_is_taken_in(server, tmp_path, change, words):
    root = write_plain_set(tmp_path / "set", [plain_episode(n, length=10) for n in range(4)])
    change(root)
    done = server.run("ingest", str(root), under=tmp_path)
    assert (done.code, done.said) == (OUR_ERROR, "")
    told = " ".join(done.told.split())
    for word in words:
        assert word in told
    assert "Traceback" not in told
    assert not list((tmp_path / "home").glob("store/*/*/dataset"))
