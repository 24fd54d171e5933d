"""The two published sizes of MolmoAct, and a small one of the same layout, as configurations."""

from __future__ import annotations

from dataclasses import dataclass

from model_core.network.config import AdapterConfig, LlmConfig, MolmoActConfig, VitConfig
from model_core.network.images import ImageProcessor
from model_core.spec.errors import require

_PATCH = 14


def molmoact_7b_d() -> MolmoActConfig:
    """MolmoAct-7B-D: SigLIP2 so400m/14-384 and Qwen2.5-7B (spec: allenai/molmoact `launch_scripts/utils.py`)."""
    return MolmoActConfig()


def molmoact_7b_o() -> MolmoActConfig:
    """MolmoAct-7B-O: OpenAI CLIP ViT-L/14-336 and OLMo2-1124-7B with the vocabulary enlarged to 100864 rows."""
    return MolmoActConfig(
        vit=VitConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=23,
            num_attention_heads=16,
            num_key_value_heads=16,
            head_dim=64,
            hidden_act="quick_gelu",
            layer_norm_eps=1e-5,
            image_default_input_size=(336, 336),
            image_num_pos=577,
            use_cls_token=True,
            patch_bias=False,
            pre_layernorm=True,
        ),
        adapter=AdapterConfig(
            vit_layers=(-2, -9),
            hidden_size=1024,
            head_dim=64,
            intermediate_size=11008,
            text_hidden_size=4096,
            image_padding_embed="pad_and_partial_pad",
        ),
        llm=LlmConfig(
            hidden_size=4096,
            num_attention_heads=32,
            num_key_value_heads=32,
            vocab_size=100864,
            qkv_bias=False,
            num_hidden_layers=32,
            intermediate_size=11008,
            rope_theta=500_000.0,
            use_qk_norm=True,
            norm_after=True,
        ),
        image_patch_id=100866,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallSize:
    """What may be chosen about "tiny-published". width, layers, heads, kv_heads, feed_forward: of the decoder; projector: inside the
    connector; vision_width, vision_layers: of the tower; image_side: pixels of a square crop, whole patches of 14."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 384
    projector: int = 256
    vision_width: int = 64
    vision_layers: int = 4
    image_side: int = 112

    def __post_init__(self) -> None:
        require(self.width % (2 * self.heads) == 0, f"width must be a multiple of twice the {self.heads} heads", got=self.width)
        require(self.vision_width % 4 == 0, "vision_width must be a multiple of 4", got=self.vision_width)
        require(self.vision_layers >= 2, "vision_layers must be at least 2: two block outputs are read", got=self.vision_layers)
        require(
            self.image_side % _PATCH == 0 and self.image_side >= 4 * _PATCH,
            "image_side must be whole patches of 14, at least 4",
            got=self.image_side,
        )


def tiny_published(size: SmallSize = SmallSize()) -> MolmoActConfig:
    """The layout, vocabulary and special ids of 7B-D at a small width: for tests, and for policies that are trained on processors."""
    grid, head = size.image_side // _PATCH, size.vision_width // 2
    return MolmoActConfig(
        vit=VitConfig(
            hidden_size=size.vision_width,
            intermediate_size=2 * size.vision_width,
            num_hidden_layers=size.vision_layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=head,
            image_default_input_size=(size.image_side, size.image_side),
            image_patch_size=_PATCH,
            image_num_pos=grid * grid,
        ),
        adapter=AdapterConfig(
            vit_layers=(-1, -(size.vision_layers // 2) - 1),
            hidden_size=size.vision_width,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=head,
            intermediate_size=size.projector,
            text_hidden_size=size.width,
        ),
        llm=LlmConfig(
            hidden_size=size.width,
            num_attention_heads=size.heads,
            num_key_value_heads=size.kv_heads,
            head_dim=size.width // size.heads,
            num_hidden_layers=size.layers,
            intermediate_size=size.feed_forward,
        ),
    )


def small_processor(config: MolmoActConfig) -> ImageProcessor:
    """The image processor of a small network: the published one, with a margin that leaves a window of its small crops."""
    return ImageProcessor.for_network(config, overlap_margins=(1, 1))
