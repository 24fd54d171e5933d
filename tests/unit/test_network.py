"""The network against recordings of the published implementation, and the extras of the tiny models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model_core.engine.cache import StaticCache
from model_core.network.checkpoints.hub import load_pretrained
from model_core.network.checkpoints.layout import expected_shapes
from model_core.network.config import AdapterConfig, LlmConfig, MolmoActConfig, VitConfig
from model_core.network.model import MolmoAct
from model_core.network.presets import molmoact_7b_d, molmoact_7b_o
from model_core.parity import greedy
from model_core.spec.errors import CheckpointError, SpecError

GOLDEN = Path(__file__).parents[1] / "golden" / "model"
FAMILIES = ("tiny_d", "tiny_o")
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def golden(family: str, attention: str = "sdpa") -> tuple[MolmoAct, dict[str, Tensor]]:
    return load_pretrained(GOLDEN / family, attention=attention), load_file(GOLDEN / family / "io.safetensors")


def left_padded(io: dict[str, Tensor], short: int, pad: int = 0) -> tuple[Tensor, Tensor]:
    """A batch of the recorded prompt twice: whole, and its first `short` tokens with padding on the left."""
    ids = io["input_ids"]
    length = ids.shape[1]
    cut = torch.cat([torch.full((1, length - short), pad), ids[:, :short]], dim=1)
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, : length - short] = 0
    return torch.cat([ids, cut]), mask


def tiny(**changes) -> MolmoActConfig:
    base = MolmoActConfig(
        vit=VitConfig(
            hidden_size=24,
            num_hidden_layers=0,
            image_default_input_size=(32, 32),
            image_patch_size=8,
            image_num_pos=16,
            patch_stem="conv",
            stem_channels=(4, 8, 16),
        ),
        adapter=AdapterConfig(
            vit_layers=(),
            hidden_size=24,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=12,
            intermediate_size=32,
            text_hidden_size=32,
            pool_residual=True,
        ),
        llm=LlmConfig(
            hidden_size=32,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            vocab_size=64,
            additional_vocab_size=4,
            num_hidden_layers=2,
            intermediate_size=48,
            num_slots=40,
            use_rope=False,
        ),
        image_patch_id=65,
        attention="eager",
    )
    return dataclasses.replace(base, **changes)


def pooled(rows: int, cols: int, batch: int) -> Tensor:
    return torch.arange(rows * cols).view(rows // 2, 2, cols // 2, 2).permute(0, 2, 1, 3).reshape(1, -1, 4).expand(batch, -1, -1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_features_logits_and_tokens_equal_the_published_ones(family, attention):
    model, io = golden(family, attention)
    with torch.no_grad():
        features = model.encode_images(io["images"], io["pooled_patches_idx"])
        logits = model(io["input_ids"], io["images"], io["pooled_patches_idx"], None, io["attention_mask"])
    torch.testing.assert_close(features, io["image_features"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(logits, io["logits"], atol=TOLERANCE, rtol=0)
    assert torch.equal(greedy(model, io["input_ids"], features, io["attention_mask"], io["position_ids"], steps=24), io["generated"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_left_padding_changes_nothing_where_the_mask_is_one(family, attention):
    model, io = golden(family, attention)
    patches = int((io["input_ids"] == model.config.image_patch_id).sum())
    last_patch = int((io["input_ids"][0] == model.config.image_patch_id).nonzero().max())
    short = max(last_patch + 2, io["input_ids"].shape[1] - 4)
    assert short < io["input_ids"].shape[1]
    assert patches == len(io["image_features"])
    ids, mask = left_padded(io, short)
    with torch.no_grad():
        logits = model(ids, io["images"].expand(2, -1, -1, -1), io["pooled_patches_idx"].expand(2, -1, -1), None, mask)
    torch.testing.assert_close(logits[0], io["logits"][0], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(logits[1, -short:], io["logits"][0, :short], atol=TOLERANCE, rtol=0)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_row_generates_what_it_generates_alone(family):
    model, io = golden(family)
    short = io["input_ids"].shape[1] - 2
    ids, mask = left_padded(io, short)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        features = io["image_features"]
        together = greedy(model, ids, torch.cat([features, features]), mask, positions, steps=12)
        alone = greedy(model, ids[1:, -short:], features, mask[1:, -short:], positions[1:, -short:], steps=12)
    assert torch.equal(together[0], io["generated"][0, :12])
    assert torch.equal(together[1:], alone)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_views_are_the_features_of_each(family):
    """Two crops with shifted indices give each view's features in order; an empty crop of a shorter sample adds none."""
    model, io = golden(family)
    other = io["images"].flip(2)
    patches = io["images"].shape[2]
    idx = io["pooled_patches_idx"]
    two = torch.cat([idx, torch.where(idx >= 0, idx + patches, -1)], 1)
    with torch.no_grad():
        both = model.encode_images(torch.cat([io["images"], other], 1), two)
        second = model.encode_images(other, idx)
        ragged = model.encode_images(
            torch.cat([torch.cat([io["images"], other], 1), torch.cat([other, torch.full_like(other, -1)], 1)]),
            torch.cat([two, torch.cat([idx, torch.full_like(idx, -1)], 1)]),
        )
    tokens = len(io["image_features"])
    torch.testing.assert_close(both[:tokens], io["image_features"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(both[tokens:], second, atol=1e-5, rtol=0)
    torch.testing.assert_close(ragged, torch.cat([both, second]), atol=1e-5, rtol=0)


def test_an_empty_slot_of_a_window_counts_as_a_zero_vector():
    model, io = golden("tiny_d")
    vision = model.model.vision_backbone
    features = vision.patch_features(io["images"].flatten(0, 1))
    width = features.shape[-1]
    padded = torch.cat([features, torch.zeros(1, 1, width)], 1)
    zero = features.shape[1]
    marked = vision.pool(features, torch.tensor([[[0, -1, 3, -1], [-1, -1, -1, -1], [1, 2, 4, 5]]]))
    spelled = vision.pool(padded, torch.tensor([[[0, zero, 3, zero], [1, 2, 4, 5]]]))
    torch.testing.assert_close(marked, spelled)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_reading_in_pieces_through_a_cache_equals_reading_at_once(family, attention):
    model, io = golden(family, attention)
    ids, positions = io["input_ids"], io["position_ids"]
    cache = StaticCache(model.config.llm, batch=1, max_length=ids.shape[1])
    with torch.no_grad():
        x = model.embed(ids, io["image_features"])
        whole = model.trunk(x, positions)
        pieces = [model.trunk(x[:, a:b], positions[:, a:b], None, cache) for a, b in ((0, 7), (7, 8), (8, ids.shape[1]))]
        torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=1e-5)
        cache.rewind(8)
        torch.testing.assert_close(model.trunk(x[:, 8:], positions[:, 8:], None, cache), whole[:, 8:], atol=1e-5, rtol=1e-5)
        with pytest.raises(SpecError, match="the cache holds"):
            model.trunk(x[:, :1], positions[:, :1], None, cache)


def test_a_mask_of_the_wrong_length_and_features_without_places_are_refused():
    model, io = golden("tiny_d")
    with pytest.raises(SpecError, match="must cover 16 tokens"):
        model(io["input_ids"], attention_mask_BL=io["attention_mask"][:, :-1])
    with pytest.raises(SpecError, match="4 image-patch tokens in the prompt but 3"):
        model.embed(io["input_ids"], io["image_features"][:3])
    with pytest.raises(SpecError, match="do not belong together"):
        model.encode_images(io["images"], io["pooled_patches_idx"] + 9)


def test_7b_o_padding_embedding_is_applied_unless_the_published_inference_is_asked_for():
    config = MolmoActConfig.from_json(GOLDEN / "tiny_o")
    config = dataclasses.replace(config, adapter=dataclasses.replace(config.adapter, image_padding_embed="pad_and_partial_pad"))
    model = MolmoAct(config).eval()
    model.init_weights(3)
    io = load_file(GOLDEN / "tiny_o" / "io.safetensors")
    mask = torch.ones(1, 1, 16)
    mask[0, 0, 0], mask[0, 0, 5] = 0.0, 0.4
    with torch.no_grad():
        plain = model.encode_images(io["images"], io["pooled_patches_idx"])
        trained = model.encode_images(io["images"], io["pooled_patches_idx"], mask)
        vision = model.model.vision_backbone
        features = vision.patch_features(io["images"][0])
        features[:, 0] += vision.pad_embed[0]
        features[:, 5] += vision.pad_embed[1]
        torch.testing.assert_close(trained, vision.pool(features, io["pooled_patches_idx"]))
        assert not torch.allclose(trained, plain)
        vision.published_padding = True
        assert torch.equal(model.encode_images(io["images"], io["pooled_patches_idx"], mask), plain)


@pytest.mark.parametrize(
    ("config", "billions", "shapes"),
    [
        (
            molmoact_7b_d(),
            8.119,
            {
                "lm_head.weight": (152064, 3584),
                "model.transformer.wte.embedding": (152064, 3584),
                "model.transformer.wte.new_embedding": (128, 3584),
                "model.transformer.ln_f.weight": (3584,),
                "model.transformer.blocks.{i}.self_attn.att_proj.weight": (4608, 3584),
                "model.transformer.blocks.{i}.self_attn.att_proj.bias": (4608,),
                "model.transformer.blocks.{i}.self_attn.attn_out.weight": (3584, 3584),
                "model.transformer.blocks.{i}.attn_norm.weight": (3584,),
                "model.transformer.blocks.{i}.mlp.ff_proj.weight": (37888, 3584),
                "model.transformer.blocks.{i}.mlp.ff_out.weight": (3584, 18944),
                "model.transformer.blocks.{i}.ff_norm.weight": (3584,),
                "model.vision_backbone.image_vit.positional_embedding": (729, 1152),
                "model.vision_backbone.image_vit.patch_embedding.weight": (1152, 588),
                "model.vision_backbone.image_vit.patch_embedding.bias": (1152,),
                "model.vision_backbone.image_projector.w2.weight": (3584, 18944),
            },
        ),
        (
            molmoact_7b_o(),
            7.657,
            {
                "lm_head.weight": (100864, 4096),
                "model.transformer.wte.embedding": (100864, 4096),
                "model.transformer.wte.new_embedding": (128, 4096),
                "model.transformer.ln_f.weight": (4096,),
                "model.transformer.blocks.{i}.self_attn.att_proj.weight": (12288, 4096),
                "model.transformer.blocks.{i}.self_attn.attn_out.weight": (4096, 4096),
                "model.transformer.blocks.{i}.self_attn.q_norm.weight": (4096,),
                "model.transformer.blocks.{i}.self_attn.k_norm.weight": (4096,),
                "model.transformer.blocks.{i}.attn_norm.weight": (4096,),
                "model.transformer.blocks.{i}.mlp.ff_proj.weight": (22016, 4096),
                "model.transformer.blocks.{i}.mlp.ff_out.weight": (4096, 11008),
                "model.transformer.blocks.{i}.ff_norm.weight": (4096,),
                "model.vision_backbone.image_vit.positional_embedding": (577, 1024),
                "model.vision_backbone.image_vit.patch_embedding.weight": (1024, 588),
                "model.vision_backbone.image_vit.class_embedding": (1024,),
                "model.vision_backbone.image_vit.pre_ln.weight": (1024,),
                "model.vision_backbone.image_vit.pre_ln.bias": (1024,),
                "model.vision_backbone.image_projector.w2.weight": (4096, 11008),
                "model.vision_backbone.pad_embed": (2, 2048),
            },
        ),
    ],
    ids=["7B-D", "7B-O"],
)
def test_every_key_and_shape_of_the_published_checkpoints(config, billions, shapes):
    width, inner, vit_mlp = config.vit.hidden_size, config.adapter.intermediate_size, config.vit.intermediate_size
    expected = dict(shapes)
    vision = "model.vision_backbone."
    for name in ("wq", "wk", "wv"):
        expected |= {f"{vision}image_pooling_2d.{name}.weight": (width, 2 * width), f"{vision}image_pooling_2d.{name}.bias": (width,)}
    expected |= {f"{vision}image_pooling_2d.wo.weight": (width, width), f"{vision}image_pooling_2d.wo.bias": (width,)}
    expected |= {f"{vision}image_projector.{name}.weight": (inner, width) for name in ("w1", "w3")}
    for name in ("wq", "wk", "wv", "wo"):
        expected |= {f"{vision}image_vit.transformer.resblocks.{{j}}.attention.{name}.{kind}": s for kind, s in _linear(width, width)}
    expected |= {f"{vision}image_vit.transformer.resblocks.{{j}}.feed_forward.w1.{kind}": s for kind, s in _linear(vit_mlp, width)}
    expected |= {f"{vision}image_vit.transformer.resblocks.{{j}}.feed_forward.w2.{kind}": s for kind, s in _linear(width, vit_mlp)}
    for norm in ("attention_norm", "ffn_norm"):
        expected |= {f"{vision}image_vit.transformer.resblocks.{{j}}.{norm}.{kind}": (width,) for kind in ("weight", "bias")}
    blocks, layers = (25, 28) if config.llm.qkv_bias else (22, 32)
    written = {}
    for key, shape in expected.items():
        written |= {key.format(i=i, j=i): shape for i in range(layers if "{i}" in key else blocks if "{j}" in key else 1)}
    found = expected_shapes(config)
    assert found == written
    assert round(sum(torch.Size(shape).numel() for shape in found.values()) / 1e9, 3) == billions


def _linear(rows: int, cols: int) -> list[tuple[str, tuple[int, ...]]]:
    return [("weight", (rows, cols)), ("bias", (rows,))]


def test_config_keeps_what_it_does_not_know_and_writes_published_keys():
    source = json.loads((GOLDEN / "tiny_o" / "config.json").read_text())
    source["llm_config"]["rope_scaling"] = None
    source |= {"norm_stats": {"molmoact": {"action": {"q01": [0.0]}}}, "auto_map": {"AutoModel": "x"}, "n_action_bins": 256}
    config = MolmoActConfig.from_json(source)
    assert MolmoActConfig.from_json(json.dumps(config.to_json())) == config
    written = config.to_json()
    for section in ("vit_config", "adapter_config", "llm_config"):
        assert source[section].items() <= written[section].items()
    assert written["auto_map"] == {"AutoModel": "x"}
    assert "patch_stem" not in written["vit_config"]
    assert "num_slots" not in written["llm_config"]
    assert config.feature_layers == (2, 1)


@pytest.mark.parametrize(
    ("section", "change", "says"),
    [
        ("llm_config", {"rope_scaling": {"type": "yarn"}}, "rope_scaling"),
        ("llm_config", {"num_key_value_heads": 3}, "multiple"),
        ("llm_config", {"hidden_size": 65}, "text_hidden_size"),
        ("vit_config", {"image_num_pos": 12}, "image_num_pos must be 17"),
        ("adapter_config", {"vit_layers": [-9]}, "not configured"),
        ("adapter_config", {"image_padding_embed": "other"}, "image_padding_embed"),
    ],
)
def test_a_config_that_we_could_not_honour_is_refused(section, change, says):
    source = json.loads((GOLDEN / "tiny_o" / "config.json").read_text())
    source[section] |= change
    with pytest.raises(CheckpointError, match=says):
        MolmoActConfig.from_json(source)


def test_a_config_that_is_not_there_or_not_one_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no config at"):
        MolmoActConfig.from_json(tmp_path)
    with pytest.raises(CheckpointError, match="not JSON"):
        MolmoActConfig.from_json("{")
    with pytest.raises(CheckpointError, match=r"llm_config.*missing"):
        MolmoActConfig.from_json({"vit_config": {}, "adapter_config": {}, "image_patch_id": 0})


def test_conv_stem_reads_patches_and_frames_alike():
    model = MolmoAct(tiny())
    model.init_weights(0)
    frames = torch.randint(0, 256, (3, 1, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    patches = frames.float().div(127.5).sub(1).view(3, 1, 4, 8, 4, 8, 3).permute(0, 1, 2, 4, 3, 5, 6).reshape(3, 1, 16, 192)
    idx = pooled(4, 4, 3)
    assert model.encode_images(frames, idx).shape == (12, 32)
    torch.testing.assert_close(model.encode_images(frames, idx), model.encode_images(patches, idx))


def test_slots_carry_position_and_both_attentions_agree_in_gradients():
    ids = torch.randint(0, 64, (2, 12), generator=torch.Generator().manual_seed(0))
    gradients = []
    for attention in ("eager", "sdpa"):
        model = MolmoAct(tiny(attention=attention))
        model.init_weights(0)
        model(ids).float().square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert "model.transformer.slot_embedding" in gradients[0]
    for name, grad in gradients[0].items():
        torch.testing.assert_close(grad, gradients[1][name], atol=1e-6, rtol=1e-4)
    model = MolmoAct(tiny())
    model.init_weights(0)
    same = torch.full((1, 2), 5)
    first, second = model(same, position_ids_BL=torch.tensor([[3, 9]])), model(same, position_ids_BL=torch.tensor([[3, 8]]))
    assert torch.equal(first[:, 0], second[:, 0])
    assert not torch.allclose(first[:, 1], second[:, 1])


def test_activation_checkpointing_changes_no_gradient():
    ids = torch.arange(10)[None]
    grads = []
    for recompute in (False, True):
        model = MolmoAct(tiny())
        model.init_weights(0)
        model.model.transformer.checkpoint_activations = recompute
        model(ids).square().mean().backward()
        grads.append(model.model.transformer.blocks[0].mlp.ff_proj.weight.grad)
    assert torch.equal(grads[0], grads[1])


def test_init_is_a_function_of_the_seed():
    models = [MolmoAct(tiny()) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        model.init_weights(seed)
    first, same, other = (model.state_dict() for model in models)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_few_layers_of_7b_d_in_bf16_agree_with_fp32_on_the_cpu():
    """Two decoder and four tower layers at full width; largest logit difference below 5 % of the logits' spread."""
    full = molmoact_7b_d()
    config = dataclasses.replace(
        full,
        vit=dataclasses.replace(full.vit, num_hidden_layers=4),
        adapter=dataclasses.replace(full.adapter, vit_layers=(-1, -3)),
        llm=dataclasses.replace(full.llm, num_hidden_layers=2, vocab_size=2048, additional_vocab_size=8),
        image_patch_id=2050,
    )
    model = MolmoAct(config).eval()
    model.init_weights(0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 1, 729, 588, generator=generator)
    ids = torch.cat([torch.full((1, 36), 2050), torch.randint(0, 2048, (1, 20), generator=generator)], 1)
    idx = torch.arange(144).view(1, 36, 4)
    with torch.no_grad():
        expected = model(ids, images, idx)
        model = model.to("cuda", torch.bfloat16)
        found = model(ids.cuda(), images.cuda(), idx.cuda()).float().cpu()
    assert (found - expected).abs().max() < 0.05 * (expected.max() - expected.min())
