"""A vision tower that is not trained: the same losses and gradients with and without its features on disk, what may be asked for, sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.config.published.training import PartRates, PublishedTraining
from components.config.train_config import TrainConfig
from components.training.published.model import PublishedArm
from components.training.published.networks import fresh_network
from components.training.published.shapes import network_shape
from components.training.published.tower.feature_store import FeatureStore
from components.training.published.tower.frozen_tower import FrozenTower
from components.training.published.tower.opened import tower_digest
from components.training.sizing.counts import parameter_counts
from components.training.sizing.flop import ExampleShape, example_flop
from components.training.sizing.memory import activation_bytes, vision_block_bytes
from components.training.trainable_model import LoraModel
from model_core.network.presets import molmoact_7b_d
from model_core.spec.documents import identity_document
from model_core.spec.errors import JobError, SpecError
from tests.published_checkpoint import processor_of
from tests.tiny_arm_data import write_small_frozen
from tests.unit.test_published_training import CONFIG, CONTRACT, PUBLISHED, measured, step_gradients

pytestmark = pytest.mark.xdist_group("published-training")
FROZEN = replace(CONFIG, precision="fp32", published=replace(PUBLISHED, freeze_tower=True, open_loop_samples=0, loss_ids="language"))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> Path:
    return write_small_frozen(tmp_path_factory.mktemp("tower") / "data", CONTRACT, train=8, validation=2)


def cached(folder: Path) -> TrainConfig:
    return replace(FROZEN, published=replace(FROZEN.published, feature_cache=str(folder)))


def store_of(arm: PublishedArm) -> FeatureStore:
    store = arm._tower(arm.network.processor)._store
    assert store is not None
    return store


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*/*.safetensors"))


@pytest.fixture(scope="module")
def reading(frozen, tmp_path_factory) -> tuple[PublishedArm, Path]:
    """A training with a cache, and its folder."""
    folder = tmp_path_factory.mktemp("features")
    arm = PublishedArm(cached(folder), frozen)
    assert len(list(folder.iterdir())) == 1, "the disk was looked at before the first step"
    return arm, folder


def opened_again(arm: PublishedArm) -> PublishedArm:
    arm._tower.cache_clear()
    return arm


def test_losses_and_gradients_are_equal_bit_for_bit_with_features_computed_or_read(frozen, reading):
    plain, (arm, folder) = PublishedArm(FROZEN, frozen), reading
    loss, gradients = step_gradients(plain, FROZEN)
    assert not any("image_vit" in name for name in gradients)
    assert any("image_projector" in name for name in gradients)
    for computed in (True, False):
        other, others = step_gradients(opened_again(arm), FROZEN)
        assert store_of(arm).computed_views == (len(files(folder)) if computed else 0), "the second time every view is read"
        assert other == loss
        assert others.keys() == gradients.keys()
        assert all(torch.equal(others[name], gradient) for name, gradient in gradients.items())
    assert measured(arm) == measured(plain)
    plain.members[0].train._look = plain.network.processor  # as it is where the tower is trained
    whole, by_view = (one.loss(one.module, one.batch(np.arange(2), seed=0, step=0, micro=0))[0].detach() for one in (plain, arm))
    assert float(whole) == pytest.approx(float(by_view), rel=1e-6), "the network is the same, whatever of it is trained"
    adapted = LoraModel(plain, replace(FROZEN, lora_rank=2))
    trained = [name for name, one in adapted.module.named_parameters() if one.requires_grad]
    assert {part.name for part in adapted.parts()} == {"llm", "connector"}
    assert not any("image_vit" in name for name in trained)
    assert any("image_pooling_2d" in name for name in trained)


def test_a_drawn_trajectory_is_a_view_of_its_own(reading):
    arm, folder = reading
    place = int(np.flatnonzero(arm.members[0].train.possible()["trajectory_conditioned"])[0])
    for path in files(folder):
        path.unlink()
    for kind, expected in (("action_reasoning", 1), ("trace", 1), ("trajectory_conditioned", 2), ("depth", 2)):
        arm.members[0].train.example(place, kind)
        assert len(files(folder)) == expected, kind


def test_a_damaged_file_is_computed_again_and_other_weights_are_not_mixed_up(reading):
    arm, folder = reading
    for path in files(folder):
        path.unlink()
    found = arm.members[0].train.example(0, "depth").images
    (file,) = files(folder)
    whole = file.read_bytes()
    for damage in (whole[:-7], bytes([*whole[:-1], whole[-1] ^ 1]), b""):
        file.write_bytes(damage)
        assert torch.equal(arm.members[0].train.example(0, "depth").images.features_CPD, found.features_CPD)
        assert file.read_bytes() == whole
    digest = tower_digest(arm.module, arm.network.processor, bf16=False)
    assert digest == file.parent.parent.name
    with torch.no_grad():
        arm.module.model.vision_backbone.image_vit.positional_embedding[0, 0] += 1e-3
    assert tower_digest(arm.module, arm.network.processor, bf16=False) != digest


@pytest.mark.parametrize("family", ["d", "o"])
def test_views_of_any_size_are_placed_as_the_processor_places_them(family):
    """Also several, and those of 7B-O's processor, which pads what is not square."""
    model, processor = fresh_network(network_shape(CONFIG), 0), processor_of(family)
    rng = np.random.default_rng(0)
    for sizes in ([(40, 56)], [(56, 56), (30, 90), (20, 20)]):
        views = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
        found, expected = FrozenTower(model.model.vision_backbone, processor, bf16=False)(views), processor(views)
        assert found.image_grids == expected.image_grids
        assert np.array_equal(found.pooled_patches_idx_N4, expected.pooled_patches_idx_N4)
        assert np.array_equal(found.image_masks_CP, expected.image_masks_CP)
        with torch.no_grad():
            features_CPD = model.model.vision_backbone.patch_features(torch.from_numpy(expected.images_CPD))
        assert torch.allclose(found.features_CPD, features_CPD, atol=1e-5)


def test_a_full_disk_is_told(tmp_path):
    store = FeatureStore(tmp_path, "t")
    with pytest.raises(JobError, match=r"up to 3 views of 1048576\.0 MiB need 3072\.0 GiB more, .* GiB free\. Fix: name a folder"):
        store.require_room(3, 2**40)
    (tmp_path / "a-file").write_text("")
    with pytest.raises(JobError, match=r"feature_cache: .*a-file.*Fix: name a folder that can be written to"):
        FeatureStore(tmp_path / "a-file", "t").require_room(3, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"feature_cache": "f"}, "features of a tower that is trained change at every step. Fix: --set train.published.freeze_tower=true"),
        ({"feature_cache": "f", "freeze_tower": True, "augment": True}, "augmented images differ at every draw"),
        ({"feature_cache": "f", "freeze_tower": True, "packing": False}, "padded rows hold the crops of all views together"),
        ({"freeze_tower": True, "learning_rates": PartRates(vit=1e-5)}, "leaves the tower as it is, .*learning_rates.vit gives it a rate"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(changes, said):
    with pytest.raises(SpecError, match=said):
        PublishedTraining(**changes)


def test_stage_3_is_refused_and_the_place_of_the_cache_names_no_other_training(tmp_path):
    with pytest.raises(SpecError, match=r"train\.zero_stage 3 spreads them\. Fix: --set train.zero_stage=2"):
        replace(FROZEN, zero_stage=3, published=replace(FROZEN.published, clip_by_part=False))
    assert identity_document(cached(tmp_path)) == identity_document(FROZEN)
    assert "freeze_tower" not in identity_document(CONFIG)["published"], "earlier trainings keep their names"


def test_a_plan_counts_no_gradient_of_the_tower():
    config, shape = molmoact_7b_d(), ExampleShape(prompt=971, answer=430, image_tokens=784, crops=2, head_rows=430)
    full, less = parameter_counts(config), parameter_counts(config, frozen_tower=True)
    assert full.trained - less.trained == full.vision
    assert parameter_counts(config, 32).trained - parameter_counts(config, 32, frozen_tower=True).trained == 32 * (
        588 + 1152 + 25 * (4 * 2 * 1152 + 2 * (1152 + 4304))
    )
    whole, once, read = (example_flop(config, shape, tower=tower) for tower in ("trained", "frozen", "cached"))
    assert whole.training - once.training == pytest.approx(2 * whole.vision)
    assert once.training - read.training == pytest.approx(whole.vision)
    kept = activation_bytes(config, shape, 2) - activation_bytes(config, shape, 2, frozen_tower=True)
    assert kept == 2 * 2 * 729 * 25 * vision_block_bytes(config)
