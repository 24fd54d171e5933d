"""Our decoder as the `transformers` class that computes the same: `Olmo2ForCausalLM`, with weights copied from the network.

Norms behind attention and MLP, normed queries and keys, no bias: MolmoAct-7B-O is an OLMo2 decoder behind a vision tower. What else is
said in `qwen2_peer` holds here too.
"""

from __future__ import annotations

from torch import Tensor
from transformers.models.olmo2.configuration_olmo2 import Olmo2Config
from transformers.models.olmo2.modeling_olmo2 import Olmo2ForCausalLM

from components.evaluation.decoding.peer_prompt import Laps, Places
from components.evaluation.decoding.qwen2_peer import MatchingQwen2, config_values, copy_weights, projections
from model_core.network.config import LlmConfig
from model_core.network.language import DecoderBlock
from model_core.network.model import MolmoAct


def matches_olmo2(llm: LlmConfig) -> bool:
    """Whether a decoder with this configuration is an OLMo2 decoder; its queries and keys are normed before the heads are split."""
    is_normed = llm.norm_after and llm.use_qk_norm and llm.qk_norm_type != "qwen3"
    return is_normed and not llm.qkv_bias and llm.use_rope and llm.hidden_act == "silu"


class MatchingOlmo2(Olmo2ForCausalLM):
    """`network`'s decoder and head in the class of `transformers`; images and tables stay `network`'s own."""

    def __init__(self, network: MolmoAct, places: Places, laps: Laps) -> None:
        super().__init__(Olmo2Config(**config_values(network.config.llm)))
        self.network, self.places, self.laps = [network], places, laps  # in a list: no submodule of this one
        self.forwards = 0
        copy_weights(network, self, _as_olmo2)

    prepare_inputs_for_generation = MatchingQwen2.prepare_inputs_for_generation  # pyright: ignore[reportAssignmentType]


def _as_olmo2(block: DecoderBlock) -> dict[str, Tensor]:
    attention = block.self_attn
    assert attention.q_norm is not None
    assert attention.k_norm is not None
    return projections(block) | {
        "self_attn.q_norm.weight": attention.q_norm.weight,
        "self_attn.k_norm.weight": attention.k_norm.weight,
        "post_attention_layernorm.weight": block.attn_norm.weight,
        "post_feedforward_layernorm.weight": block.ff_norm.weight,
    }
