"""Edits of data sets: nothing is changed in place, contents decide, and what does not fit is refused with what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.config.source_config import SourceConfig, source_opener
from components.data.editing.catalogue import Catalogue
from components.data.editing.difference import difference, ranges
from components.data.editing.edit import read_edit, write_edit
from components.data.editing.fingerprint import fingerprint
from components.data.editing.merging import check_mergeable, merge_parameters
from components.data.editing.opener import open_edited
from components.data.editing.operations import pieces_of
from components.data.editing.parameters import Labels, Relabel, Select, Split, Trim
from components.data.lerobot.reader import DatasetReader, dataset_digest
from model_core.spec.errors import DatasetError
from tests.episodes import episode, write_dataset
from tests.plain_set import OPEN, plain_episode, write_plain_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    write_dataset(root / "ours", [episode(n, length=8 + n) for n in range(6)])
    write_dataset(root / "more", [episode(n, length=8 + n) for n in range(4, 9)])
    write_plain_set(root / "plain", [plain_episode(n, task=OPEN, length=9) for n in range(2)])
    return root


@pytest.fixture
def edits(folder, tmp_path) -> Catalogue:
    return Catalogue(tmp_path / "edits", seen=tmp_path / "seen")


def make(edits: Catalogue, name: str, operation: str, sets: list[str], parameters: object):
    path = edits.path_of(name)
    opened = [edits.open(one) for one in sets]
    write_edit(path, edits.new_edit(operation, opened, parameters, at=path, who="ana", why="a test"))
    return edits.open(name).source


def test_a_chain_of_edits_reads_as_one_source_and_changes_no_file(folder, edits):
    before = dataset_digest(folder / "ours")
    make(edits, "first", "select", [str(folder / "ours")], Select(episodes=("0:4",)))
    make(edits, "short", "trim", ["first"], Trim(head=2, tail=1, keep={"square-0003": (0, 5)}))
    words = make(edits, "words", "relabel", ["short"], Relabel(instructions={"push the button": "press it"}))
    assert [row.length for row in words.rows] == [5, 6, 7, 5]
    assert [row.start for row in words.rows] == [0, 5, 11, 18]
    one, whole = words.episode(2), episode(2, length=10)
    assert one.instruction == "press it" == words.rows[2].instruction
    assert one.task == whole.task
    assert np.array_equal(one.actions_TA, whole.actions_TA[2:9])
    assert np.array_equal(one.images["front"], whole.images["front"][2:9])
    assert np.array_equal(one.depth_m["front"], whole.depth_m["front"][2:9])
    assert one.timestamps_T[0] == 0
    assert one.geometry["front"].width == 32
    assert dataset_digest(folder / "ours") == before


def test_the_digest_of_an_edit_names_contents_and_not_paths_people_or_times(folder, tmp_path):
    (tmp_path / "moved").symlink_to(folder / "ours")
    digests = set()
    for number, place in enumerate((folder / "ours", tmp_path / "moved")):
        edits = Catalogue(tmp_path / f"edits-{number}", seen=tmp_path / f"seen-{number}")
        digests.add(make(edits, f"name-{number}", "select", [str(place)], Select(episodes=("1",))).digest)
    other = make(edits, "other", "select", [str(folder / "ours")], Select(episodes=("2",)))
    assert len(digests) == 1
    assert other.digest not in digests


def test_an_edit_is_written_once_and_never_changed(folder, edits):
    path = edits.path_of("one")
    opened = [edits.open(str(folder / "ours"))]
    edit = edits.new_edit("select", opened, Select(episodes=("1",)), at=path, who="ana", why="a test")
    assert write_edit(path, edit)
    assert not write_edit(path, edit)
    assert read_edit(path) == edit
    with pytest.raises(DatasetError, match=r"another edit already.*--as"):
        write_edit(path, edits.new_edit("select", opened, Select(episodes=("2",)), at=path, who="ana", why="a test"))
    with pytest.raises(DatasetError, match="needs its reason"):
        edits.new_edit("select", opened, Select(), at=path, who="ana", why=" ")


def test_a_parent_whose_contents_changed_is_refused(tmp_path):
    root = write_dataset(tmp_path / "set", [episode(0), episode(1)])
    edits = Catalogue(tmp_path / "edits", seen=tmp_path / "seen")
    make(edits, "one", "select", [str(root)], Select(episodes=("1",)))
    info = root / "meta" / "info.json"
    info.write_text(info.read_text().replace('"splits"', '"divisions"'))
    with pytest.raises(DatasetError, match=r"set, from which one\.yaml was made, has changed.*dvc checkout"):
        edits.open("one")


def test_conditions_of_select_hold_together_and_leave_out_turns_them_round(folder):
    rows = DatasetReader(folder / "ours").rows
    both = {"tasks": ["push the button"], "min_frames": 9}
    assert [p.index for p in pieces_of("select", both, [rows])] == [2, 4]
    assert [p.index for p in pieces_of("select", both | {"leave_out": True}, [rows])] == [0, 1, 3, 5]
    assert [p.index for p in pieces_of("select", {"episodes": ["4:", "square-0001"]}, [rows])] == [1, 4, 5]
    with pytest.raises(DatasetError, match="no episode is '9'"):
        pieces_of("select", {"episodes": ["9"]}, [rows])
    with pytest.raises(DatasetError, match="leaves no episode of 6"):
        pieces_of("select", {"outcome": "failed"}, [rows])


def test_a_split_gives_every_episode_to_one_part_whatever_their_order(folder):
    rows = DatasetReader(folder / "ours").rows
    shares = {"train": 0.5, "validation": 1 / 3, "held": 1 / 6}
    parts = {part: {p.row.episode_id for p in pieces_of("split", {"part": part, "shares": shares}, [rows])} for part in shares}
    assert {part: len(ids) for part, ids in parts.items()} == {"train": 3, "validation": 2, "held": 1}
    assert len(set.union(*parts.values())) == 6
    again = {p.row.episode_id for p in pieces_of("split", {"part": "train", "shares": shares}, [rows[::-1]])}
    assert again == parts["train"]
    other = {p.row.episode_id for p in pieces_of("split", {"part": "train", "shares": shares, "seed": 3}, [rows])}
    assert other != parts["train"]
    tasks = {"part": "a", "shares": {"a": 0.5, "b": 0.5}, "by": "task"}
    assert len({p.row.task for p in pieces_of("split", tasks, [rows])}) == 1
    with pytest.raises(DatasetError, match="1 groups by cell cannot be divided into 2"):
        pieces_of("split", tasks | {"by": "cell"}, [rows])


@pytest.mark.parametrize(
    ("operation", "parameters", "reason"),
    [
        ("trim", {"head": 8}, "square-0000 has 8 frames, frames 8 to before 8 cannot be kept"),
        ("trim", {"keep": {"square-9": [0, 1]}}, "no episode is named 'square-9'"),
        ("relabel", {"instructions": {"fly": "walk"}}, "no episode has the instruction 'fly'"),
        ("relabel", {"episodes": {"nothing": {"outcome": "failed"}}}, "no episode is named 'nothing'"),
        ("turn", {}, "expected one of select, split, trim, relabel, merge"),
    ],
)
def test_what_does_not_fit_is_refused(folder, operation, parameters, reason):
    with pytest.raises(DatasetError, match=reason):
        pieces_of(operation, parameters, [DatasetReader(folder / "ours").rows])


def test_labels_of_one_episode_are_stated_again(folder, edits):
    labels = {"square-0001": Labels(outcome="failed", task="close-v2"), "square-0002": Labels(outcome="unknown", instruction="touch it")}
    made = make(edits, "labels", "relabel", [str(folder / "ours")], Relabel(episodes=labels))
    assert [row.success for row in made.rows] == [True, False, None, True, True, True]
    assert (made.rows[1].task, made.rows[2].instruction) == ("close-v2", "touch it")
    assert made.episode(1, images=False, depth=False).success is False


def test_a_merge_gives_equal_episodes_once_and_renames_others_of_one_name(folder, edits, tmp_path):
    ours, more = DatasetReader(folder / "ours"), DatasetReader(folder / "more")
    check_mergeable([ours, more])
    found = merge_parameters([ours, more])
    assert found.once == ("1/square-0004", "1/square-0005")
    made = make(edits, "both", "merge", [str(folder / "ours"), str(folder / "more")], found)
    assert len(made.rows) == 9
    assert difference(ours, made).only_b == ("square-0006", "square-0007", "square-0008")
    clash = DatasetReader(write_dataset(tmp_path / "clash", [episode(7, length=9, episode_id="square-0000")]))
    assert merge_parameters([ours, clash]).renamed == {"1/square-0000": "clash-000000"}


def test_a_merge_of_one_episode_with_two_labels_is_refused(folder, tmp_path):
    other = DatasetReader(write_dataset(tmp_path / "other", [episode(0, length=8, instruction="something else")]))
    with pytest.raises(DatasetError, match="same frames and other labels: instruction 'push the button' and 'something else'"):
        merge_parameters([DatasetReader(folder / "ours"), other])


def test_a_merge_of_different_embodiments_is_refused_with_the_fields(folder):
    with pytest.raises(DatasetError, match=r"ours and plain differ in cameras.*\(32, 32\).*and in state"):
        check_mergeable([DatasetReader(folder / "ours"), DatasetReader(folder / "plain")])


def test_a_difference_tells_what_is_equal_cut_relabelled_or_only_in_one(folder, edits):
    ours = DatasetReader(folder / "ours")
    make(edits, "some", "select", [str(folder / "ours")], Select(episodes=("0:4",)))
    make(edits, "cut", "trim", ["some"], Trim(keep={"square-0003": (2, 7)}))
    made = make(edits, "all", "relabel", ["cut"], Relabel(episodes={"square-0001": Labels(instruction="shut it", outcome="failed")}))
    found = difference(ours, made)
    assert found.equal == 2
    assert found.only_a == ("square-0004", "square-0005")
    assert found.tasks_only_b == ("shut it",)
    labelled, shortened = found.differing
    assert labelled.labels == {"instruction": ("close the green drawer", "shut it"), "success": (True, False)}
    assert (shortened.a, shortened.kept, dict(shortened.changed)) == ("square-0003", (2, 7), {})
    assert difference(ours, ours).is_empty


def test_a_difference_finds_changed_pixels_and_numbers_by_frame_under_any_name(folder, tmp_path):
    changed = episode(1, length=9, episode_id="another-name")
    changed.images["front"][3:5, 0, 0] += 1
    other = DatasetReader(write_dataset(tmp_path / "other", [changed]))
    found = difference(DatasetReader(folder / "ours"), other)
    (one,) = found.differing
    assert (one.a, one.b, one.frames, dict(one.changed)) == ("square-0001", "another-name", ((3, 5),), {"front": 2})
    assert difference(DatasetReader(folder / "ours"), other, images=False).equal == 1


def test_every_number_and_pixel_enters_the_fingerprint(folder):
    ours = DatasetReader(folder / "ours")
    one, other = fingerprint(ours, 0), fingerprint(ours, 1)
    assert one.whole != other.whole
    assert len(set(one.numbers_T.tolist())) == 8
    assert fingerprint(ours, 0, images=False).numbers == one.numbers
    assert list(ranges([0, 1, 2, 5, 7, 8])) == [(0, 3), (5, 6), (7, 9)]


def test_shares_must_be_one_together():
    with pytest.raises(Exception, match=r"the shares must be 1 together, got 0\.9"):
        Split(part="a", shares={"a": 0.4, "b": 0.5})


def test_a_recipe_names_an_edited_set_by_its_file(folder, edits):
    make(edits, "four", "select", [str(folder / "ours")], Select(episodes=("0:4",)))
    place = str(edits.path_of("four"))
    whole = open_edited(SourceConfig(name="four", kind="edited", path=place))
    some = open_edited(SourceConfig(name="some", kind="edited", path=place, include=("1", "2"), tasks=("push the button",)))
    assert source_opener("edited").endswith(":open_edited")
    assert (len(whole.rows), [row.episode_id for row in some.rows]) == (4, ["square-0002"])
    assert whole.digest == edits.open("four").digest != some.digest
    assert np.array_equal(some.episode(0).images["front"], episode(2, length=10).images["front"])
    with pytest.raises(DatasetError, match="so rate_hz cannot be set here"):
        open_edited(SourceConfig(name="x", kind="edited", path=place, rate_hz=5))
    with pytest.raises(DatasetError, match="is not the file of an edit"):
        open_edited(SourceConfig(name="x", kind="edited", path=str(folder / "ours")))


def test_an_edit_is_opened_before_its_folder_is_there(tmp_path):
    known = Catalogue(tmp_path / "data/edits")
    opened = known.open(str(write_dataset(tmp_path / "set", [episode(n, length=3) for n in range(2)])))
    path = known.path_of("first")
    edit = known.new_edit("select", [opened], Select(episodes=("1",)), at=path, who="a", why="a test")
    assert [row.episode_id for row in known.open_edit(path, edit).source.rows] == ["square-0001"]
    assert not path.parent.exists()
