"""Novelty: calibrated by held-out frames, near 1 for scenes that were never recorded, and a file that is refused where it is broken."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from components.release.novelty_reference import write_reference
from model_core.bundle import NOVELTY, NOVELTY_BYTES
from model_core.spec.errors import CheckpointError, SpecError
from model_core.spec.execution.novelty import MOST_FRAMES, NoveltyReference, novelty_of_episode, reference_of, spread, thumbnail
from model_core.spec.types import Observation
from serving.gateway.inference.bundle import _novelty_reference
from serving.gateway.operations.novelty_meter import NoveltyMeasurement, NoveltyMeter
from tests.tiny_arm_data import make_small_contract, write_small_frozen

RNG = np.random.default_rng(0)


def scene(count: int, seed: int, size: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, 3) of a bright block on a table, where the proprio says it is."""
    rng = np.random.default_rng(seed)
    images = np.full((count, size, size, 3), (90, 70, 50), np.uint8)
    images[:, : size // 3] = (30, 60, 120)
    place_N2 = rng.uniform(0, 1, (count, 2))
    for image, (x, y) in zip(images, place_N2, strict=True):
        left, top = int(x * (size - 12)), int(y * (size - 12))
        image[top : top + 12, left : left + 12] = 240
    proprio_NP = np.concatenate([place_N2, np.zeros((count, 1))], axis=1)
    return np.clip(images + rng.normal(0, 3, images.shape), 0, 255).astype(np.uint8), proprio_NP.astype(np.float32)


def described(images: np.ndarray, proprio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([thumbnail(image) for image in images])[:, None], proprio


@pytest.fixture(scope="module")
def reference() -> NoveltyReference:
    return reference_of(described(*scene(600, 1)), described(*scene(300, 2)))


def novelties(reference: NoveltyReference, images: np.ndarray, proprio: np.ndarray) -> np.ndarray:
    seen = (Observation(images={"front": image}, proprio_P=state, instruction="") for image, state in zip(images, proprio, strict=True))
    return np.array([reference.novelty(one, ("front",)) for one in seen])


def test_frames_like_the_held_out_ones_are_spread_evenly_over_0_to_1(reference) -> None:
    found = np.sort(novelties(reference, *scene(400, 3)))
    assert np.abs(found - (np.arange(400) + 0.5) / 400).max() < 0.11  # Kolmogorov-Smirnov of 400 and 300 frames, 1 of 50 exceeds 0.115
    assert novelty_of_episode(found) == pytest.approx(0.5, abs=0.1)
    assert np.mean(found > 0.9) < 0.15


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images * 0,
        lambda images: np.roll(images, 16, axis=1),
        lambda images: images[:, :24, :24].repeat(2, 1).repeat(2, 2),  # another scale
        lambda images: images // 2,
        lambda images: images[..., ::-1],  # another order of colours
    ],
    ids=["black", "shifted", "scale", "dark", "colours"],
)
def test_a_scene_that_was_never_recorded_is_near_1(reference, change) -> None:
    images, proprio = scene(60, 4)
    assert novelties(reference, change(images), proprio).min() > 0.95


def test_proprio_that_was_never_recorded_is_near_1(reference) -> None:
    images, proprio = scene(60, 4)
    assert novelties(reference, images, proprio + np.float32([0, 0, 0.5])).min() > 0.95
    with pytest.raises(SpecError, match="NaN"):
        novelties(reference, images, proprio * np.nan)


def test_the_reference_is_bounded_and_the_same_every_time() -> None:
    train = RNG.integers(0, 255, (4096, 3, 192), dtype=np.uint8), RNG.normal(size=(4096, 14)).astype(np.float32)
    held_out = train[0][:1500], train[1][:1500] + np.float32(0.1)
    one, other = (save(reference_of(train, held_out).tensors()) for _ in range(2))
    assert one == other
    assert len(one) <= NOVELTY_BYTES
    small = reference_of((train[0][:, :1], train[1]), (held_out[0][:, :1], held_out[1]))
    assert len(small.proprio_MP) <= MOST_FRAMES
    assert len(save(small.tensors())) <= NOVELTY_BYTES
    assert spread(10, 4).tolist() == [1, 3, 6, 8]
    assert spread(3, 9).tolist() == [0, 1, 2]


def test_the_median_is_of_what_was_measured() -> None:
    assert novelty_of_episode([]) is None
    assert novelty_of_episode([None, None]) is None
    assert novelty_of_episode([0.2, None, 1.0, 0.3]) == pytest.approx(0.3)


def test_a_bundle_holds_it_from_the_training_split_and_only_where_it_can_be_calibrated(tmp_path) -> None:
    contract = make_small_contract()
    frozen = write_small_frozen(tmp_path / "frozen", contract)
    assert write_reference(None, contract, tmp_path) is None
    made = write_reference(frozen, contract, tmp_path)
    assert made is not None
    assert (len(made.proprio_MP), len(made.distances_Q)) == (48, 8)
    read = _novelty_reference(tmp_path, contract)
    assert all(np.array_equal(value, read.tensors()[name]) for name, value in made.tensors().items())
    manifest = json.loads((frozen / "manifest.json").read_text())
    manifest["shards"] = [shard for shard in manifest["shards"] if "validation" not in shard["file"]]
    (frozen / "manifest.json").write_text(json.dumps(manifest))
    assert write_reference(frozen, contract, tmp_path / "other") is None
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": np.array([2], np.uint8)}, "expected form 1"),
        ({"thumbnails": np.zeros((48, 1, 191), np.uint8)}, "192"),
        ({"proprio": np.zeros((47, 4), np.float32)}, r"\(M, P\)"),
        ({"proprio": np.full((48, 4), np.nan, np.float32)}, "NaN"),
        ({"proprio": np.zeros((48, 4))}, "expected float32 in proprio"),
        ({"image_scale": np.zeros(1, np.float32)}, "above zero"),
        ({"distances": np.array([2, 1], np.float32)}, "not sorted"),
        ({"distances": np.zeros(0, np.float32)}, r"\(Q,\)"),
        ({"thumbnails": np.zeros((48, 2, 192), np.uint8), "image_scale": np.ones(2, np.float32)}, "expected 1 cameras and 4 dims"),
        ({"extra": np.zeros(1, np.float32)}, "expected the tensors"),
        (b"not a file of tensors", "no reference for novelty"),
        (b"\0" * (NOVELTY_BYTES + 1), "expected at most 524288 bytes"),
    ],
)
def test_a_broken_reference_is_refused_when_the_bundle_is_opened(tmp_path, change, message) -> None:
    contract = make_small_contract()
    write_reference(write_small_frozen(tmp_path / "frozen", contract), contract, tmp_path)
    path = tmp_path / NOVELTY
    path.write_bytes(change if isinstance(change, bytes) else save({**load(path.read_bytes()), **change}))
    with pytest.raises(CheckpointError, match=message) as refused:
        _novelty_reference(tmp_path, contract)
    assert NOVELTY in str(refused.value)
    assert "Fix: " in str(refused.value)


def test_a_measurement_that_is_not_done_is_given_up_and_one_that_fails_says_nothing(reference) -> None:
    contract = make_small_contract()
    body = replace(contract.embodiment, proprio=replace(contract.embodiment.proprio, dims=contract.embodiment.proprio.dims[:3]))
    meter = NoveltyMeter(reference, replace(contract, embodiment=body))
    images, proprio = scene(1, 5)
    seen = Observation(images={"front": images[0]}, proprio_P=proprio[0], instruction="")
    busy = threading.Event()
    meter._thread.submit(busy.wait, 20.0)
    begun = [meter.begin(seen) for _ in range(70)]
    assert begun.count(None) == 6  # no more than 64 wait
    assert begun[0] is not None
    assert begun[0].taken() is None
    busy.set()
    last = begun[63]
    assert isinstance(last, NoveltyMeasurement)
    last._future.result(20.0)
    assert 0 <= last.taken() <= 1
    broken = meter.begin(replace(seen, images={}))
    assert broken is not None
    assert isinstance(broken._future.exception(20.0), KeyError)
    assert broken.taken() is None
    meter.stop()
    assert meter.begin(seen) is None
