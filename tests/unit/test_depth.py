import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model_core.spec.errors import CheckpointError, SpecError
from model_core.spec.types import DepthTokens
from model_core.tokenization.depth.codec import DepthCodec
from model_core.tokenization.depth.config import DepthConfig, DepthScaling, compact_depth
from model_core.tokenization.depth.training import DepthTraining, train_vqvae
from model_core.tokenization.depth.vqvae import DepthVqvae, to_image

GOLDEN = Path(__file__).parents[1] / "golden" / "vqvae_small"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def scenes(count: int, seed: int = 0) -> np.ndarray:
    """A floor at 2 m with a box at 0.6..1.2 m somewhere."""
    rng = np.random.default_rng(seed)
    maps = np.full((count, 80, 80), 2.0, np.float32) + np.linspace(0, 0.8, 80, dtype=np.float32)[:, None]
    for scene in maps:
        x, y = rng.integers(0, 56, 2)
        scene[y : y + 24, x : x + 24] = rng.uniform(0.6, 1.2)
    return maps


@pytest.fixture(scope="module")
def trained():
    torch.set_num_threads(1)
    return train_vqvae(scenes(80), compact_depth(), DepthTraining(steps=60, batch=8, learning_rate=4e-3))


def test_golden_decoding_and_losses_agree():
    io = load_file(GOLDEN / "io.safetensors")
    vqvae = DepthVqvae(DepthConfig.from_json(json.loads((GOLDEN / "config.json").read_text())))
    vqvae.load_state_dict(load_file(GOLDEN / "model.safetensors"), strict=True)
    vqvae.eval()
    with torch.no_grad():
        loss = vqvae(io["depth"], io["indices"])
        assert (vqvae.decode(io["indices"]) - io["decoded"]).abs().max() < 1e-4
    assert (loss.decoded_N1HW - io["decoded"]).abs().max() < 1e-4
    assert float(loss.recon) == pytest.approx(float(io["recon_loss"]), rel=1e-5)
    assert float(loss.total) == pytest.approx(float(io["total_loss"]), rel=1e-5)


def test_golden_codes_agree_up_to_rounding_of_the_machine():
    io = load_file(GOLDEN / "io.safetensors")
    codec = DepthCodec.load(GOLDEN, scaling=DepthScaling(kind="none"))
    found = codec.agreement(io["depth"][:, 0].numpy(), io["indices"].numpy())
    # latents of norm 50 lie 0.1 from their codes: fp32 cannot always order the two nearest, and machines round differently
    assert found.different == 0
    assert found.equal >= 0.7 * io["indices"].numel()
    shifted = codec.agreement(io["depth"][:, 0].numpy(), (io["indices"].numpy() + 1) % 128)
    assert shifted.different > 0.9 * io["indices"].numel()


def test_published_sizes_and_keys():
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in DepthVqvae(DepthConfig()).state_dict().items()}
    assert shapes["encoder.0.weight"] == (16, 1, 4, 4)
    assert shapes["encoder.12.weight"] == (512, 256, 1, 1)
    assert shapes["decoder.4.weight"] == (256, 256, 4, 4)
    assert shapes["decoder.14.weight"] == (1, 16, 1, 1)
    assert shapes["_vq_vae._embedding"] == (128, 512)
    assert DepthConfig().grid == (10, 10)
    golden = {name: tuple(tensor.shape) for name, tensor in load_file(GOLDEN / "model.safetensors").items()}
    assert shapes.keys() == golden.keys()


def test_training_learns_and_uses_many_codes(trained):
    codec, report = trained
    assert report.codes_used > 20
    assert report.error < 0.25
    truth = scenes(4, seed=5)
    decoded = codec.decode(codec.encode(truth))
    assert decoded.shape == (4, 40, 40)
    assert np.abs(decoded[:, 20:, :].mean() - truth[:, 40:].mean()) < 0.3


def test_training_is_deterministic_for_a_seed_and_not_across_seeds(trained):
    settings = DepthTraining(steps=6, batch=4)
    digests = [train_vqvae(scenes(20), compact_depth(), settings)[0].digest for _ in range(2)]
    other = train_vqvae(scenes(20), compact_depth(), DepthTraining(steps=6, batch=4, seed=1))[0].digest
    assert digests[0] == digests[1] != other


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train_vqvae(scenes(3), compact_depth(), DepthTraining(steps=2, batch=2))
    assert torch.equal(torch.rand(1), expected)


def test_ema_codebook_follows_the_published_update():
    vqvae = DepthVqvae(compact_depth()).train()
    quantizer = vqvae.quantizer
    before_w, before_n = quantizer._ema_w.clone(), quantizer._ema_cluster_size.clone()
    z = torch.randn(2, 16, 10, 10)
    flat = z.permute(0, 2, 3, 1).reshape(-1, 16)
    hot = torch.nn.functional.one_hot(quantizer.nearest(flat), 128).float()
    quantizer(z)
    size = 0.99 * before_n + 0.01 * hot.sum(0)
    weight = 0.99 * before_w + 0.01 * hot.T @ flat
    smooth = (size + 1e-5) / (size.sum() + 128 * 1e-5) * size.sum()
    assert torch.allclose(quantizer._embedding, weight / smooth[:, None], atol=1e-4, rtol=1e-4)
    vqvae.eval()
    frozen = quantizer._embedding.clone()
    quantizer(z)
    assert torch.equal(frozen, quantizer._embedding)


def test_save_and_load_keep_the_digest(trained, tmp_path):
    codec, _ = trained
    codec.save(tmp_path / "vqvae")
    assert hashlib.sha256((tmp_path / "vqvae" / "model.safetensors").read_bytes()).hexdigest() == codec.digest
    again = DepthCodec.load(tmp_path / "vqvae", expected_digest=codec.digest)
    maps = scenes(3, seed=9)
    assert np.array_equal(again.encode(maps), codec.encode(maps))
    assert again.config == codec.config
    with pytest.raises(CheckpointError, match="digest"):
        DepthCodec.load(tmp_path / "vqvae", expected_digest="0" * 64)


def test_the_digest_covers_the_scaling(trained):
    codec, _ = trained
    other = DepthVqvae(compact_depth(scaling=DepthScaling(kind="inverse", near_m=0.5)))
    other.load_state_dict(codec._vqvae.state_dict())
    assert DepthCodec(other).digest != codec.digest


def test_vae_final_is_read_and_a_pickle_with_code_is_not(trained, tmp_path):
    codec, _ = trained
    codec.save(tmp_path / "a")
    weights = load_file(tmp_path / "a" / "model.safetensors")
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
        shutil.copy(tmp_path / "a" / "config.json", tmp_path / name)
    torch.save({"weights": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "b" / "vae-final.pt")
    assert DepthCodec.load(tmp_path / "b").digest == codec.digest
    torch.save({"weights": Path("/")}, tmp_path / "c" / "vae-final.pt")
    with pytest.raises(Exception, match=r"[Ww]eights.only|expected"):
        DepthCodec.load(tmp_path / "c")


def test_wrong_shapes_and_unknown_keys_are_listed(trained, tmp_path):
    codec, _ = trained
    codec.save(tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**document, "hidden_dim": 8}))
    with pytest.raises(CheckpointError, match=r"encoder\.0\.weight"):
        DepthCodec.load(tmp_path)
    with pytest.raises(CheckpointError, match="colour"):
        DepthConfig.from_json({"colour": 1})
    with pytest.raises(CheckpointError, match=r"config\.json"):
        DepthCodec.load(tmp_path / "nowhere")


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_broken_depth_is_refused(trained, value):
    maps = scenes(2)
    maps[1, 3, 3] = value
    with pytest.raises(SpecError):
        trained[0].encode(maps)


def test_scaling_undoes_itself():
    scaling = DepthScaling(kind="inverse")
    metres = torch.linspace(0.4, 3.0, 50)
    assert torch.allclose(scaling.undo(scaling.apply(metres)), metres, atol=1e-5)
    assert float(scaling.apply(torch.tensor(9.0))) == 0.0
    assert DepthScaling(kind="relative").apply(torch.tensor([255], dtype=torch.uint8)).item() == 1.0


def test_pictures_are_stretched_and_codes_checked(trained):
    codec, _ = trained
    image = codec.image(codec.tokens(scenes(1)[0]))
    assert image.dtype == np.uint8
    assert (image.min(), image.max()) == (0, 255)
    assert to_image(np.ones((4, 4))).max() == 0
    with pytest.raises(SpecError):
        codec.decode(np.full((1, 100), 128))
    with pytest.raises(SpecError):
        DepthTokens(codes_G=np.full(100, 128))


@pytest.mark.parametrize("change", [{"downsample_ratio": 3}, {"image_size": 41}, {"scaling": "x"}])
def test_bad_sizes_are_refused(change):
    with pytest.raises((SpecError, AttributeError)):
        compact_depth(**change) if change != {"scaling": "x"} else DepthScaling(kind="x")
