"""The image processor: equal to the published one where asked, sound by default."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model_core.network.checkpoints.hub import load_pretrained
from model_core.network.config import MolmoActConfig
from model_core.network.image_inputs import ImageInputs, collate_images
from model_core.network.images import ImageProcessor
from model_core.network.presets import molmoact_7b_d, molmoact_7b_o
from model_core.parity import image_parity
from model_core.spec.errors import CheckpointError, SpecError

GOLDEN = Path(__file__).parents[1] / "golden" / "model"
RECORDINGS = sorted((GOLDEN / "image_processor").glob("*.npz"))
SMALL = {"base_image_input_size": (56, 56), "overlap_margins": (1, 1), "max_crops": 4, "max_multi_image_crops": 2}


def frame(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("threads", [1, 2])
def test_published_mode_equals_the_published_processor(recording, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        report = image_parity(recording)
    finally:
        torch.set_num_threads(before)
    assert report.equal, report
    assert report.max_abs_image_diff == 0.0 or "full" in recording.stem


def test_six_recordings_are_compared():
    assert len(RECORDINGS) == 6


def test_published_mode_moves_the_padding_of_a_second_view_and_the_default_does_not():
    views = [frame(256, 256, 1), frame(240, 320, 2)]
    published = ImageProcessor(crop_mode="resize").as_published()(views)
    sound = ImageProcessor(crop_mode="resize")(views)
    per_view = 14 * 14
    first, second = np.split(sound.pooled_patches_idx_N4, [per_view])
    assert (first == published.pooled_patches_idx_N4[:per_view]).all()
    assert (np.where(first >= 0, first + 729, -1) == second).all()
    wrong = published.pooled_patches_idx_N4[per_view:]
    assert ((second == -1) == (wrong == 728)).all()
    assert np.array_equal(sound.images_CPD, published.images_CPD)


def test_a_large_frame_is_brought_into_the_trained_layout_unless_published():
    large = frame(480, 640)
    published = ImageProcessor().as_published()([large])
    assert published.image_grids == (((14, 14), (23, 23)),)
    assert len(published.images_CPD) == 5
    sound = ImageProcessor()([large])
    assert sound.image_grids == (((14, 14), (14, 14)),)
    from PIL import Image

    shrunk = np.asarray(Image.fromarray(large).resize((336, 252), Image.Resampling.LANCZOS))
    assert np.array_equal(sound.images_CPD, ImageProcessor()([shrunk]).images_CPD)
    assert ImageProcessor()([frame(378, 378)]).image_grids == (((14, 14), (14, 14)),)


@pytest.mark.parametrize(
    ("size", "tiling", "tokens"),
    [((256, 256), 1, 424), ((240, 320), 1, 424), ((256, 384), 2, 550), ((360, 640), 2, 550), ((480, 640), 4, 766), ((720, 1280), 8, 1203)],
)
def test_tokens_and_crops_of_the_published_tilings(size, tiling, tokens):
    made = ImageProcessor().as_published()([frame(*size)])
    assert len(made.images_CPD) == 1 + tiling
    assert sum(2 + rows * (cols + 1) for rows, cols in made.image_grids[0]) == tokens
    assert len(made.pooled_patches_idx_N4) == sum(rows * cols for rows, cols in made.image_grids[0])


@pytest.mark.parametrize("size", [(90, 130), (64, 80), (120, 50), (40, 300), (14, 14), (300, 40), (57, 56), (112, 29)])
def test_every_source_patch_of_a_tiling_has_one_owner(size):
    made = ImageProcessor(**SMALL).as_published()([frame(*size)])
    (low_rows, low_cols), (rows, cols) = made.image_grids[0]
    high = made.pooled_patches_idx_N4[low_rows * low_cols :]
    owners = high[high >= 0]
    assert len(np.unique(owners)) == len(owners)
    assert owners.min() >= 16
    assert owners.max() < 16 * len(made.images_CPD)
    assert len(high) == rows * cols


@pytest.mark.parametrize("config", [molmoact_7b_d(), molmoact_7b_o()], ids=["7B-D", "7B-O"])
def test_a_frame_inside_the_base_crop_is_the_same_at_both_resolutions(config):
    both = ImageProcessor.for_network(config, share_equal_crops=False)([frame(240, 320)])
    once = ImageProcessor.for_network(config)([frame(240, 320)])
    assert np.array_equal(both.images_CPD[0], both.images_CPD[1])
    assert len(once.images_CPD) == 1
    patches = once.image_masks_CP.size
    assert np.array_equal(np.where(both.pooled_patches_idx_N4 >= patches, both.pooled_patches_idx_N4 - patches, both.pooled_patches_idx_N4),
                          once.pooled_patches_idx_N4)  # fmt: skip
    assert once.image_grids == both.image_grids


@pytest.mark.parametrize("family", ["tiny_d", "tiny_o"])
def test_the_shared_crop_gives_the_same_features(family):
    torch.set_num_threads(1)
    config = MolmoActConfig.from_json(GOLDEN / family)
    margins = {"overlap_margins": (0, 1), "resize_mode": "siglip", "normalize_mode": "siglip"}
    views = [frame(40, 42, 3), frame(30, 42, 4)]
    once = ImageProcessor.for_network(config, **margins)(views)
    both = ImageProcessor.for_network(config, share_equal_crops=False, **margins)(views)
    assert len(both.images_CPD) == 2 * len(once.images_CPD) == 4
    model = load_pretrained(GOLDEN / family)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_images(**once.tensors()), model.encode_images(**both.tensors()), atol=1e-5, rtol=1e-5)


def test_letterbox_keeps_the_aspect_pads_before_normalising_and_masks():
    made = ImageProcessor.for_network(molmoact_7b_o(), crop_mode="resize")([np.full((100, 200, 3), 255, np.uint8)])
    mask = made.image_masks_CP.reshape(24, 24)
    assert (mask[:6] == 0).all()
    assert (mask[6:18] == 1).all()
    assert (mask[18:] == 0).all()
    black = (0.0 - np.array([0.48145466, 0.4578275, 0.40821073])) / np.array([0.26862954, 0.26130258, 0.27577711])
    np.testing.assert_allclose(made.images_CPD[0, 0].reshape(196, 3)[0], black, atol=1e-5)
    assert ((mask > 0) & (mask < 1)).sum() == 0
    partly = ImageProcessor.for_network(molmoact_7b_o(), crop_mode="resize")([frame(100, 150)]).image_masks_CP
    assert ((partly > 0) & (partly < 1)).any() == (336 - 224) // 2 % 14


def test_one_frame_of_the_crops_own_size_passes_unchanged():
    picture = frame(378, 378)
    made = ImageProcessor(crop_mode="resize")([picture])
    patch = made.images_CPD[0, 27 + 2].reshape(14, 14, 3)
    np.testing.assert_array_equal(np.rint((patch + 1) * 127.5), picture[14:28, 28:42])


def test_collate_pads_short_samples_with_empty_crops_and_indices():
    processor = ImageProcessor(crop_mode="resize", **SMALL)
    one, two = processor([frame(40, 40)]), processor([frame(40, 40), frame(30, 50)])
    batch = collate_images([one, two])
    assert batch["images_BCPD"].shape == (2, 2, 16, 588)
    assert (batch["images_BCPD"][0, 1] == -1).all()
    assert (batch["pooled_patches_idx_BN4"][0, 4:] == -1).all()
    assert (batch["image_masks_BCP"][0, 1] == 0).all()
    torch.testing.assert_close(batch["images_BCPD"][1], torch.from_numpy(two.images_CPD))


def test_settings_come_from_the_published_file_and_go_back(tmp_path):
    processor = ImageProcessor(**SMALL)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor.to_json() | {"processor_class": "x", "published": True}))
    assert ImageProcessor.from_json(tmp_path) == processor
    assert ImageProcessor.from_json('{"base_image_input_size": 56, "overlap_margins": [1, 1]}').grid == (4, 4)
    with pytest.raises(CheckpointError, match="no image processor config"):
        ImageProcessor.from_json(tmp_path / "other.json")
    with pytest.raises(CheckpointError, match="not JSON"):
        ImageProcessor.from_json("{")


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_frame_is_refused(wrong):
    with pytest.raises(SpecError, match="must be"):
        ImageProcessor()([wrong])


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"crop_mode": "other"}, {"resize_mode": "dino"}, {"normalize_mode": "x"}, {"base_image_input_size": (379, 379)}):
        with pytest.raises(SpecError):
            ImageProcessor(**wrong)
    with pytest.raises(SpecError, match="no window"):
        ImageProcessor(overlap_margins=(14, 13))
    with pytest.raises(SpecError, match="at least one image"):
        ImageProcessor()([])


def test_inputs_report_their_grids_as_published():
    made = ImageProcessor(**SMALL).as_published()([frame(90, 130), frame(64, 80)])
    assert isinstance(made, ImageInputs)
    assert made.image_grids_G2.shape == (4, 2)
