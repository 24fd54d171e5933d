"""The two published sizes of MolmoAct, as configurations."""

from __future__ import annotations

from model_core.network.config import AdapterConfig, LlmConfig, MolmoActConfig, VitConfig


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
