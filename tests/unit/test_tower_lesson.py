"""What tower and connector learn beside the answers: lessons are drawn, learned, and leave nothing in the result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from components.training.plan import batch_indices
from components.training.published.model import PublishedArm
from components.training.published.tower.lesson import BatchWithLesson, lesson_loss
from model_core.network.checkpoints.hub import load_pretrained
from model_core.spec.errors import DatasetError, SpecError
from tests.tiny_arm_data import write_small_frozen
from tests.unit.test_published_training import CONFIG, CONTRACT, PUBLISHED

pytestmark = pytest.mark.xdist_group("published-training")
TAUGHT = replace(CONFIG, published=replace(PUBLISHED, tower_images=8))


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> PublishedArm:
    torch.set_num_threads(1)
    return PublishedArm(TAUGHT, write_small_frozen(tmp_path_factory.mktemp("lesson") / "data", CONTRACT, train=24, validation=6))


def drawn(arm: PublishedArm, step: int, micro: int = 0) -> BatchWithLesson:
    indices = batch_indices(TAUGHT.seed, step, 4, arm.num_samples)[2 * micro : 2 * micro + 2]
    batch = arm.batch(indices, seed=TAUGHT.seed, step=step, micro=micro)
    assert isinstance(batch, BatchWithLesson)
    return batch


def test_a_lesson_follows_from_seed_step_and_micro_batch_which_share_its_images(arm: PublishedArm) -> None:
    one, again, other = drawn(arm, 3), drawn(arm, 3), drawn(arm, 3, micro=1)
    assert len(one.lesson.points_S52) == 4
    assert torch.equal(one.lesson.images["images_BCPD"], again.lesson.images["images_BCPD"])
    assert not torch.equal(one.lesson.points_S52, other.lesson.points_S52)
    split = arm.members[0].train.split
    assert split.trace_N52 is not None
    points_N52 = torch.from_numpy(split.trace_N52.astype(np.float32)) / 255 - 0.5
    assert all(any(torch.equal(points, known) for known in points_N52) for points in one.lesson.points_S52)


def test_it_is_added_to_the_loss_of_the_answers_and_teaches_the_tower(arm: PublishedArm) -> None:
    batch = drawn(arm, 1)
    with torch.no_grad():
        total, parts = arm.loss(arm.module, batch)
        answers, _ = arm.loss(arm.module, batch.examples)
    assert float(total) == pytest.approx(float(answers + parts["loss_tower"]), rel=1e-6)
    assert float(parts["loss_tower"]) == pytest.approx(5 * float(parts["loss_trajectory"]) + float(parts["loss_depth"]), rel=1e-6)

    tower = arm.module.model.vision_backbone
    before = {name: value.clone() for name, value in arm.module.state_dict().items()}
    optimizer = torch.optim.AdamW(tower.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        lesson_loss(arm.module, batch.lesson)["tower"].backward()
        optimizer.step()
    with torch.no_grad():
        learned = lesson_loss(arm.module, batch.lesson)
    assert float(learned["trajectory"]) < 0.5 * float(parts["loss_trajectory"])
    assert float(learned["depth"]) < 0.8 * float(parts["loss_depth"])
    moved = {name for name, value in arm.module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all("vision_backbone" in name for name in moved)


def test_the_result_holds_no_heads(arm: PublishedArm, tmp_path) -> None:
    assert sum(part.name == "connector" for part in arm.parts()) == 1
    arm.export(arm.module.state_dict(), tmp_path / "out")
    names = set(load_pretrained(tmp_path / "out").state_dict())
    assert not any("tower_heads" in name for name in names)
    assert names == set(PublishedArm(CONFIG, arm.frozen.members[0].folder).module.state_dict())


def test_what_a_lesson_cannot_teach_is_refused(tmp_path) -> None:
    with pytest.raises(SpecError, match="freeze_tower leaves it as it is"):
        replace(PUBLISHED, tower_images=8, freeze_tower=True)
    with pytest.raises(SpecError, match="adapters go on from one that was trained"):
        replace(TAUGHT, lora_rank=4)
    bare = write_small_frozen(tmp_path / "data", CONTRACT, train=24, validation=6)
    arm = PublishedArm(CONFIG, bare)
    arm.members[0].train.split = replace(arm.members[0].train.split, trace_N52=None)
    arm.config = TAUGHT
    with pytest.raises(DatasetError, match="has no trajectories to read"):
        arm._tower_lesson()
