"""What people state of episodes: appended and chained, undone by a further revision, and made into a version that training takes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.artifacts.chained_lines import ChainedLines
from components.artifacts.step_store import StepStore
from components.config.data_config import AnnotateConfig
from components.config.records import Silent
from components.config.source_config import SourceConfig
from components.data.annotators.corrections import read_corrections
from components.data.annotators.interface import Frames, GripperTrack
from components.data.editing.opener import open_edited
from components.data.episodes.place import place_at
from components.data.episodes.query import EpisodeQuery
from components.data.labelling.traces import refined, trace_labels
from components.data.lerobot.reader import DatasetReader
from components.data.revisions.book import Author, RevisionBook, Subject
from components.data.revisions.change import (
    CAUSES,
    Caused,
    Change,
    Include,
    Instructed,
    Judged,
    Pointed,
    Revision,
    Traced,
    Trimmed,
    Undone,
    entry_of,
    revision_of,
)
from components.data.revisions.state import RevisedEpisode, revised
from components.data.revisions.to_edits import planned_edits
from flows.pipeline.episodes.library import episode_library
from flows.pipeline.episodes.versions import NewVersion, make_version
from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from model_core.spec.errors import DatasetError, SpecError
from tests.episodes import episode, write_dataset

ANA = Author(name="Ana", tool="a test")
ONE, TWO = Subject(episode="square-0001", frames=9), Subject(episode="square-0002", frames=10)


@pytest.fixture
def book(tmp_path) -> RevisionBook:
    write_dataset(tmp_path / "ours", [episode(n, length=8 + n) for n in range(4)])
    return RevisionBook(tmp_path / "data" / "revisions", place_at(tmp_path / "ours"))


def test_what_was_stated_last_counts_and_undo_takes_it_back_and_forth(book):
    book.add([ONE], [Judged(outcome="failed"), Caused(causes=("dropped",))], ANA)
    book.add([ONE, TWO], [Include(included=False)], ANA)
    book.add([ONE], [Judged(outcome="solved")], ANA)
    assert (book.revised["square-0001"].outcome, book.revised["square-0001"].included) == ("solved", False)
    undo = book.undo(4, ANA)
    assert book.revised["square-0001"].outcome == "failed"
    again = book.undo(undo.number, ANA)
    assert book.revised["square-0001"].outcome == "solved"
    book.undo(again.number, ANA)
    assert book.revised["square-0001"].outcome == "failed"
    assert book.revised["square-0002"] == RevisedEpisode(included=False, revisions=(book.revisions[3],))
    assert [one.kind for one in book.revisions][-3:] == ["undo"] * 3
    other = RevisionBook(book.path.parent, place_at(book.path.parents[2] / "ours"))  # who opens it later reads the same
    assert (other.revised, other.head) == (book.revised, book.head)


CHANGES = st.one_of(
    st.builds(Include, included=st.sampled_from([True, False, None])),
    st.builds(Judged, outcome=st.sampled_from(["solved", "failed", "unknown"])),
    st.builds(Caused, causes=st.lists(st.sampled_from([c for c in CAUSES if c != "other"]), unique=True).map(tuple)),
    st.builds(Instructed, instruction=st.text(min_size=1, max_size=5).filter(str.strip)),
    st.builds(Traced, camera=st.just("front"), frame=st.integers(0, 3), points=st.just(((1, 2), (3, 4)))),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(CHANGES, max_size=6), st.data())
def test_undone_revisions_leave_what_the_others_alone_would_have_left(changes, data):
    def made(chosen: list[Change]) -> list[Revision]:
        return [Revision(number=n, episode="e", change=c, author="A", at="2026-01-01T00:00:00Z", tool="t") for n, c in enumerate(chosen)]

    whole = made(changes)
    out = data.draw(st.lists(st.sampled_from(range(len(changes))), unique=True) if changes else st.just([]))
    undone = made([*changes, *(Undone(revision=n) for n in out)])
    kept = [one for one in whole if one.number not in out]
    assert revised(undone) == revised(kept)
    for one in undone:
        assert revision_of(one.number, json.loads(json.dumps(entry_of(one)))) == one


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Trimmed(first=2, end=10), "frame 9, and the episode has frames 0 to 8"),
        (Pointed(camera="front", frame=9, point=(1, 2)), "frame 9"),
        (Undone(revision=7), "no revision 7"),
    ],
)
def test_what_does_not_fit_its_episode_is_refused_and_nothing_is_written(book, change, reason):
    with pytest.raises(SpecError, match=reason):
        book.add([ONE], [Include(included=True), change], ANA)
    assert not book.revisions
    assert not book.path.exists()


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Caused, {"causes": ("bad luck",)}),
        (Caused, {"causes": ("other",)}),
        (Instructed, {"instruction": "  "}),
        (Trimmed, {"first": 5, "end": 5}),
        (Traced, {"camera": "front", "frame": 0, "points": ()}),
        (Pointed, {"camera": "front", "frame": 0, "point": (float("nan"), 1)}),
    ],
)
def test_a_change_that_says_nothing_is_refused(kind, wrong):
    with pytest.raises(SpecError):
        kind(**wrong)


def test_every_process_and_thread_gets_its_lines_in_one_whole_chain(tmp_path):
    path = tmp_path / "lines.jsonl"
    code = (
        "import sys; from pathlib import Path; from components.artifacts.chained_lines import ChainedLines\n"
        "lines = ChainedLines(Path(sys.argv[1]), 'r')\n"
        "for n in range(15): lines.append(lambda before: [{'who': sys.argv[2], 'n': n, 'seen': len(before)}])"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(path), f"child-{n}"]) for n in range(2)]
    shared = ChainedLines(path, "r")
    threads = [
        threading.Thread(target=lambda: [shared.append(lambda b: [{"who": "us", "seen": len(b)}]) for _ in range(10)]) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [child.wait(60) for child in children] == [0, 0]
    found = ChainedLines(path, "r").entries
    assert [entry["seen"] for entry in found] == list(range(50))
    assert [entry["n"] for entry in found if entry["who"] == "child-1"] == list(range(15))


def test_readers_and_writers_of_one_book_never_wait_for_each_other(book):
    def state() -> None:
        for _ in range(5):
            book.add([ONE], [Include(included=True)], ANA)

    writer = threading.Thread(target=state, daemon=True)
    reader = threading.Thread(target=lambda: [book.revisions for _ in iter(writer.is_alive, False)], daemon=True)
    writer.start()
    reader.start()
    writer.join(30.0)
    assert not writer.is_alive()
    assert len(book.revisions) == 5


def test_a_changed_line_is_found_and_a_torn_one_is_no_entry(tmp_path):
    path = tmp_path / "lines.jsonl"
    lines = ChainedLines(path, "r")
    lines.append(lambda _: [{"a": 1}, {"a": 2}])
    noted = lines.head
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"before": "')
    assert [entry["a"] for entry in ChainedLines(path, "r").entries] == [1, 2]
    ChainedLines(path, "r").append(lambda _: [{"a": 3}])
    assert [entry["a"] for entry in lines.entries] == [1, 2, 3]
    assert lines.holds(noted)
    for wrong in (whole.replace(b'"a": 2', b'"a": 7'), whole.splitlines(keepends=True)[1], b"nothing\n"):
        path.write_bytes(wrong)
        with pytest.raises(DatasetError, match="Fix: restore"):
            _ = ChainedLines(path, "r").entries
    path.write_bytes(whole.splitlines(keepends=True)[0])
    assert not ChainedLines(path, "r").holds(noted)


def test_revisions_that_do_not_fit_the_set_any_more_make_no_version(book):
    rows = DatasetReader(book.path.parents[2] / "ours").rows
    with pytest.raises(DatasetError, match="nothing was stated"):
        planned_edits(rows, {}, only_included=False)
    book.add([Subject(episode="square-0001", frames=12)], [Include(included=True)], ANA)
    with pytest.raises(DatasetError, match="has 9 frames; revision 0 by Ana was made of one of 12"):
        planned_edits(rows, book.revised, only_included=False)


@pytest.fixture
def platform(tmp_path) -> Platform:
    settings = Settings(home=tmp_path / "home", data=tmp_path / "elsewhere" / "data", runs=tmp_path / "runs")
    return Platform(settings=settings, store=StepStore(settings.store_root))


def test_what_was_stated_becomes_a_version_that_sources_labels_and_pages_read(platform, tmp_path, monkeypatch):
    monkeypatch.setattr("flows.pipeline.data_sets.record", lambda platform, folder: "")  # DVC: tests/integration/test_dvc.py
    write_dataset(tmp_path / "ours", [episode(n, length=12) for n in range(4)])
    library = episode_library(platform.settings)
    library.refresh([tmp_path / "ours"], Silent())
    place = library.place("ours")
    book = library.book(place)
    one, two = Subject(episode="square-0001", frames=12), Subject(episode="square-0002", frames=12)
    book.add([one], [Include(included=False), Caused(causes=("dropped",))], ANA)
    drawn = Traced(camera="front", frame=5, points=((3, 4), (8, 9)))
    changes = [
        Trimmed(first=2, end=10),
        Judged(outcome="failed"),
        Instructed(instruction="press it"),
        drawn,
        Pointed(camera="front", frame=1, point=(1, 1)),
    ]
    book.add([two], changes, Author(name="Bo", tool="a test"))
    library.tell_revisions(place)
    left_out = library.index.page(EpisodeQuery(choice="left_out")).episodes
    assert [(found.row.episode_id, found.revised["causes"]) for found in left_out] == [("square-0001", "dropped")]
    assert [found.row.episode_id for found in library.index.page(EpisodeQuery(outcome="failed")).episodes] == ["square-0002"]

    wanted = NewVersion(name="sorted", why="a test")
    made = make_version(platform, place, wanted)
    assert [path.name for path in made.edits] == ["sorted.1-select.yaml", "sorted.2-trim.yaml", "sorted.yaml"]
    again = make_version(platform, place, wanted)
    assert (again.edits, again.told["is_new"]) == (made.edits, False)
    config = SourceConfig(name="sorted", kind="edited", path=str(made.edits[-1]))
    source = open_edited(config)
    assert [row.episode_id for row in source.rows] == ["square-0000", "square-0002", "square-0003"]
    changed = source.episode(1)
    assert (len(changed), changed.instruction, changed.success) == (8, "press it", False)
    assert np.array_equal(changed.actions_TA, episode(2, length=12).actions_TA[2:10])
    assert made.corrections is not None
    lines = read_corrections(made.corrections)
    assert not lines.by_place  # the point was of a frame that is cut off
    assert lines.traces[("square-0002", "front")][3].trace == ((3, 4), (8, 9))

    points_T2 = np.linspace(1, 20, 8)[:, None].repeat(2, axis=1)
    track = GripperTrack(points_T2=points_T2, visible_T=np.ones(8, bool), confidence_T=np.ones(8, np.float32))
    frames = Frames(images_THW3=np.zeros((0, 32, 32, 3), np.uint8), size=(32, 32), count=8, camera="front", episode_id="square-0002")
    cfg = AnnotateConfig(corrections=str(made.corrections))
    before, after = (trace_labels(refined(track, one, (32, 32), frames).track, (32, 32), 5, "a test") for one in (AnnotateConfig(), cfg))
    assert after[3].tolist() == [[25, 33], [66, 74], [-1, -1], [-1, -1], [-1, -1]]
    assert np.array_equal(np.delete(after, 3, axis=0), np.delete(before, 3, axis=0))  # no other frame's trace is another one
