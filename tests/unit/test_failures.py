"""What went wrong is found, put together by what is alike, and leaves the queue when a person sorted it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.artifacts.audit_files import read_audit
from components.data.episodes.index import IndexedEpisode
from components.data.episodes.place import Place
from components.data.episodes.row import EpisodeRow
from components.data.failures.grouping import grouped
from components.data.failures.incident import Incident, key_of, of_audit, of_outcome, of_points
from components.data.failures.queue import dwell, waiting
from components.data.revisions.change import Caused, Revision
from components.data.revisions.state import revised
from serving.workcell.audit.log import AuditLog
from tests.unit.test_episode_frames import tell_bad

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def one(name: str = "e", *, outcome: str = "failed", ending: str = "", hours_ago: float = 2.0, task: str = "pick") -> IndexedEpisode:
    at = (NOW - timedelta(hours=hours_ago)).isoformat()
    row = EpisodeRow(
        number=0, episode_id=name, task=task, instruction="", robot="", outcome=outcome, producer="", model="m/1", cell="", length=100,
        seconds=10.0, ending=ending, at=at,
    )  # fmt: skip
    place = Place(path=Path("/audit"), kind="audit", name="audit")
    return IndexedEpisode(place=place, state="", row=row, findings=None, revised={})


def at(share: float, *state: float, kind="hold", text: str = "HOLD") -> Incident:
    return Incident(kind=kind, start_s=10 * share, end_s=10 * share, text=text, share=share, state=state)


def test_what_an_audit_notes_is_found_with_the_seconds_before_it(tmp_path):
    audit = AuditLog(tmp_path)
    tell_bad(audit)
    audit.close()
    found = of_audit(read_audit(next(tmp_path.glob("*.mcap"))))
    assert [(incident.kind, incident.text, round(incident.start_s, 2)) for incident in found] == [
        ("clip", "clipped: dx", 0.15),
        ("hold", "HOLD", 0.2),
        ("refusal", "refused: busy: too many", 0.2),
    ]
    assert found[1].clip == (0.0, pytest.approx(found[1].end_s + 2.0))


def test_the_outcome_that_a_person_stated_decides():
    assert [incident.kind for incident in of_outcome(one())] == ["failed"]
    assert of_outcome(one(outcome="solved")) == ()
    assert [i.kind for i in of_outcome(one(outcome="unknown", ending="interrupted"))] == ["interrupted"]
    assert of_outcome(replace(one(), revised={"outcome": "solved"})) == ()
    assert [i.kind for i in of_outcome(replace(one(outcome="solved"), revised={"outcome": "failed"}))] == ["failed"]


def test_frames_without_a_sure_point_are_found_where_they_follow_each_other(tmp_path):
    confidence = np.r_[np.ones(10), np.full(6, 0.2), np.ones(4), np.full(3, 0.2), np.ones(7)]
    pq.write_table(
        pa.table({"episode_id": ["a"] * 30 + ["b"] * 30, "confidence": np.r_[confidence, np.ones(30)]}), tmp_path / "points.parquet"
    )
    found = of_points(tmp_path)
    assert list(found) == ["a"]
    [moment] = [frames.at(10.0) for frames in found["a"]]
    assert (moment.kind, moment.start_s, moment.end_s, moment.share) == ("unsure", 1.0, 1.5, pytest.approx(1 / 3))


def test_moments_are_together_by_kind_words_task_time_and_posture():
    moments = [at(0.1, 0, 0), at(0.12, 0, 0.1), at(0.9, 1, 1), at(0.88, 1, 0.9), at(0.1, 0, 0, text="SAFE_STOP"), at(0.1, 0, 0)]
    groups = grouped(moments, ["pick"] * 5 + ["place"])
    assert [group.members for group in groups] == [(0, 1), (2, 3), (5,), (4,)]
    assert groups[0].title == "hold: HOLD, pick, about 11 % into the episode"


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["HOLD", "SAFE_STOP"]), st.sampled_from(["a", "b"])), max_size=12))
def test_every_moment_is_in_one_group_whatever_the_order(made):
    moments, tasks = [at(share, text=text) for share, text, _ in made], [task for *_, task in made]
    groups = grouped(moments, tasks)
    assert sorted(place for group in groups for place in group.members) == list(range(len(made)))
    for group in groups:
        assert len({(moments[place].text, tasks[place]) for place in group.members}) == 1


def test_many_moments_are_grouped_by_a_part_of_them():
    rng = np.random.default_rng(0)
    shares = np.r_[rng.normal(0.2, 0.01, 1200), rng.normal(0.8, 0.01, 1000)]
    groups = grouped([at(float(share)) for share in shares], ["pick"] * len(shares))
    assert [len(group.members) for group in groups] == [1200, 1000]


def test_the_queue_tells_how_long_things_wait_and_what_is_sorted_leaves_it():
    found = [(one("a", hours_ago=2), at(0.5)), (one("b", hours_ago=30), at(0.5)), (one("c", hours_ago=4), at(0.5))]
    said = Revision(
        number=0, episode="c", change=Caused(causes=("dropped",)), author="A", at=(NOW - timedelta(hours=1)).isoformat(), tool="t"
    )
    stated = revised([said])
    queue = waiting(found, lambda episode: stated.get(episode.row.episode_id), NOW)
    assert [(w.episode.row.episode_id, w.waits_s and round(w.waits_s / 3600)) for w in queue] == [("b", 30), ("a", 2), ("c", None)]
    told = dwell(queue, lambda w: w.episode.row.episode_id in stated)
    assert (told.open, told.sorted, told.oldest_open_h, told.median_sorted_h) == (2, 1, 30.0, 3.0)
    assert len({key_of(episode, incident) for episode, incident in found}) == 3
