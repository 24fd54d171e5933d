"""Any frame by its number: the frame that was written, of films with rare key frames, edits, images in rows, recordings and audits."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.config.records import Silent
from components.data.editing.catalogue import Catalogue
from components.data.editing.edit import write_edit
from components.data.editing.parameters import Trim
from components.data.episodes.frames import FrameName, FrameStore
from components.data.episodes.index import EpisodeIndex, IndexedEpisode
from components.data.episodes.place import place_at
from components.data.episodes.refresh import refresh
from components.data.episodes.signals import packed, spans, unpacked
from model_core.spec.errors import DatasetError
from serving.workcell.audit.interface import ActionExecuted, EpisodeEnded
from serving.workcell.audit.log import AuditLog
from serving.workcell.robot.episode_recorder import write_episode
from tests.audit_data import begun, decision, tell_episode
from tests.episodes import BODY, episode, write_dataset
from tests.plain_set import mark_of, plain_episode, write_film, write_plain_set

LENGTH = 60


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("frames")
    episodes = [plain_episode(n, length=LENGTH) for n in range(3)]
    write_plain_set(root / "plain", episodes)
    film = root / "plain/videos/observation.images.front/chunk-000/file-000.mp4"
    film.unlink()  # one key frame for two seconds, and frames that are stored out of order: what many recorders write
    write_film(film, np.concatenate([one.frames_THW3 for one in episodes]), 20, options={"g": "40", "bf": "2", "preset": "medium"})
    write_dataset(root / "ours", [episode(n, length=8) for n in range(2)])
    write_episode(root / "cell", replace(episode(4), body=BODY))
    audit = AuditLog(root / "audit")
    tell_episode(audit, decisions=2)
    tell_bad(audit)
    audit.close()
    return root


def tell_bad(audit: AuditLog) -> None:
    """An episode that ends in a hold after a refusal, with one clipped command."""
    audit.begin_episode(begun("bad-1"))
    audit.decision(decision(1, t_s=100.0, episode_id="bad-1"))
    audit.decision(replace(decision(2, t_s=100.2, episode_id="bad-1"), outcome="refused", chunk=None, code="busy", reason="too many"))
    for step, mode in enumerate(("RUN", "RUN", "HOLD", "HOLD", "SAFE_STOP")):
        clipped = {"dx": 0.1} if step == 1 else {}
        sent_A = np.zeros(4, np.float32)
        audit.executed(ActionExecuted(t_s=100.1 + 0.05 * step, episode_id="bad-1", step=step, mode=mode, sent_A=sent_A, clipped=clipped))
    audit.end_episode(EpisodeEnded(t_s=100.4, episode_id="bad-1", stop_reason="hold_timeout", success=False, steps=5))


@pytest.fixture(scope="module")
def edits(root) -> Catalogue:
    edits = Catalogue(root / "edits", seen=root / "seen")
    path = edits.path_of("short")
    parents = [edits.open(str(root / "plain"))]
    write_edit(path, edits.new_edit("trim", parents, Trim(head=10, tail=5), at=path, who="ana", why="a test"))
    return edits


@pytest.fixture(scope="module")
def index(root, edits) -> EpisodeIndex:
    index = EpisodeIndex(root / "episodes.sqlite")
    places = [place_at(root / name) for name in ("plain", "ours", "cell", "audit")] + [place_at(edits.path_of("short"))]
    assert not [one.problem for one in refresh(index, places, edits, Silent()) if one.problem]
    return index


@pytest.fixture
def store(edits) -> FrameStore:
    return FrameStore(edits)


def find(index: EpisodeIndex, place: str, episode_id: str) -> IndexedEpisode:
    key = next(one.key for one, _, _ in index.places() if one.name == place)
    return index.find(key, episode_id)


def front(number: int) -> FrameName:
    return FrameName(camera="front", number=number)


def test_every_order_of_asking_gives_the_frame_that_was_written(index, store):
    one = find(index, "plain", "plain-000001")
    jumps = [0, 59, 30, 31, 32, 29, 28, 27, 12, 11, 45, 44, 43, 0, 58]
    assert [mark_of(store.pixels(one, front(n))) for n in jumps] == [(1, n) for n in jumps]


def test_an_edit_counts_from_its_own_first_frame(index, store):
    one = find(index, "short", "plain-000002")
    assert one.row.length == LENGTH - 15
    assert [mark_of(store.pixels(one, front(n))) for n in (0, 44, 43)] == [(2, 10), (2, 54), (2, 53)]
    with pytest.raises(DatasetError, match="frames 0 to 44"):
        store.pixels(one, front(45))


def test_a_camera_that_is_not_there_is_told_with_those_that_are(index, store):
    with pytest.raises(DatasetError, match=r"no camera 'wrist'.*front"):
        store.pixels(find(index, "plain", "plain-000000"), FrameName(camera="wrist", number=0))


def test_frames_are_images_of_the_form_that_was_asked_for(index, store):
    one = find(index, "ours", "square-0001")
    wanted = episode(1, length=8).images["front"][3]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(store.image(one, front(3), "png")))), wanted)
    for form in ("jpeg", "webp"):
        image = Image.open(io.BytesIO(store.image(one, front(3), form)))
        assert image.format == form.upper()
        assert np.abs(np.asarray(image, int) - wanted).mean() < 8
    depth = np.asarray(Image.open(io.BytesIO(store.depth(one, front(3)))))
    assert depth.shape == (32, 32, 3)
    assert len(np.unique(depth.reshape(-1, 3), axis=0)) > 50
    with pytest.raises(DatasetError, match="no depth"):
        store.depth(find(index, "plain", "plain-000000"), front(0))


def test_a_recording_shows_what_it_holds(index, store):
    one = find(index, "cell", "square-0004")
    made = episode(4)
    assert np.array_equal(store.pixels(one, front(7)), made.images["front"][7])
    signals = store.signals(one)
    assert signals.series["state"].names == tuple(dim.name for dim in BODY.proprio.dims)
    assert np.array_equal(signals.series["executed"].values_ND, made.executed_TA)
    assert signals.depth == ("front",)


def test_an_audit_shows_frames_of_decisions_traces_and_what_went_wrong(index, store):
    one = find(index, "audit", "button-7")
    seen = decision(2, t_s=100.2)
    assert np.array_equal(store.pixels(one, front(1)), seen.observation.images["front"])
    signals = store.signals(one)
    assert seen.chunk is not None
    assert signals.traces["front"][1].tolist() == np.asarray(seen.chunk.trace_N2).tolist()
    assert signals.series["executed"].values_ND.shape == (8, 4)
    bad = {(mark.kind, mark.text) for mark in store.signals(find(index, "audit", "bad-1")).marks}
    assert bad == {("refusal", "refused: busy: too many"), ("hold", "HOLD"), ("clip", "clipped: dx")}


def test_signals_are_read_from_bytes_as_they_were(index, store):
    signals = store.signals(find(index, "ours", "square-0000"))
    data = packed(signals)
    header, numbers_N = unpacked(data)
    place = header["series"]["action"]["values"]
    count = int(np.prod(place["shape"]))
    action_TA = numbers_N[place["at"] : place["at"] + count].reshape(place["shape"])
    assert np.array_equal(action_TA, episode(0, length=8).actions_TA)
    assert header["frames"]["front"]["shape"] == [8]
    assert len(data) % 4 == 0


def test_spans_are_where_flags_are_set():
    assert spans(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert spans(np.zeros(3, bool)) == []
