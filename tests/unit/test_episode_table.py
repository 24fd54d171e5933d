"""The table of episodes: every kind of place in it, read again only where something changed, asked by what a person would ask."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from components.config.records import Silent
from components.data.editing.catalogue import Catalogue
from components.data.editing.edit import write_edit
from components.data.editing.parameters import Select
from components.data.episodes.index import EpisodeIndex
from components.data.episodes.place import Place, place_at
from components.data.episodes.query import EpisodeQuery
from components.data.episodes.refresh import refresh
from components.data.episodes.row import EpisodeRow
from model_core.spec.episode import Provenance
from model_core.spec.errors import DatasetError, SpecError
from serving.workcell.audit.log import AuditLog
from serving.workcell.robot.episode_recorder import write_episode
from tests.audit_data import tell_episode
from tests.episodes import BODY, episode, write_dataset
from tests.plain_set import plain_episode, write_plain_set

CELL = Provenance(producer="policy:button/3", cell="cell-a", seed=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Four places: a set of ours, a plain one, recordings and audits."""
    root = tmp_path_factory.mktemp("places")
    write_dataset(root / "ours", [episode(n, length=8 + n, success=n != 2) for n in range(4)])
    write_plain_set(root / "plain", [plain_episode(n, length=9) for n in range(2)])
    for number in range(3):
        write_episode(root / "cell", replace(episode(number), episode_id=f"run-{number}", provenance=CELL, body=BODY, success=number > 0))
    audit = AuditLog(root / "audit")
    tell_episode(audit, decisions=2)
    audit.close()
    return root


def table_of(root: Path) -> EpisodeIndex:
    index = EpisodeIndex(root / "home" / "episodes.sqlite")
    places = [place_at(root / name) for name in ("ours", "plain", "cell", "audit")]
    assert [one.problem for one in refresh(index, places, edits_of(root), Silent())] == ["", "", "", ""]
    return index


def edits_of(root: Path) -> Catalogue:
    return Catalogue(root / "edits", seen=root / "seen")


@pytest.fixture(scope="module")
def index(made) -> EpisodeIndex:
    """For tests that only ask."""
    return table_of(made)


@pytest.fixture
def root(made, tmp_path) -> Path:
    """For tests that change what is there."""
    return Path(shutil.copytree(made, tmp_path / "places", ignore=shutil.ignore_patterns("home")))


def ids(index: EpisodeIndex, **asked) -> list[str]:
    return [one.row.episode_id for one in index.page(EpisodeQuery(**asked)).episodes]


def test_sets_recordings_and_audits_stand_in_one_table(index):
    kinds = {place.name: (place.kind, count) for place, count, _ in index.places()}
    assert kinds == {"ours": ("set", 4), "plain": ("set", 2), "cell": ("recordings", 3), "audit": ("audit", 1)}
    recorded = next(one for one in index.page(EpisodeQuery(text="run-0")).episodes)
    assert (recorded.row.model, recorded.row.cell, recorded.row.outcome, recorded.row.length) == ("button/3", "cell-a", "failed", 12)
    assert recorded.row.seconds == pytest.approx(12 / BODY.control_hz)
    assert recorded.findings is None  # recordings are not inspected here
    audited = next(one for one in index.page(EpisodeQuery(kind="audit")).episodes)
    assert (audited.row.model, audited.row.ending, audited.row.outcome, audited.row.length) == ("echo/1", "success", "solved", 8)
    assert audited.row.at[:4].isdigit()


def test_a_person_finds_episodes_by_words_values_and_lengths(index):
    assert ids(index, text="drawer square") == ["square-0001", "square-0003"]
    assert ids(index, outcome="failed") == ["run-0", "square-0002"]
    assert ids(index, task="coffee-button-v3", min_frames=9, max_frames=10) == ["square-0002"]
    assert ids(index, kind="set", sort="length", descending=True, limit=2) == ["square-0003", "square-0002"]
    assert ids(index, kind="set", sort="length", descending=True, limit=2, offset=2) == ["square-0001", "plain-000000"]
    assert index.page(EpisodeQuery(limit=1)).total == 10
    assert ids(index, findings="unknown") == ["button-7", "run-0", "run-1", "run-2"]
    assert dict(index.values(EpisodeQuery(kind="recordings"))["outcome"]) == {"solved": 2, "failed": 1}


@pytest.mark.parametrize("text", ["100%", "_", "'; DROP TABLE episodes; --", '"', "\\"])
def test_what_is_typed_is_looked_for_and_never_run(index, text):
    assert ids(index, text=text) == []
    assert index.page(EpisodeQuery()).total == 10


@pytest.mark.parametrize("wrong", [{"sort": "1; DROP"}, {"limit": 0}, {"limit": 5000}, {"offset": -1}, {"findings": "maybe"}])
def test_a_question_that_has_no_answer_is_refused(wrong):
    with pytest.raises(SpecError):
        EpisodeQuery(**wrong)


def test_only_what_changed_is_read_again(root):
    index, edits = table_of(root), edits_of(root)
    places = [place for place, _, _ in index.places()]
    assert [one.read for one in refresh(index, places, edits, Silent())] == [0, 0, 0, 0]
    write_episode(root / "cell", replace(episode(5), episode_id="run-5", provenance=CELL, body=BODY))
    next((root / "cell").glob("*run-0*")).unlink()
    shutil.rmtree(root / "plain")
    write_plain_set(root / "plain", [plain_episode(n, length=7) for n in range(3)])
    done = {one.place.name: one.read for one in refresh(index, places, edits, Silent())}
    assert done == {"ours": 0, "plain": 1, "cell": 1, "audit": 0}
    assert ids(index, kind="recordings") == ["run-1", "run-2", "run-5"]
    assert ids(index, max_frames=7) == ["plain-000000", "plain-000001", "plain-000002"]


def test_what_cannot_be_read_is_told_and_the_rest_is_there(root):
    index, edits = table_of(root), edits_of(root)
    torn = next((root / "cell").glob("*run-1*"))
    torn.write_bytes(torn.read_bytes()[:-20])
    (root / "ours" / "meta" / "info.json").write_text("{")
    done = {one.place.name: one.problem for one in refresh(index, [place for place, _, _ in index.places()], edits, Silent())}
    assert "info.json" in done["ours"]
    said = {place.name: problem for place, _, problem in index.places()}
    assert "info.json" in said["ours"]
    assert "1 files cannot be read" in said["cell"]
    assert "checksum" in said["cell"]
    assert ids(index, kind="recordings") == ["run-0", "run-2"]
    assert len(ids(index, kind="set")) == 6  # what was known of the set before stays, beside what is wrong now


def test_an_edit_stands_as_the_set_that_it_makes(root):
    index, edits = EpisodeIndex(root / "episodes.sqlite"), edits_of(root)
    path = edits.path_of("solved")
    parents = [edits.open(str(root / "ours"))]
    write_edit(path, edits.new_edit("select", parents, Select(outcome="solved"), at=path, who="ana", why="a test"))
    assert [one.problem for one in refresh(index, [place_at(path)], edits, Silent())] == [""]
    assert ids(index, kind="edit") == ["square-0000", "square-0001", "square-0003"]


def test_a_folder_without_episodes_says_what_was_expected(tmp_path):
    with pytest.raises(DatasetError, match="expected a LeRobot data set, the file of an edit, a folder of recordings"):
        place_at(tmp_path)


def test_a_table_of_ten_thousand_answers_without_reading_all_of_it(tmp_path):
    index = EpisodeIndex(tmp_path / "episodes.sqlite")
    place = Place(path=tmp_path / "many", kind="set", name="many")
    like = EpisodeRow(
        number=0,
        episode_id="",
        task="pick",
        instruction="",
        robot="arm",
        outcome="solved",
        producer="p",
        model="",
        cell="",
        length=1,
        seconds=1.0,
    )
    index.put_set(place, "state", (replace(like, number=n, episode_id=f"many-{n:06d}", length=n % 500) for n in range(10_000)))
    page = index.page(EpisodeQuery(text="many", min_frames=100, sort="length", descending=True, offset=7_000, limit=100))
    assert (page.total, len(page.episodes), page.episodes[0].row.length) == (8_000, 100, 149)
    assert index.find(place.key, "many-009999").row.number == 9_999
    with pytest.raises(DatasetError, match="no episode 'many-1'"):
        index.find(place.key, "many-1")


def test_two_writers_wait_for_each_other(tmp_path):
    EpisodeIndex(tmp_path / "episodes.sqlite")
    places = [Place(path=tmp_path / name, kind="recordings", name=name) for name in ("one", "two")]

    def write(place: Place) -> str:
        index = EpisodeIndex(tmp_path / "episodes.sqlite")
        for number in range(40):
            index.put_files(place, {}, [])  # reads before it writes
            index.put_revised(place, str(number), [])
        return index.revised_head(place)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(write, places)) == ["39", "39"]
