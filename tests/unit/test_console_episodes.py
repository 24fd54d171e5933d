"""Episodes on the console: found, looked at, sorted and made into a version by people who may; nothing for those who may not."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.artifacts.step_store import StepStore
from components.config.records import Silent
from components.data.annotators.interface import GripperTrack
from components.data.episodes.signals import unpacked
from components.data.labelling.provenance import ProvenanceTable, write_points
from components.data.labelling.traces import RefinedTrack, trace_labels
from components.data.labels import EpisodeLabels, write_labels
from flows.pipeline.episodes.library import episode_library
from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from flows.web.console_endpoints import console_endpoints
from flows.web.http.people import People
from serving.workcell.audit.log import AuditLog
from serving.workcell.robot.episode_recorder import write_episode
from tests.audit_data import tell_episode
from tests.console_parts import TOKENS, client_of, tokens
from tests.episodes import BODY, episode, write_dataset
from tests.unit.test_episode_frames import tell_bad

EVIL = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("console")
    write_dataset(root / "ours", [episode(n, length=8 + n, success=n != 1, instruction=EVIL if n == 2 else "push it") for n in range(3)])
    write_episode(root / "cell", replace(episode(7), episode_id="bad-1", body=BODY, success=False))
    audit = AuditLog(root / "audit")
    tell_episode(audit, decisions=1)
    tell_bad(audit)
    audit.close()
    return root


@pytest.fixture
def platform(made, tmp_path) -> Platform:
    root = Path(shutil.copytree(made, tmp_path / "places"))
    settings = Settings(home=root / "home", data=root / "elsewhere" / "data", runs=root / "runs")
    episode_library(settings).refresh([root / "ours", root / "cell", root / "audit"], Silent())
    return Platform(settings=settings, store=StepStore(settings.store_root))


@pytest.fixture
def client(platform):
    people = People(None)
    return client_of(console_endpoints(platform, people), people)


def row_of(client, episode: str) -> dict:
    return next(row for row in client.get("/api/episodes").json()["rows"] if row["episode"] == episode)


def test_a_failed_episode_is_found_looked_at_sorted_and_put_into_a_version(client, monkeypatch):
    monkeypatch.setattr("flows.pipeline.data_sets.record", lambda platform, folder: "")  # DVC: tests/integration/test_dvc.py
    table = client.get("/api/episodes", params={"outcome": "failed", "kind": "set"}).json()
    assert (table["total"], table["rows"][0]["episode"]) == (1, "square-0001")
    where = {"place": table["rows"][0]["place"], "episode": "square-0001"}
    page = client.get("/api/episode", params=where).json()
    assert [(one["name"], one["frames"]) for one in page["cameras"]] == [("front", 9)]
    frame = client.get("/api/episode/frame", params={**where, "camera": "front", "number": 4, "state": page["state"]})
    assert Image.open(io.BytesIO(frame.content)).size == (32, 32)
    assert "immutable" in frame.headers["cache-control"]
    assert client.get("/api/episode/depth", params={**where, "camera": "front", "number": 4}).headers["content-type"] == "image/png"
    header, _ = unpacked(client.get("/api/episode/signals", params=where).content)
    assert header["series"]["action"]["values"]["shape"] == [9, 4]

    order = {
        "place": where["place"],
        "episodes": ["square-0001"],
        "changes": {"causes": {"causes": ["dropped"]}, "trim": {"first": 2, "end": 7}},
    }
    assert client.post("/api/revisions", json=order).json()["revisions"] == [0, 1]
    assert client.post("/api/revisions", json=order | {"changes": {"include": {"included": False}}}).json()["revisions"] == [2]
    assert client.post("/api/revisions/undo", json={"place": where["place"], "revision": 2}).json()["revisions"] == [3]
    page = client.get("/api/episode", params=where).json()
    assert (page["first"], page["end"], page["line"]["choice"], page["line"]["causes"]) == (2, 7, "", ["dropped"])
    assert [(one["kind"], one["is_undone"]) for one in page["revisions"]] == [
        ("causes", False),
        ("trim", False),
        ("include", True),
        ("undo", False),
    ]
    assert {one["tool"] for one in page["revisions"]} == {"console"}
    made = client.post("/api/versions", json={"place": where["place"], "name": "sorted", "why": "a test"}).json()
    assert (made["episodes"], made["left_out"], Path(made["edits"][-1]).name) == (3, 0, "sorted.yaml")


def test_the_queue_groups_what_went_wrong_and_forgets_what_was_sorted(client):
    queue = client.get("/api/failures").json()
    assert queue["kinds"] == {"failed": 3, "clip": 1, "hold": 1, "refusal": 1}
    assert queue["dwell"]["open"] == len(queue["rows"]) == 6
    held = next(row for row in queue["rows"] if row["kind"] == "hold")
    assert "HOLD" in queue["titles"][held["group"]]
    assert held["recorded"] == client.get("/api/episodes", params={"kind": "recordings"}).json()["rows"][0]["place"]
    order = {"place": held["place"], "episodes": ["bad-1"], "changes": {"dismiss": {}}}
    assert client.post("/api/revisions", json=order).status_code == 200
    again = client.get("/api/failures").json()
    assert (again["dwell"]["open"], again["dwell"]["sorted"], len(again["rows"])) == (2, 4, 2)
    assert len(client.get("/api/failures", params={"sorted": "true"}).json()["rows"]) == 6


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [
        ("/api/episode", {"place": "0" * 12, "episode": "x"}, 404),
        ("/api/episode", {"place": "../../etc", "episode": "passwd"}, 404),
        ("/api/episode/frame", {"episode": "square-0001", "camera": "../front", "number": 0}, 409),
        ("/api/episode/frame", {"episode": "square-0001", "camera": "front", "number": -1}, 409),
        ("/api/episode/frame", {"episode": "square-0001", "camera": "front", "number": 0, "form": "svg"}, 400),
        ("/api/episodes", {"sort": "1; DROP TABLE"}, 400),
        ("/api/episodes", {"limit": 100_000}, 400),
        ("/api/episodes", {"colour": "red"}, 400),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(client, path, params, status):
    place = row_of(client, "square-0001")["place"]
    found = client.get(path, params={"place": place, **params} if path != "/api/episodes" else params)
    assert found.status_code == status, found.text
    assert "reason" in found.json()


def test_orders_that_do_not_fit_change_nothing(client):
    place = row_of(client, "square-0001")["place"]
    wrong = [
        ("/api/revisions", {"place": place, "episodes": [], "changes": {"dismiss": {}}}, 400),
        ("/api/revisions", {"place": place, "episodes": ["square-0001"], "changes": {"undo": {"revision": 0}}}, 400),
        ("/api/revisions", {"place": place, "episodes": ["square-0001"], "changes": {"delete": {}}}, 400),
        ("/api/revisions", {"place": place, "episodes": ["square-0001"], "changes": {"causes": {"causes": [EVIL]}}}, 400),
        ("/api/revisions", {"place": place, "episodes": ["square-0001", "gone"], "changes": {"dismiss": {}}}, 404),
        ("/api/versions", {"place": place, "name": "../../x", "why": "y"}, 400),
        ("/api/versions", {"place": place, "name": "x", "why": " "}, 400),
        ("/api/versions", {"place": row_of(client, "button-7")["place"], "name": "x", "why": "y"}, 409),
    ]
    for path, body, status in wrong:
        found = client.post(path, json=body)
        assert found.status_code == status, (body, found.text)
    assert client.get("/api/episode", params={"place": place, "episode": "square-0001"}).json()["revisions"] == []


def test_who_may_only_observe_orders_nothing(platform):
    client = client_of(console_endpoints(platform, people := People(tokens())), people)
    seen = {"authorization": f"Bearer {TOKENS['observe']}"}
    assert client.get("/api/episodes", headers=seen).json()["total"] == 6
    assert client.get("/api/episodes").status_code == 401
    for path in ("/api/revisions", "/api/revisions/undo", "/api/versions", "/api/places/read"):
        assert client.post(path, json={}, headers=seen).status_code == 403


def test_a_second_person_labels_frames_one_after_the_other_without_their_labels(client):
    place = row_of(client, "square-0001")["place"]
    asked = client.get("/api/label", params={"place": place, "count": 5}).json()
    assert (asked["done"], asked["total"], set(asked)) == (0, 5, {"episode", "camera", "frame", "frames", "done", "total"})
    answer = {"place": place, "episode": asked["episode"], "camera": asked["camera"], "frame": asked["frame"], "point": [0.5, 0.25]}
    assert client.post("/api/label", json=answer).json()["added"] == 1
    assert client.post("/api/label", json=answer).json()["added"] == 0
    assert client.post("/api/label", json=answer | {"point": [1.5, 0]}).status_code == 400
    again = client.get("/api/label", params={"place": place, "count": 5}).json()
    assert again["done"] == 1
    assert (again["episode"], again["frame"]) != (asked["episode"], asked["frame"])
    told = client.get("/api/label/agreement", params={"place": place}).json()
    assert (told["estimate"], "no finished annotation labels episodes of ours" in told["why"]) == (None, True)


def labelled(folder: Path, lengths: dict[str, int]) -> None:
    """A finished annotation: the gripper in the middle of each 32 x 32 image, and unsure of the frames from the third to the eighth."""
    tracks, labels = {}, {}
    for name, length in lengths.items():
        sure_T = np.where((np.arange(length) >= 2) & (np.arange(length) < 8), 0.3, 1.0).astype(np.float32)
        track = GripperTrack(points_T2=np.full((length, 2), 15.5), visible_T=np.ones(length, bool), confidence_T=sure_T)
        tracks[name] = RefinedTrack(track=track, unsure_T=sure_T < 0.5, outlier_T=np.zeros(length, bool))
        labels[name] = EpisodeLabels(trace_T52=trace_labels(track, (32, 32), 5, "a test"))
    write_points(folder / "points", tracks)
    write_labels(folder / "labels", labels, {})
    table = ProvenanceTable(episodes={name: {"points": [[0, length, 0]]} for name, length in lengths.items()})
    table.write(folder / "provenance.json")


def test_unsure_labels_are_in_the_queue_and_second_labels_are_compared_with_those_of_the_set(client, platform):
    place = row_of(client, "square-0001")["place"]
    labelled(platform.settings.store_root / "annotate" / "a", {f"square-000{n}": 8 + n for n in range(3)})
    labelled(platform.settings.data / "annotate", {"square-0001": 100})  # of another set, whose episode has this name, too
    queue = client.get("/api/failures", params={"kind": "unsure"}).json()
    assert (queue["kinds"]["unsure"], len({row["group"] for row in queue["rows"]})) == (3, 2)  # two tasks
    assert {(row["set"], round(row["start_s"], 2)) for row in queue["rows"]} == {("ours", 0.1)}
    for what, answer in (("point", {"point": [0.5, 0.5]}), ("trace", {"point": None, "trace": [[0.5, 0.5], [0.9, 0.5]]})):
        asked = client.get("/api/label", params={"place": place, "what": what}).json()
        assert (asked["done"], asked["frames"]) == (0, 8 + int(asked["episode"][-1]))
        where = {"place": place, "what": what, "episode": asked["episode"], "camera": asked["camera"], "frame": asked["frame"]}
        assert client.post("/api/label", json=where | answer).json()["added"] == 1
        told = client.get("/api/label/agreement", params={"place": place, "what": what}).json()
        assert (told["frames"], told["estimate"]) == (1, 0.0 if what == "point" else 1.0)
    assert client.post("/api/label", json=where | {"point": [0.5, 0.5]}).status_code == 400  # neither one nor the other
