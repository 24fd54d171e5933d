"""What changes between two sessions of a set, what a film notes beside its pictures, and an episode that is the end of another one."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.sessions import steady_change
from components.data.inspection.checks.time.delay import video_lag
from components.data.inspection.folder.film_notes import told_by_notes
from components.data.inspection.folder.films import scan_film
from components.data.inspection.measurements.rows.coupling import Coupling
from components.data.inspection.reporting.inspect import inspect_folder, measure
from tests.data_faults.clean_sets import clean_set
from tests.data_faults.faults import all_faults
from tests.data_faults.made_set import write_made_set
from tests.data_faults.table import inject

FAULTS = {
    "the_recorder_was_updated_in_between": "lag_changes",
    "a_session_has_another_zero": "zero_changes",
    "a_session_has_another_gripper": "gripper_changes",
    "an_episode_is_there_again_without_its_beginning": "part_of_another",
}


@pytest.mark.parametrize(
    ("values", "place"), [("aaabbb", 3), ("aaaab", None), ("aaabbbaaa", None), ("aaaaaa", None), ("aabbbb", None), ("", None)]
)
def test_a_change_is_one_step_with_enough_on_either_side(values, place):
    assert steady_change(values) == place


@pytest.mark.parametrize("name", FAULTS)
def test_a_changed_session_is_told_and_no_other_rule_of_rows(name, tmp_path):
    fault = next(one for one in all_faults() if one.name == name)
    report = inspect_folder(inject(fault, "delta_arm", tmp_path / "set"), None, None, pixels=False)
    told = [result.check.id for outcome in ("defect", "risk") for result in report.of(outcome)]
    assert told == [FAULTS[name]]


@pytest.mark.parametrize(("lag", "told", "looked_at"), [(-13, 0, 0), (-12, 1, 1)], ids=["at the edge of the search", "within it"])
def test_a_lag_at_the_edge_of_what_a_short_episode_allows_is_no_evidence(tmp_path, lag, told, looked_at):
    root = write_made_set(tmp_path / "set", clean_set("delta_arm", episodes=1))
    measured = measure(root, None, None, pixels=False)
    (episode,) = measured.episodes
    seen = replace(episode, views={"front": Coupling(lag=lag, peak=0.95, second=0.1)}, frames=54)
    verdict = video_lag(replace(measured, episodes=(seen,)), ValidateConfig())
    assert (len(verdict.faults), verdict.looked_at) == (told, looked_at)


def film(path: Path, notes: dict[str, str]) -> Path:
    import av

    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(notes)
        stream = container.add_stream("libx264", rate=Fraction(10), options={"preset": "ultrafast"})
        stream.width = stream.height = 32
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("digests", [False, True], ids=["from the tables", "from the packets"])
def test_notes_of_a_place_or_a_person_are_told_by_name_and_not_by_value(tmp_path, digests):
    noted = {"com.apple.quicktime.location.ISO6709": "+48.1+011.5/", "artist": "Erika Mustermann", "title": "cups"}
    told = told_by_notes(scan_film(film(tmp_path / "noted.mp4", noted), digests=digests).notes)
    assert sorted(told) == ["a person's name (artist)", "the place where it was taken (com.apple.quicktime.location.ISO6709)"]
    assert told_by_notes(scan_film(film(tmp_path / "plain.mp4", {"title": "cups"}), digests=digests).notes) == ()


def test_notes_of_telephones_and_of_players_are_known_by_their_short_names():
    assert told_by_notes(["\N{COPYRIGHT SIGN}xyz", "\N{COPYRIGHT SIGN}ART", "\N{COPYRIGHT SIGN}too", "handler_name", "encoder"]) == (
        "the place where it was taken (\N{COPYRIGHT SIGN}xyz)",
        "a person's name (\N{COPYRIGHT SIGN}ART)",
    )
