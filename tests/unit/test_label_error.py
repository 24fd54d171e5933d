"""The error of labels is measured where truth was recorded beside them, and otherwise it is said why it is not known."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from components.config.records import Silent
from components.data.annotators.interface import Frames, GripperTrack, frames_of
from components.data.annotators.open import Annotators
from components.data.annotators.simulator_truth import TruthDepth, TruthPoint
from components.data.inspection.reporting.passport import make_passport, passport_markdown
from components.data.labelling.label_error import FILE, LabelError
from model_core.spec.errors import DatasetError
from model_core.tokenization.depth.config import DepthScaling
from tests.episodes import episode, write_dataset


@dataclass
class Shifted:
    """A pointing network that is off by so many pixels, in some frames by more."""

    by: float
    far: tuple[int, ...] = ()
    needs_images: bool = False
    version: str = "shifted/1"

    def annotate(self, frames: Frames) -> GripperTrack:
        track = TruthPoint().annotate(frames)
        moved = track.points_T2 + np.array([self.by, 0])
        moved[list(self.far)] += 20
        return replace(track, points_T2=moved)


@dataclass
class Disparity:
    """A depth network: 8-bit disparity, larger where it is nearer."""

    sign: int = 1
    needs_images: bool = False
    version: str = "disparity/1"

    @property
    def scaling(self) -> DepthScaling:
        return DepthScaling(kind="relative")

    def annotate(self, frames: Frames) -> np.ndarray:
        assert frames.depth_m_THW is not None
        return (127 + self.sign * np.round(40 / frames.depth_m_THW)).astype(np.uint8)


def error_of(points: Any, depth: Any, episodes, kept=None) -> LabelError:
    made = LabelError(annotators=Annotators(depth=depth, points=points))
    for one in episodes:
        frames = frames_of(one, "front", (32, 32))
        found = points.annotate(frames) if one.tcp_T3 is not None else track(len(one))
        depth_THW = depth.annotate(frames) if one.depth_m else np.zeros((len(one), 32, 32), np.uint8)
        made.add(frames, found, kept or found, depth_THW)
    return made


def track(length: int) -> GripperTrack:
    return GripperTrack(points_T2=np.full((length, 2), 5.0), visible_T=np.ones(length, bool), confidence_T=np.ones(length, np.float32))


def test_points_are_compared_with_the_simulators():
    told = error_of(Shifted(by=1, far=(0, 5, 6)), TruthDepth(), [episode(0), episode(1)]).document()
    assert (told["estimate"], told["compared_frames"], told["median_px"], told["q95_px"]) == (0.25, 24, 1.0, 29.0)
    assert told["points"] == "shifted/1"
    assert "depth_rank_correlation" not in told


def test_a_point_that_only_one_of_them_sees_is_wrong():
    one = episode(0)
    frames = frames_of(one, "front", (32, 32))
    unseen = replace(
        TruthPoint().annotate(frames),
        visible_T=np.arange(12) > 2,
        points_T2=np.where(np.arange(12)[:, None] > 2, TruthPoint().annotate(frames).points_T2, np.nan),
    )
    made = LabelError(annotators=Annotators(depth=TruthDepth(), points=Shifted(by=0)))
    made.add(frames, unseen, unseen, np.zeros((12, 32, 32)))
    assert made.document()["estimate"] == 0.25


@pytest.mark.parametrize(("sign", "low", "high"), [(1, 0.95, 1.0), (-1, -1.0, -0.95)])
def test_depth_is_compared_by_its_order(sign, low, high):
    told = error_of(TruthPoint(), Disparity(sign=sign), [episode(0)]).document()
    assert low <= told["depth_rank_correlation"] <= high
    assert told["estimate"] == "not measured"
    assert told["why"] == "the points are the simulator's own"


def test_what_cannot_be_known_says_why(tmp_path):
    blind = [episode(0, tcp_T3=None, depth_m={})]
    told = error_of(Shifted(by=1), Disparity(), blind).document()
    assert told["estimate"] == "not measured"
    assert told["why"] == "the recordings hold no truth, and no person looked at the points"
    kept = replace(track(12), points_T2=np.full((12, 2), 8.0), by_T=("Lee",) * 3 + ("",) * 9)
    told = error_of(Shifted(by=1), Disparity(), blind, kept).document()
    assert (told["corrected_frames"], told["corrected_median_px"]) == (3, pytest.approx(18**0.5, abs=1e-3))
    assert "no fair sample" in told["why"]
    truth = error_of(TruthPoint(), TruthDepth(), [episode(0)])
    truth.write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def labels(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "provenance.json").write_text(json.dumps({"episodes": {"square-0000": {}}}))
    (folder / "annotators.json").write_text(json.dumps({"depth": TruthDepth().version, "points": "shifted/1", "codebook": "c"}))
    return folder


def test_the_passport_carries_it(tmp_path, labels):
    root = write_dataset(tmp_path / "set", [episode(n, length=4) for n in range(2)])
    error_of(Shifted(by=1), TruthDepth(), [episode(0)]).write(labels)
    passport = make_passport(root, None, Silent(), labels=labels)
    assert passport["label_error"] == json.loads((labels / FILE).read_text())
    assert "- estimate: 0.0" in passport_markdown(passport)
    (labels / FILE).unlink()
    assert "an older version" in make_passport(root, None, Silent(), labels=labels)["label_error"]["why"]
    (labels / "annotators.json").write_text(json.dumps({"depth": TruthDepth().version, "points": TruthPoint().version}))
    assert "simulator's own truth" in make_passport(root, None, Silent(), labels=labels)["label_error"]["why"]
    (labels / "provenance.json").write_text(json.dumps({"episodes": {"another-0000": {}}}))
    with pytest.raises(DatasetError, match=r"labels 1 episodes that set does not have.*Fix"):
        make_passport(root, None, Silent(), labels=labels)
    with pytest.raises(DatasetError, match=r"is no finished annotation.*Fix"):
        make_passport(root, None, Silent(), labels=root)
