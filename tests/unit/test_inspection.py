"""The inspection: what its rules are, what it measures, keeps and says. The table of injected faults has a test of its own."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from components.config.data_config import ValidateConfig
from components.config.inspection_config import InspectionConfig
from components.config.paths import REPOSITORY
from components.config.records import Silent
from components.data.inspection.checks.verdict import DEFECT, RISK, UNKNOWN
from components.data.inspection.folder import films
from components.data.inspection.folder.view import open_folder
from components.data.inspection.measurements.dataset import measure_folder
from components.data.inspection.measurements.episode import measure_rows
from components.data.inspection.measurements.raw_episode import RawEpisode
from components.data.inspection.measurements.store import MeasurementStore
from components.data.inspection.reporting.inspect import inspect_folder, measure
from components.data.inspection.reporting.page import report_page
from components.data.inspection.reporting.passport import make_passport, passport_markdown
from components.data.inspection.reporting.report import all_checks, inspect_measurements, lines, report_document
from components.data.lerobot import layout
from flows.pipeline.recipes import get_recipe
from model_core.spec.errors import DatasetError
from tests.data_faults.clean_sets import clean_set
from tests.data_faults.made_set import write_made_set


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_made_set(tmp_path_factory.mktemp("sets") / "sound", clean_set("leader_follower", episodes=4))


@pytest.fixture(scope="module")
def measured(sound):
    return measure(sound, None, Silent())


def test_the_state_is_compared_with_what_was_executed_not_with_what_a_pushed_demonstrator_labelled():
    rng = np.random.default_rng(0)
    executed_TA = rng.normal(size=(60, 3))
    state_TP = np.concatenate([np.zeros((1, 3)), np.cumsum(executed_TA, axis=0)[:-1]])
    times_T = np.arange(60) / 10
    vectors = {layout.STATE: state_TP, layout.EXECUTED: executed_TA, layout.ACTION: rng.normal(size=(60, 3))}
    found = next(
        measure_rows([RawEpisode(episode_id="pushed", number=0, fps=10.0, times_T=times_T, stamps_T=times_T, vectors=vectors)])
    ).time
    assert found.change.peak > 0.99
    assert found.change.lag == 0


def test_every_rule_says_why_what_to_do_and_who_reported_it():
    checks = all_checks()
    assert len(checks) >= 45
    assert {one.severity for one in checks.values()} == {DEFECT, RISK, UNKNOWN}
    assert {one.family for one in checks.values()} == {"structure", "time", "pixels", "numbers", "meaning", "statistics", "origin"}
    for name, one in checks.items():
        assert all((one.reason, one.fix, one.judge.__doc__)), name
        assert re.search(r"\w+/[\w.-]+#\d+|https://|huggingface/lerobot, ", one.source), (name, one.source)


def test_every_threshold_of_the_inspection_has_a_meaning():
    said = InspectionConfig.__doc__ or ""
    assert [name for name in InspectionConfig.__dataclass_fields__ if name not in said] == []


def test_every_verdict_names_its_denominator(measured):
    report = inspect_measurements(measured, ValidateConfig())
    for result in report.results:
        verdict = result.verdict
        assert verdict.looked_at <= verdict.of or verdict.faults, result.check.id
        assert verdict.looked_at or verdict.missing, result.check.id  # what is not judged says which evidence is missing
    document = report_document(report)
    assert all({"looked_at", "of", "unit", "evidence_missing"} <= set(rule) for rule in document["rules"])
    pixels = {rule["id"]: rule for rule in document["rules"]}["black_frames"]
    assert (pixels["looked_at"], pixels["unit"]) == (2 * report.frames, "frames")


def test_without_images_every_other_rule_says_the_same_and_nothing_is_decoded_or_kept(sound, measured, tmp_path, monkeypatch):
    monkeypatch.setattr(films.FilmDecoder, "part", lambda *_: pytest.fail("a picture is decoded"))
    rows = inspect_folder(sound, tmp_path, Silent(), pixels=False)
    of_pixels = {name for name, one in all_checks().items() if one.family == "pixels"} | {"video_lag", "video_decodes"}
    for whole, result in zip(inspect_measurements(measured, ValidateConfig()).results, rows.results, strict=True):
        if result.check.id in of_pixels:
            assert result.outcome == UNKNOWN, result.check.id
        else:
            assert result == whole, result.check.id
    assert not list(tmp_path.iterdir())


def test_another_threshold_reads_no_video_again(sound, tmp_path, monkeypatch):
    decoded: list[int] = []
    part = films.FilmDecoder.part

    def counted(self, begin, end):
        for frame in part(self, begin, end):
            decoded.append(1)
            yield frame

    monkeypatch.setattr(films.FilmDecoder, "part", counted)
    strict = replace(ValidateConfig(), inspection=InspectionConfig(min_detail=1.0), black_mean=250.0)
    first = inspect_folder(sound, tmp_path, Silent())
    assert len(decoded) == 2 * first.frames  # two cameras, each picture once
    second = inspect_folder(sound, tmp_path, Silent(), cfg=strict)
    assert len(decoded) == 2 * first.frames
    assert not first.of(DEFECT)
    assert "black_frames" in {result.check.id for result in second.of(DEFECT)}
    assert report_document(inspect_folder(sound, tmp_path, Silent())) == report_document(first)
    assert len(decoded) == 2 * first.frames


def test_one_changed_episode_is_measured_again_and_no_other(sound, tmp_path):
    kept = MeasurementStore(tmp_path / "store")
    first = measure(sound, tmp_path / "store", Silent())
    made = clean_set("leader_follower", episodes=4)
    changed = write_made_set(tmp_path / "changed", made.change(2, lambda one: replace(one, action_TA=one.action_TA + 1)))
    found = measure_folder(open_folder(changed), kept, Silent())
    before = {episode.key for episode in first.episodes}
    assert [episode.key in before for episode in found.episodes] == [True, True, False, True]


def test_what_is_not_kept_is_not_named(measured):
    assert {episode.key for episode in measured.episodes} == {""}


def test_without_pictures_the_rules_of_pictures_are_unknown_and_not_sound(sound):
    report = inspect_measurements(measure(sound, None, Silent(), pixels=False), ValidateConfig())
    assert {result.outcome for result in report.results if result.check.family == "pixels"} == {UNKNOWN}


def test_a_ranking_sets_nothing_aside(measured):
    report = inspect_measurements(measured, ValidateConfig())
    assert sorted(report.ranking) == sorted(episode.episode_id for episode in measured.episodes)
    assert not report.set_aside


def test_the_page_loads_nothing(measured):
    page = report_page(inspect_measurements(measured, ValidateConfig()))
    assert not re.search(r"<script|<link|<img|<iframe|url\(|@import|href=|src=", page)
    assert "times_measured" in page
    assert "Fix:" in page


def test_a_person_reads_the_fault_its_place_its_reason_and_what_to_do(tmp_path):
    made = clean_set("leader_follower", episodes=4)

    def cover(one):
        return replace(one, frames={**one.frames, "top": np.where(np.arange(len(one))[:, None, None, None] < 9, 0, one.frames["top"])})

    folder = write_made_set(tmp_path / "set", made.change(1, lambda one: replace(one, frames=dict(cover(one).frames))))
    text = "\n".join(lines(inspect_folder(folder, None, Silent())))
    assert re.search(r"defect black_frames \(1 of \d+ frames\): .+\. Fix: .+\n    set-000001: camera top: 9 pictures", text)


def test_the_passport_says_what_whose_licence_faults_label_error_and_versions(sound):
    (sound / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    passport = make_passport(sound, None, Silent())
    assert passport["licence"] == {"stated": "cc-by-nc-4.0", "where": "README.md"}
    assert passport["what"]["robot"] == "so101_follower"
    assert passport["what"]["cameras"] == [
        "observation.images.top",
        "observation.images.side",
    ]
    assert passport["label_error"]["estimate"] == "not measured"
    assert "--labels" in passport["label_error"]["why"]
    assert list(passport["faults"]["risks"]) == ["licence_limited"]
    text = passport_markdown(json.loads(json.dumps(passport)))
    assert all(f"## {title}" in text for title in ("What", "Whose", "Licence", "Faults", "Label error", "Versions"))
    (sound / "README.md").unlink()


def test_a_folder_without_a_set_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"has no meta/info\.json.*Fix"):
        open_folder(tmp_path)


def test_the_inspected_folder_is_not_changed(sound, tmp_path):
    before = {path: path.read_bytes() for path in sorted(sound.rglob("*")) if path.is_file()}
    inspect_folder(sound, tmp_path, Silent())
    assert {path: path.read_bytes() for path in sorted(sound.rglob("*")) if path.is_file()} == before


def test_thresholds_without_a_recipe_are_those_of_the_loop():
    assert get_recipe("loop").validate == ValidateConfig()


def test_of_version_2_1_the_statistics_of_each_episode_are_compared_with_its_rows(tmp_path):
    """They stand in a file of their own; a set that the public writer wrote has nothing wrong with them."""
    folder = tmp_path / "set"
    shutil.copytree(REPOSITORY / "tests/data/public_writers/v21_images", folder)
    of_statistics = ("episode_statistics", "statistics_missing", "unreadable")

    def told() -> dict[str, list[str]]:
        found = {result.check.id: result.verdict for result in inspect_folder(folder, None, None, pixels=False).results}
        assert found["episode_statistics"].looked_at >= 3
        return {name: [fault.where for fault in found[name].faults] for name in of_statistics}

    assert told() == {name: [] for name in of_statistics}
    path = folder / "meta/episodes_stats.jsonl"
    written = path.read_text().splitlines()
    moved = json.loads(written[1])
    moved["stats"]["action"]["mean"][2] += 0.3
    path.write_text("\n".join([written[0], json.dumps(moved), *written[3:]]) + "\n{cut")
    assert told() == {
        "episode_statistics": ["set-000001"],
        "statistics_missing": ["set-000002"],
        "unreadable": ["meta/episodes_stats.jsonl"],
    }
