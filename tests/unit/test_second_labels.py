"""A second person's labels: frames drawn fairly, an error with an exact interval, Label Studio's documents read as published."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.data.episodes.place import Place
from components.data.inspection.reporting.passport import _label_error
from components.data.second_labels.agreement import FirstPoints, agreement, trace_agreement
from components.data.second_labels.label_studio import opinions_of, task_of
from components.data.second_labels.opinion import AskedFrame, Opinion, OpinionBook, drawn_frames
from components.data.second_labels.ways import between_ways
from model_core.spec.errors import DatasetError, SpecError
from model_core.statistics.intervals import clopper_pearson

FIRST = {
    "e": FirstPoints(points_T2=np.array([[10.0, 10], [20, 20], [np.nan, np.nan], [40, 40]]), visible_T=np.array([True, True, False, True]))
}
SIZE = (60, 80)  # a diagonal of 100: wrong is more than 5 pixels


def said(frame: int, point: tuple[float, float] | None, author: str = "Bo", **more) -> Opinion:
    return Opinion(asked=AskedFrame(episode="e", camera="front", frame=frame), point=point, size=SIZE, author=author, tool="t", **more)


def test_frames_are_drawn_evenly_over_all_frames_and_once_each():
    lengths = {"short": 10, "long": 90}
    all_frames = drawn_frames(lengths, "front", 500, 0)
    assert len(set(all_frames)) == 100
    assert Counter(one.episode for one in all_frames) == {"short": 10, "long": 90}
    assert {one.frame for one in all_frames if one.episode == "long"} == set(range(90))
    assert drawn_frames(lengths, "front", 20, 3) == drawn_frames(dict(reversed(lengths.items())), "front", 20, 3)
    many = Counter(one.episode for seed in range(200) for one in drawn_frames(lengths, "front", 10, seed))
    assert 0.07 < many["short"] / many.total() < 0.13


def test_an_error_is_a_point_too_far_away_or_seen_by_one_alone():
    told = agreement(FIRST, [said(0, (13, 14)), said(1, (26, 20)), said(2, (1, 1)), said(3, (40, 41)), said(9, (1, 1))])
    assert (told["estimate"], told["compared_frames"], told["without_label"]) == (0.5, 4, 1)
    assert told["interval_95"] == [round(value, 4) for value in clopper_pearson(2, 4)]
    assert told["median_px"] == 5.0
    assert agreement(FIRST, [said(2, None)])["estimate"] == 0.0
    assert agreement(FIRST, [said(0, None)])["estimate"] == 1.0


def test_the_last_word_of_a_person_counts_and_people_are_compared_with_each_other():
    opinions = [
        said(0, (50, 50)),
        said(0, (10, 10)),
        said(0, (30, 30), "Cy"),
        said(1, (20, 20)),
        said(1, (21, 20), "Cy"),
        said(3, None, abstained=True),
    ]
    told = agreement(FIRST, opinions)
    assert (told["estimate"], told["compared_frames"], told["people"], told["abstained"]) == (0.0, 2, 2, 1)
    assert told["between_people"]["pairs"] == 2
    assert told["between_people"]["contradict"] == 1
    nothing = agreement(FIRST, [])
    assert (nothing["estimate"], nothing["why"]) == ("not measured", "no second person looked at the points")


@pytest.mark.parametrize("wrong", [{"point": (70, 1)}, {"point": (float("nan"), 1)}, {"point": (1, 1), "abstained": True}, {"author": " "}])
def test_an_opinion_that_cannot_be_is_refused(wrong):
    with pytest.raises(SpecError):
        replace(said(0, None), **wrong)


def drew(frame: int, *points: tuple[float, float], author: str = "Bo") -> Opinion:
    return replace(said(frame, None, author), what="trace", trace=points)


def test_a_trace_is_wrong_where_it_leaves_the_way_and_not_for_its_points():
    right = [[10, 10, 20, 10, 30, 10, 40, 10, 50, 10], [10, 10, 50, 10]]  # x, y in pixels of 0..59 and 0..79
    traces_T52 = np.full((3, 5, 2), -1)
    for number, way in enumerate(right):
        traces_T52[number].reshape(-1)[: len(way)] = [round(v * 255 / (59 if n % 2 == 0 else 79)) for n, v in enumerate(way)]
    traces_T52[2, 0] = (0, 0)
    first = {"e": traces_T52}
    told = trace_agreement(first, [drew(0, (10, 10), (50, 12)), drew(1, (10, 10), (30, 30), (50, 10)), drew(2, (0, 0)), said(0, (10, 10))])
    assert (told["estimate"], told["compared_frames"], told["people"]) == (round(1 / 3, 4), 3, 1)
    assert told["interval_95"] == [round(value, 4) for value in clopper_pearson(1, 3)]
    assert trace_agreement(first, [drew(0, (50, 10), (10, 10))])["estimate"] == 1.0  # the way back
    two = trace_agreement(first, [drew(0, (10, 10), (50, 10)), drew(0, (10, 40), (50, 40), author="Cy")])
    assert (two["between_people"]["pairs"], two["between_people"]["contradict"]) == (1, 1)
    assert trace_agreement(first, [said(0, (10, 10))])["why"] == "no second person looked at the traces"
    assert agreement(FIRST, [drew(0, (10, 10))])["estimate"] == "not measured"  # a trace is no opinion of the point


def test_ways_are_compared_in_order_and_symmetrically():
    line, back = np.array([[0.0, 0], [10, 0]]), np.array([[10.0, 0], [0, 0]])
    assert between_ways(line, np.array([[0.0, 0], [3, 0], [10, 0]])) == pytest.approx(0)
    assert between_ways(line, line + np.array([0.0, 4])) == pytest.approx(4)
    assert between_ways(line, back) == between_ways(back, line) == pytest.approx(10)
    assert between_ways(line, line[:1]) == pytest.approx(10)


@pytest.mark.parametrize(
    "wrong", [{"trace": ()}, {"trace": ((1, 1),) * 6}, {"trace": ((61, 1),)}, {"trace": ((1, 1),), "abstained": True}, {"point": (1, 1)}]
)
def test_an_opinion_of_a_trace_has_1_to_5_points_in_the_image(wrong):
    with pytest.raises(SpecError):
        replace(drew(0, (1, 1)), **wrong)


def test_opinions_are_kept_once_and_in_order(tmp_path):
    book = OpinionBook(tmp_path, Place(path=Path("/x"), kind="set", name="a set"))
    assert book.add([said(0, (1, 1)), said(1, None)]) == 2
    assert book.add([said(0, (1, 1)), said(0, (2, 2))]) == 1
    lines = [json.loads(line) for line in book.path.read_text().splitlines()]
    assert all(one["entry"].pop("what") == "point" and one["entry"].pop("trace") == [] for one in lines)
    old = OpinionBook(tmp_path / "old", Place(path=Path("/x"), kind="set", name="a set"))
    old._lines.append(lambda _: [one["entry"] for one in lines])  # as it was written before traces were asked for
    assert old.add([said(0, (1, 1)), said(0, (2, 2))]) == 0
    assert old.add([drew(0, (1, 1))]) == 1
    assert [one.point for one in OpinionBook(tmp_path, Place(path=Path("/x"), kind="set", name="a set")).opinions] == [(1, 1), None, (2, 2)]


# as labelstud.io/guide/task_format and labelstud.io/tags/keypointlabels have it
ANNOTATION = {
    "id": "1001",
    "was_cancelled": False,
    "completed_by": 10,
    "updated_at": "2021-03-09T22:16:08.728378Z",
    "result": [
        {
            "from_name": "point", "to_name": "image", "id": "Dx_aB91ISN", "type": "keypointlabels",
            "original_width": 60, "original_height": 80, "image_rotation": 0,
            "value": {"x": 50.0, "y": 25.0, "width": 0.67, "keypointlabels": ["gripper"]},
        }
    ],
}  # fmt: skip
CHOICE = {"from_name": "seen", "to_name": "image", "id": "c", "type": "choices", "value": {"choices": ["not in the image"]}}


def task(*annotations: dict) -> dict:
    return {
        "id": 1,
        "project": 83,
        **task_of(AskedFrame(episode="e", camera="front", frame=3), "frames/00000.png", SIZE),
        "annotations": list(annotations),
    }


def test_finished_tasks_are_read_as_label_studio_publishes_them():
    (point,) = opinions_of([task(ANNOTATION)])
    assert (point.asked.frame, point.point, point.author) == (3, (29.5, 19.5), "user 10")  # 50 % of 60 pixels is between pixels 29 and 30
    assert point.at == "2021-03-09T22:16:08.728378Z"
    (unseen,) = opinions_of([task(ANNOTATION | {"result": [CHOICE]})])
    assert (unseen.point, unseen.abstained) == (None, False)
    (unsure,) = opinions_of([task(ANNOTATION | {"result": [CHOICE | {"value": {"choices": ["cannot tell"]}}]})])
    assert unsure.abstained
    assert opinions_of([task(ANNOTATION | {"was_cancelled": True}), task()]) == []
    assert "annotations" not in task_of(AskedFrame(episode="e", camera="c", frame=0), "x", SIZE)


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ({"image": "x"}, "JSON-MIN"),
        ([{"data": {"image": "x"}}], "task 1"),
        ([task(ANNOTATION | {"result": []})], "one point or one choice"),
        ([task(ANNOTATION | {"result": [ANNOTATION["result"][0], CHOICE]})], "one point or one choice"),
    ],
)
def test_an_export_that_cannot_be_read_says_which_task(tasks, reason):
    with pytest.raises(DatasetError, match=reason):
        opinions_of(tasks)


def test_the_passport_takes_what_a_second_person_said(tmp_path):
    (tmp_path / "second.json").write_text(json.dumps(agreement(FIRST, [said(0, (10, 10))])))
    told = _label_error(tmp_path, tmp_path / "second.json")
    assert (told["estimate"], told["compared_frames"]) == (0.0, 1)
