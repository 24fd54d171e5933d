import json
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.config.data_config import AnnotateConfig, VqvaeConfig
from components.config.records import Silent
from components.data.annotate import Labelling, annotate
from components.data.annotators.cache import AnswerCache
from components.data.annotators.interface import Frames, GripperTrack
from components.data.annotators.open import Annotators, open_annotators
from components.data.annotators.simulator_truth import TruthDepth, TruthPoint
from components.data.labelling.views import View
from components.data.labels import read_labels
from model_core.spec.episode import CameraGeometry, Episode, Provenance
from model_core.spec.errors import DatasetError, GateError, SpecError
from model_core.tokenization.depth.codec import DepthCodec
from tests.faults.fork_server import ForkServer

SIZE = 80
QUICK = AnnotateConfig(vqvae=VqvaeConfig(steps=12, batch=4, frames=60), max_rejected_fraction=0.5)
LENGTHS = [9, 3, 12, 1]


def geometry() -> CameraGeometry:
    intrinsics = np.array([[80.0, 0, 39.5], [0, 80.0, 39.5], [0, 0, 1.0]])
    return CameraGeometry(width=SIZE, height=SIZE, intrinsics_33=intrinsics, world_to_camera_44=np.eye(4))


def episode(index: int, length: int) -> Episode:
    rng = np.random.default_rng(index)
    depth = np.full((length, SIZE, SIZE), 2.0, np.float32)
    depth[:, 20:50, 10 + index : 40 + index] = rng.uniform(0.5, 1.5)
    tcp = np.stack([np.linspace(-0.3, 0.3, length), np.linspace(0.1, -0.2, length), np.ones(length)], axis=1).astype(np.float32)
    return Episode(
        episode_id=f"e-{index}",
        embodiment="test",
        task="t",
        instruction="do it",
        success=True,
        provenance=Provenance(producer="expert:x", cell="c", seed=index),
        images={"front": rng.integers(0, 256, (length, SIZE, SIZE, 3), np.uint8)},
        depth_m={"front": depth},
        geometry={"front": geometry()},
        proprio_TP=np.zeros((length, 4), np.float32),
        actions_TA=np.zeros((length, 4), np.float32),
        executed_TA=np.zeros((length, 4), np.float32),
        timestamps_T=np.arange(length) / 20,
        tcp_T3=tcp,
    )


@dataclass
class Listed:
    """A data set in memory."""

    episodes: list[Episode]

    def episode(self, index: int, *, images: bool, depth: bool) -> Episode:
        del depth
        found = self.episodes[index]
        return found if images else replace(found, images={})


@dataclass
class Counting:
    """An annotator that looks at pictures and counts how often."""

    truth: TruthDepth | TruthPoint
    tag: str = "a"
    calls: int = 0

    @property
    def version(self) -> str:
        return f"{self.tag}/{self.truth.version}"

    @property
    def scaling(self):
        return self.truth.scaling

    @property
    def needs_images(self) -> bool:
        return True

    def annotate(self, frames: Frames):
        assert len(frames.images_THW3) == frames.count
        self.calls += 1
        return self.truth.annotate(frames)


def job(episodes: list[Episode], cache: Path, annotators: Annotators | None = None, cfg: AnnotateConfig = QUICK) -> Labelling:
    who = annotators or open_annotators(cfg)
    front = View(camera="front", size=(SIZE, SIZE), body=None)
    return Labelling(cfg=cfg, annotators=who, source=Listed(episodes), view_of=lambda _: front, cache=AnswerCache(folder=cache))


def chosen(episodes: list[Episode]) -> list[tuple[int, str, int]]:
    return [(index, e.episode_id, len(e)) for index, e in enumerate(episodes)]


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and "scratch" not in p.parts}


@pytest.fixture
def episodes() -> list[Episode]:
    return [episode(i, length) for i, length in enumerate(LENGTHS)]


def test_every_frame_has_depth_and_trace_and_equal_work_equal_bytes(episodes, tmp_path):
    record = job(episodes, tmp_path / "cache").run(chosen(episodes), tmp_path / "a", Silent())
    job(episodes, tmp_path / "cache").run(chosen(episodes), tmp_path / "b", Silent())
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert (record["episodes"], record["rejected"], record["frames"]) == (4, 0, sum(LENGTHS))
    table = pq.read_table(tmp_path / "a" / "labels" / "labels-00000.parquet")
    assert table["episode_id"].to_pylist()[:9] == ["e-0"] * 9
    assert table["frame_index"].to_pylist()[9:12] == [0, 1, 2]
    assert {len(codes) for codes in table["depth_codes"].to_pylist()} == {100}
    traces = table["trace"].to_pylist()
    assert [len(t) // 2 for t in traces[:9]] == [5, 5, 5, 5, 5, 4, 3, 2, 1] == table["trace_len"].to_pylist()[:9]
    assert max(max(t) for t in traces) <= 255
    assert traces[0][-2:] == traces[8]
    codec = DepthCodec.load(tmp_path / "a" / "vqvae")
    assert record["annotators"]["codebook"] == codec.digest
    assert json.loads(table.schema.metadata[b"annotators"])["codebook"] == codec.digest
    assert np.array_equal(codec.encode(episodes[0].depth_m["front"])[4], table["depth_codes"].to_pylist()[4])


def test_a_given_codebook_labels_and_one_of_another_size_is_refused(episodes, tmp_path):
    job(episodes[:1], tmp_path / "cache").run(chosen(episodes[:1]), tmp_path / "first", Silent())
    codebook = DepthCodec.load(tmp_path / "first" / "vqvae")
    cfg = replace(QUICK, codebook=str(tmp_path / "first" / "vqvae"))
    record = job(episodes, tmp_path / "cache", cfg=cfg).run(chosen(episodes), tmp_path / "second", Silent())
    assert record["annotators"]["codebook"] == codebook.digest == DepthCodec.load(tmp_path / "second" / "vqvae").digest
    table = pq.read_table(tmp_path / "second" / "labels" / "labels-00000.parquet")
    assert np.array_equal(codebook.encode(episodes[2].depth_m["front"])[0], table["depth_codes"].to_pylist()[LENGTHS[0] + LENGTHS[1]])
    smaller = replace(cfg, vqvae=replace(cfg.vqvae, num_codes=64))
    with pytest.raises(DatasetError, match=r"annotate.codebook .*expected 64 codes .*got 128. Fix: --set annotate.vqvae.num_codes=128"):
        job(episodes, tmp_path / "cache", cfg=smaller).run(chosen(episodes), tmp_path / "third", Silent())


def lost_depth(e: Episode) -> Episode:
    depth = e.depth_m["front"].copy()
    depth[1, 2, 3] = np.nan
    return replace(e, depth_m={"front": depth})


REJECTIONS = [
    ("frame 1", lost_depth),
    ("no depth was recorded", lambda e: replace(e, depth_m={})),
    ("not found in any frame", lambda e: replace(e, tcp_T3=e.tcp_T3 + np.array([9, 0, 0], np.float32))),
    ("no gripper tip", lambda e: replace(e, tcp_T3=None)),
]


@pytest.mark.parametrize(("reason", "spoil"), REJECTIONS)
def test_frames_without_a_label_reject_their_episode(episodes, tmp_path, reason, spoil):
    episodes[2] = spoil(episodes[2])
    record = job(episodes, tmp_path / "cache").run(chosen(episodes), tmp_path / "out", Silent())
    rejected = json.loads((tmp_path / "out" / "rejected.json").read_text())
    assert list(rejected) == ["e-2"]
    assert reason in rejected["e-2"]
    assert record["episodes"] == 3
    assert "e-2" not in pq.read_table(tmp_path / "out" / "labels")["episode_id"].to_pylist()


def test_nothing_to_label_is_an_error(tmp_path):
    bad = [replace(episode(0, 5), depth_m={})]
    with pytest.raises(GateError, match=r"at least 1 of 1 episodes of unknown fall away, at most 50%.*no depth was recorded"):
        job(bad, tmp_path / "cache").run(chosen(bad), tmp_path / "out", Silent())
    every = replace(QUICK, max_rejected_fraction=1.0)  # where all may fall away, nothing is left to make labels for
    with pytest.raises(DatasetError, match="no depth was recorded"):
        job(bad, tmp_path / "cache", cfg=every).run(chosen(bad), tmp_path / "out", Silent())
    with pytest.raises(SpecError, match=r"annotate.depth_annotator: expected one of truth, depth_anything, got 'guess'"):
        replace(QUICK, depth_annotator="guess")


def test_another_pointer_leaves_depth_answers_in_place(episodes, tmp_path):
    depth, points = Counting(TruthDepth()), Counting(TruthPoint())
    job(episodes, tmp_path / "cache", Annotators(depth=depth, points=points)).run(chosen(episodes), tmp_path / "a", Silent())
    assert (depth.calls, points.calls) == (4, 4)
    other = Counting(TruthPoint(), tag="b")
    job(episodes, tmp_path / "cache", Annotators(depth=depth, points=other)).run(chosen(episodes), tmp_path / "b", Silent())
    assert (depth.calls, other.calls) == (4, 4)
    error = json.loads((tmp_path / "b/label_error.json").read_text())
    assert (error["estimate"], error["compared_frames"], error["depth_rank_correlation"]) == (0.0, sum(LENGTHS), 1.0)
    changed = [replace(episodes[0], images={"front": episodes[0].images["front"] // 2}), *episodes[1:]]
    job(changed, tmp_path / "cache", Annotators(depth=depth, points=other)).run(chosen(changed), tmp_path / "c", Silent())
    assert (depth.calls, other.calls) == (5, 5)


def test_a_broken_answer_never_stays(tmp_path):
    cache = AnswerCache(folder=tmp_path)

    def fail() -> dict:
        raise DatasetError("no")

    with pytest.raises(DatasetError):
        cache.fetch("v", "d" * 64, fail)
    assert list(cache.fetch("v", "d" * 64, lambda: {"x": np.ones(2)})["x"]) == [1, 1]
    assert list(cache.fetch("v", "d" * 64, fail)["x"]) == [1, 1]


def test_tip_behind_something_is_known_but_less_sure():
    e = episode(0, 9)
    depth = np.full((9, SIZE, SIZE), 2.0, np.float32)
    depth[:4] = 0.5
    frames = Frames(images_THW3=e.images["front"], size=(SIZE, SIZE), depth_m_THW=depth, tcp_T3=e.tcp_T3, geometry=geometry(), count=9)
    track: GripperTrack = TruthPoint().annotate(frames)
    assert track.visible_T.all()
    assert track.confidence_T.tolist() == [0.5] * 4 + [1.0] * 5


def label_twelve_episodes(folder: str, ending: str = "") -> None:
    """In a process of its own. ending: "killed" when the first episode is to be labelled."""
    episodes = [episode(i, 10) for i in range(12)]
    work = job(episodes, Path(folder) / "cache")
    if ending:
        work._label = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    work.run(chosen(episodes), Path(folder) / "out", Silent())


@pytest.mark.xdist_group("ranks")
def test_a_killed_run_goes_on_and_ends_the_same(ranks: ForkServer, tmp_path: Path) -> None:
    work = ("call", "tests.integration.test_annotate:label_twelve_episodes")
    assert ranks.run(*work, str(tmp_path / "x"), "killed", under=tmp_path).code == -signal.SIGKILL
    assert not (tmp_path / "x" / "out" / "labels").exists()
    codebook = tmp_path / "x" / "out" / "vqvae" / "model.safetensors"
    written = codebook.stat().st_mtime_ns
    time.sleep(0.01)
    for name in ("x", "y"):
        assert ranks.run(*work, str(tmp_path / name), under=tmp_path).code == 0
    assert codebook.stat().st_mtime_ns == written
    assert content(tmp_path / "x" / "out") == content(tmp_path / "y" / "out")


def test_annotate_reads_a_recorded_data_set(tmp_path):
    writer = pytest.importorskip("components.data.lerobot.writer")
    simulator = pytest.importorskip("components.simulation.metaworld")
    episodes = [replace(episode(i, 10), embodiment="metaworld-sawyer") for i in range(3)]
    folder = tmp_path / "set"
    with writer.DatasetWriter(folder, embodiment=simulator.embodiment()) as recorder:
        for e in episodes:
            recorder.add(e)
    valid = tmp_path / "valid.json"
    valid.write_text(json.dumps({"e-0": True, "e-1": False, "e-2": True}))
    record = annotate(QUICK, folder, valid, tmp_path / "out", Silent())
    assert record["episodes"] == 2
    assert set(pq.read_table(tmp_path / "out" / "labels")["episode_id"].to_pylist()) == {"e-0", "e-2"}
    valid.write_text("{}")
    with pytest.raises(DatasetError, match="nothing to annotate"):
        annotate(QUICK, folder, valid, tmp_path / "none", Silent())


def test_cameras_of_several_embodiments_are_labelled_by_one_codebook(episodes, tmp_path):
    """The last two episodes are of a robot whose only camera has another name and size."""
    wide = SIZE + 20
    for index in (2, 3):
        one = episodes[index]
        pixels = np.pad(one.images["front"], ((0, 0), (0, 0), (0, 20), (0, 0)))
        depth = np.pad(one.depth_m["front"], ((0, 0), (0, 0), (0, 20)), constant_values=2.0)
        seen = {"images": {"top": pixels}, "depth_m": {"top": depth}, "geometry": {"top": replace(geometry(), width=wide)}}
        episodes[index] = replace(one, **seen)
    views = [View(camera="front", size=(SIZE, SIZE), body=None), View(camera="top", size=(SIZE, wide), body=None)]
    made = replace(job(episodes, tmp_path / "cache"), view_of=lambda index: views[index >= 2])
    record = made.run(chosen(episodes), tmp_path / "out", Silent())
    assert (record["episodes"], record["rejected"]) == (4, 0)
    labels = read_labels(tmp_path / "out/labels")
    codec = DepthCodec.load(tmp_path / "out/vqvae")
    for index, camera in ((0, "front"), (3, "top")):
        one = episodes[index]
        assert np.array_equal(labels[one.episode_id].codes_TG, codec.encode(one.depth_m[camera]))
    provenance = json.loads((tmp_path / "out/provenance.json").read_text())
    whose = {
        episode_id: {provenance["records"][number]["parameters"]["camera"] for ranges in kinds.values() for *_, number in ranges}
        for episode_id, kinds in provenance["episodes"].items()
    }
    assert whose == {"e-0": {"front"}, "e-1": {"front"}, "e-2": {"top"}, "e-3": {"top"}}
