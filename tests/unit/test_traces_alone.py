"""Traces without depth: labelled, frozen and taught at the levels "trace+action" and "action", and nothing of depth is made up.

Run: .venv/bin/python -m pytest tests/unit/test_traces_alone.py
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from components.config.data_config import NO_LABELS, AnnotateConfig, FreezeConfig
from components.config.recipe import EvalConfig, PackageConfig, Recipe
from components.config.records import Silent
from components.config.source_config import SourceConfig
from components.config.train_config import CurriculumConfig, TrainConfig
from components.data.annotate import annotate
from components.data.annotators.interface import Frames, GripperTrack, PointAnnotator
from components.data.freeze import freeze
from components.data.frozen_dataset import FrozenSplit, load_split, read_frozen
from components.data.labels import read_labels
from components.data.sources.raw_index import keep_places, write_index
from components.deployment.probe_view import contract_lines
from components.training.plan import curriculum_of, whole_chain
from components.training.tiny_model import TinyArm
from model_core.policy import load_policy
from model_core.spec.errors import DatasetError, SpecError
from model_core.spec.types import DecisionRequest, Observation, RefusalCode, Trace
from model_core.tokenization.compact.layout import ReasoningMode
from tests.own_data import CAMERAS, write_embodiment, write_own_set

EPISODES = 4
TRACES = AnnotateConfig(depth_annotator=NO_LABELS, point_annotator="tests.unit.test_traces_alone:open_square")


@dataclass(frozen=True)
class Square:
    """Points at the middle of the bright square of these images."""

    version: str = "square/1"
    needs_images: bool = True

    def annotate(self, frames: Frames) -> GripperTrack:
        bright_THW = frames.images_THW3.max(axis=3) == 250
        points_T2 = np.array([np.argwhere(image_HW).mean(axis=0)[::-1] for image_HW in bright_THW])
        seen_T = np.ones(frames.count, bool)
        return GripperTrack(points_T2=points_T2, visible_T=seen_T, confidence_T=seen_T.astype(np.float32))


def open_square(_: AnnotateConfig) -> PointAnnotator:
    return Square()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """raw, labels and frozen of a small set."""
    root = tmp_path_factory.mktemp("traces")
    embodiment = write_embodiment(root / "arm.yaml")
    source = SourceConfig(name="bench", path=str(write_own_set(root / "set", EPISODES)), embodiment=str(embodiment), cameras=CAMERAS)
    write_index([source], root / "raw", Silent())
    keep_places(root / "raw", [source])
    (root / "valid.json").write_text(json.dumps({f"bench-{n:06d}": True for n in range(EPISODES)}))
    annotate(TRACES, root / "raw/dataset", root / "valid.json", root / "labels", Silent())
    freeze(FreezeConfig(validation_fraction=0.2, chunk_length=4), root / "raw/dataset", root / "labels", root / "frozen", Silent())
    return root


def test_labels_hold_traces_and_no_depth(made: Path):
    table = pq.read_table(made / "labels/labels/labels-00000.parquet")
    assert "depth_codes" not in table.column_names
    labels = read_labels(made / "labels/labels")
    assert {one.codes_TG is None for one in labels.values()} == {True}
    assert (labels["bench-000000"].trace_T52[0] >= 0).all()
    assert not (made / "labels/vqvae").exists()
    assert json.loads((made / "labels/annotators.json").read_text()) == {"depth": "none", "points": "square/1"}
    whose = json.loads((made / "labels/provenance.json").read_text())
    assert {kind for kinds in whose["episodes"].values() for kind in kinds} == {"points"}


def test_the_contract_says_which_levels_are_taught(made: Path):
    _, contract = read_frozen(made / "frozen")
    assert contract.reasoning.levels == ("trace+action", "action")
    assert contract.reasoning.codebook_digest == ""
    assert contract.reasoning.trace_camera == "front"
    assert contract.reasoning.steering
    split = load_split(made / "frozen", "train")
    assert split.depth_codes_NG is None
    assert split.trace_N52 is not None
    assert split.trace_N52.shape[1:] == (5, 2)
    assert not (made / "frozen/vqvae").exists()
    lines = "\n".join(contract_lines(contract, {}))
    assert "says      up to 5 trace points on front, may be steered" in lines


def test_labels_of_which_only_some_hold_depth_are_refused(made: Path, tmp_path: Path):
    table = pq.read_table(made / "labels/labels/labels-00000.parquet")
    codes = pa.array([[0] * 100] * len(table), pa.list_(pa.uint8(), 100))
    pq.write_table(table, tmp_path / "labels-00000.parquet")
    pq.write_table(table.append_column("depth_codes", codes), tmp_path / "labels-00001.parquet")
    with pytest.raises(DatasetError, match=r"labels-00000.parquet has no column depth_codes. Fix: annotate again"):
        read_labels(tmp_path)


def test_a_curriculum_without_depth_teaches_traces_in_its_place():
    taught = curriculum_of(CurriculumConfig(), ("trace+action", "action"))
    assert {taught.mode_at(step, 200, 0) for step in range(200)} == {
        ReasoningMode.TRACE_ACTION, ReasoningMode.STEERED, ReasoningMode.ACTION
    }  # fmt: skip
    assert whole_chain(("trace+action", "action")) is ReasoningMode.TRACE_ACTION


def test_a_policy_of_traces_answers_its_levels_and_follows_a_drawn_trace(made: Path, tmp_path: Path):
    torch.set_num_threads(1)
    network = {"width": 32, "layers": 1, "heads": 2, "kv_heads": 2, "feed_forward": 64, "projector": 32, "stem": [8, 16]}
    arm = TinyArm(TrainConfig(network=network, steps=4, warmup_steps=1, global_batch=8, micro_batch=8), made / "frozen")
    for step in range(4):  # every mode that the curriculum draws
        loss, _ = arm.loss(arm.module, arm.batch(np.arange(8), seed=0, step=step, micro=0))
        assert torch.isfinite(loss)
    assert {"validation_loss", "validation_loss_trace", "validation_loss_action"} <= set(arm.validate(arm.module))
    arm.export(arm.module.state_dict(), tmp_path / "checkpoint")
    policy = load_policy(tmp_path / "checkpoint", reasoning="trace+action")
    seen = _observed(load_split(made / "frozen", "train"))
    drawn = Trace(points_N2=np.array([[10, 20], [30, 40]]))
    answered, alone, steered, refused = policy.answer(
        [
            DecisionRequest(observation=seen),
            DecisionRequest(observation=seen, level="action"),
            DecisionRequest(observation=replace(seen, steering=drawn)),
            DecisionRequest(observation=seen, level="full"),
        ]
    )
    assert answered.level == "trace+action"
    assert answered.reasoning is not None
    assert answered.reasoning.depth is None
    assert answered.reasoning.trace is not None
    assert alone.reasoning is not None
    assert alone.reasoning.trace is None
    assert steered.reasoning is not None
    assert steered.reasoning.trace is not None
    assert np.array_equal(steered.reasoning.trace.points_N2, drawn.points_N2)
    assert refused.refusal is not None
    assert refused.refusal.code is RefusalCode.CONTRACT
    assert "this policy answers at trace+action, action" in refused.refusal.reason


def _observed(split: FrozenSplit) -> Observation:
    images = {name: split.images_NVHW3[0, view] for view, name in enumerate(CAMERAS)}
    return Observation(images=images, proprio_P=split.proprio_NP[0], instruction=split.instructions[0])


def test_a_recipe_asks_only_for_what_traces_teach():
    data = (SourceConfig(name="bench", path="bench", embodiment="arm.yaml"),)
    with pytest.raises(SpecError, match=r"evaluate.reasoning 'full': without depth labels .*set evaluate.reasoning to \"trace\+action\""):
        Recipe(name="own", data=data, annotate=TRACES)
    levels = {"evaluate": EvalConfig(reasoning="trace+action"), "package": PackageConfig(reasoning="action")}
    assert Recipe(name="own", data=data, annotate=TRACES, **levels).annotate.levels == ("trace+action", "action")
    with pytest.raises(SpecError, match="depth tokens alone teach no level"):
        AnnotateConfig(depth_annotator="truth", point_annotator=NO_LABELS)
    with pytest.raises(SpecError, match="codebook labels depth, and depth_annotator is 'none'"):
        replace(TRACES, codebook="somewhere")
