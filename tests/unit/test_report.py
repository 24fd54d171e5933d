"""The page stands alone and tells all; the document has its promised fields."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.artifacts.step_manifest import UNDIGESTED
from components.config.records import StageTiming
from components.drawing.charts import curve_chart, interval_bar, nice_ticks, running_mean
from components.report.page import render, summary, write_report, write_summary
from components.report.view import Gathered
from flows.pipeline.run_summary import write_run
from model_core.spec.errors import SpecError
from tests.report_data import run_summary


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_summary(tmp_path_factory.mktemp("steps"))


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_summary(run, folder)
    return write_report(run, folder, addresses={"MLflow": "http://127.0.0.1:5000"})


class Balanced(HTMLParser):
    """Every tag that is opened is closed, in order."""

    VOID = {"meta", "img", "br", "col", "rect", "line", "circle"}

    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_whole_and_fetches_nothing(written):
    page = written.read_text()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in parser.sources)
    assert not re.search(r"<script|<link|@import|url\((?!#)", page)
    assert "$" not in re.sub(r"base64,[^\"]+", "", page)


def test_page_tells_every_part(run, written):
    page = written.read_text()
    for said in ("18 of 20", "20 of 20", "31 equal frames while moving", "promoted to champion", "cell-1", "found finished", "83 % of the"):
        assert said in page
    for check in run.verdict.checks:
        assert check.reason in page
    for stage in run.stages:
        assert f"<td>{stage}</td>" in page
    assert page.count("<path") > 5


def test_page_tells_what_fell_away_where_and_what_a_person_should_know(written):
    page = written.read_text()
    assert "5 episodes, 1,200 frames: no depth was recorded" in page
    assert "<td>teleop:&lt;bench&gt;</td>" in page
    assert "5 of 1000 steps hold values" in page


def test_equal_runs_give_equal_pages_whatever_folder_they_are_in(run, written, tmp_path):
    again = run_summary(tmp_path / "elsewhere")
    other = write_report(again, tmp_path / "out", addresses={"MLflow": "http://127.0.0.1:5000"})
    assert other.read_bytes() == written.read_bytes()
    assert str(tmp_path) not in other.read_text()


def test_a_held_run_says_so_and_why(tmp_path):
    page = write_report(run_summary(tmp_path / "steps", promote=False), tmp_path / "out").read_text()
    assert "held back" in page
    assert "reaches below the floor" in page
    assert "On the workcells" not in page


def test_a_run_without_pictures_and_curves_still_has_a_page(run, tmp_path):
    page = write_report(replace(run, paths={}), tmp_path / "out").read_text()
    assert "18 of 20" in page
    assert "<img" not in page


def test_names_from_outside_cannot_write_html(run, tmp_path):
    evil = replace(run, name="<script>alert(1)</script>", stages={"<b>": StageTiming(seconds=1, cached=False)})
    page = write_report(evil, tmp_path / "out").read_text()
    assert "<script>" not in page
    assert "<b></td>" not in page


def tags_and_text(page):
    """The structure of a page, and the text that a browser would show."""
    parser, tags, texts = HTMLParser(), [], []
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, tuple(name for name, _ in attributes)))
    parser.handle_startendtag = parser.handle_starttag
    parser.handle_data = texts.append
    parser.feed(page)
    return tags, "".join(texts)


@pytest.fixture(scope="module")
def pages() -> dict[str, list[object]]:
    """The tags of the page with plain names, once made: it is the same in every example."""
    return {}


@settings(max_examples=6, deadline=None)
@given(name=st.text(alphabet="<>&\"'`=/ab;{}%#x ", min_size=1, max_size=18).map(lambda drawn: f"({drawn})"))
def test_no_name_from_outside_changes_the_structure_of_the_page(run, pages, name):
    def named(word):
        return replace(
            run,
            name=word,
            recipe_name=word,
            recipe={"note": word},
            stages={word: StageTiming(seconds=1, cached=False, digest=word)},
            dataset=replace(run.dataset, name=word, annotators={word: word}, producers={word: 3}),
            train=replace(run.train, run_id=word, metrics={word: 0.5}),
            evaluation=replace(
                run.evaluation,
                per_task={word: next(iter(run.evaluation.per_task.values()))},
                episodes=tuple(replace(row, task=word, detail=word, stop_reason=word) for row in run.evaluation.episodes),
            ),
            verdict=replace(run.verdict, checks=tuple(replace(check, name=word, reason=word) for check in run.verdict.checks)),
            model_version=replace(run.model_version, name=word, contract_id=word, lineage={"policy_kind": word}),
            workcells=tuple(replace(row, cell=word, task=word, refused_to_move=word) for row in run.workcells),
        )

    def page(word):
        found = Gathered(quarantined=((word, word),), audit=word, addresses={word: word})
        return tags_and_text(render(named(word), found))

    if not pages:
        pages["plain"], _ = page("plain")
    plain_tags = pages["plain"]
    tags, text = page(name)
    assert tags == plain_tags
    assert text.count(name) >= 20


def test_summary_has_the_promised_fields(run, written):
    document = json.loads((written.parent / "summary.json").read_text())
    assert document == summary(run)
    assert set(document["stages"]) == set(run.stages)
    assert document["stages"]["collect"] == {"seconds": 0.716, "cached": True, "digest": run.stages["collect"].digest}
    assert set(document["dataset"]) == {"version", "episodes", "frames", "quarantined", "producers", "account", "notes"}
    assert document["dataset"]["account"][1]["dropped"] == [{"reason": "no depth was recorded", "episodes": 5, "frames": 1_200}]
    assert {"run_id", "steps", "final_loss"} <= set(document["train"])
    evaluation = document["evaluation"]
    assert (evaluation["successes"], evaluation["trials"]) == (38, 40)
    assert evaluation["per_task"]["coffee-button-v3"]["successes"] == 18
    low, high = evaluation["per_task"]["coffee-button-v3"]["interval"]
    assert 0 < low < 0.9 < high < 1
    assert document["verdict"]["decision"] == "promote"
    assert len(document["verdict"]["reasons"]) == 6
    assert document["model_version"]["version"] == 3
    wanted = {"cell", "episodes", "successes", "decisions", "refusals", "p50_ms", "p99_ms"}
    assert all(wanted <= set(row) for row in document["workcells"])


def test_the_trackers_own_id_is_what_a_person_can_look_up(run):
    document = summary(replace(run, tracker_run_id="02bfdac06a43"))
    assert document["train"]["run_id"] == "02bfdac06a43"
    assert document["train"]["name"] == run.train.run_id


def test_pictures_lie_beside_the_page(written):
    names = sorted(path.name for path in (written.parent / "pictures").iterdir())
    assert names == ["coffee-button-v3.png", "drawer-close-v3.png", "step_1200.png"]


def test_curves_leave_out_what_is_not_finite_and_refuse_nothing():
    chart = curve_chart({"loss": [(0, 3.0), (1, float("nan")), (2, 1.0)]})
    assert "nan" not in chart
    assert chart.count("<path") == 1
    with pytest.raises(SpecError, match="no finite point"):
        curve_chart({"loss": [(0, float("inf"))]})


def test_thinning_keeps_a_spike():
    points = [(i, 1.0) for i in range(5000)]
    points[2345] = (2345, 9.0)
    tall = curve_chart({"loss": points})
    ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", tall)]
    assert max(ys) - min(ys) > 100


@pytest.mark.parametrize(("low", "high", "ticks"), [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0, 1200, [0, 250, 500, 750, 1000]), (3, 3, [3])])
def test_ticks_are_round(low, high, ticks):
    assert nice_ticks(low, high, 5) == ticks


def test_running_mean_and_interval_bar():
    assert running_mean([(0, 1.0), (1, 3.0), (2, 5.0)], 2) == [(0, 1.0), (1, 2.0), (2, 4.0)]
    assert "18 of 20, 95 % interval 0.70 to 0.97" in interval_bar(18, 20, 0.7, 0.97, floor=0.5)
    assert "<circle" not in interval_bar(0, 0, 0.0, 1.0)


def with_report_step(run, folder, *, cached):
    """The run as it stands after its report stage, with the page in a step's folder."""
    timing = StageTiming(seconds=0.1, cached=cached, digest="f" * 64)
    return replace(run, stages={**run.stages, "report": timing}, paths={**run.paths, "report": str(folder)})


def test_a_page_that_was_drawn_by_another_run_gets_the_name_of_this_one(run, tmp_path):
    drawn = write_report(run, tmp_path / "step" / UNDIGESTED).parent
    again = replace(run, name="loop-0008", stages={name: replace(stage, cached=True) for name, stage in run.stages.items()})
    folder = write_run(with_report_step(again, tmp_path / "step", cached=True), tmp_path / "runs")
    page = (folder / "report.html").read_text()
    assert "<title>Actwright: loop-0008</title>" in page
    assert "loop-0007" not in page
    assert json.loads((folder / "summary.json").read_text())["name"] == "loop-0008"
    assert (folder / "pictures").is_dir()
    own = write_run(with_report_step(run, tmp_path / "step", cached=False), tmp_path / "runs")
    assert (own / "report.html").read_bytes() == (drawn / "report.html").read_bytes()
    assert "report" in json.loads((own / "summary.json").read_text())["stages"], "the one summary of a run holds its report stage too"
