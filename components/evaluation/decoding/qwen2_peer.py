"""Our decoder as the `transformers` class that computes the same: `Qwen2ForCausalLM`, with weights copied from the network.

Norms before, biased query, key and value, SwiGLU: MolmoAct-7B-D and the tiny models are Qwen2 decoders behind a vision tower. What is
added to a token beside its row (image features, slot) goes in as `inputs_embeds`. A network without rotary positions runs at position
0 throughout, where the rotation is the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

from components.evaluation.decoding.peer_prompt import Laps, Places, encode
from model_core.engine.decode_request import Prompt
from model_core.network.config import LlmConfig
from model_core.network.language import DecoderBlock
from model_core.network.model import MolmoAct


def matches_qwen2(llm: LlmConfig) -> bool:
    """Whether a decoder with this configuration is a Qwen2 decoder."""
    return llm.qkv_bias and not llm.norm_after and not llm.use_qk_norm and llm.hidden_act == "silu"


class MatchingQwen2(Qwen2ForCausalLM):
    """`network`'s decoder and head in the class of `transformers`; images and tables stay `network`'s own."""

    def __init__(self, network: MolmoAct, places: Places, laps: Laps) -> None:
        super().__init__(Qwen2Config(**config_values(network.config.llm), use_sliding_window=False))
        self.network, self.places, self.laps = [network], places, laps  # in a list: no submodule of this one
        self.forwards = 0
        copy_weights(network, self, _as_qwen2)

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        images: Prompt | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Embeddings of the new ids; images are encoded on the first call only."""
        network, new = self.network[0], input_ids.shape[1] if next_sequence_length is None else next_sequence_length
        slots_1L = self.places.of_last(input_ids, new).to(input_ids.device)
        features = None
        if is_first_iteration and images is not None:
            features = encode(network, images)
            self.laps.mark("vision")
        else:  # the forward before computed the first of these ids
            self.laps.mark("prefill" if self.forwards == 1 else self.places.stage_of_last(input_ids, new))
        self.forwards += 1
        x_1LD = network.embed(input_ids[:, -new:], features)
        table = network.model.transformer.slot_embedding
        if table is not None:
            x_1LD = x_1LD + F.embedding(slots_1L, table)
        is_static = getattr(past_key_values, "is_compileable", False)
        return {
            "inputs_embeds": x_1LD,
            "position_ids": slots_1L if network.config.llm.use_rope else torch.zeros_like(slots_1L),
            "past_key_values": past_key_values,
            "attention_mask": attention_mask if is_static else None,  # one row without padding needs none otherwise
            "use_cache": True,
            "logits_to_keep": 1,
        }


def config_values(llm: LlmConfig) -> dict[str, Any]:
    """What the configurations of `transformers` decoders call the sizes of ours."""
    return {
        "vocab_size": llm.vocab_size,
        "hidden_size": llm.hidden_size,
        "intermediate_size": llm.intermediate_size,
        "num_hidden_layers": llm.num_hidden_layers,
        "num_attention_heads": llm.num_attention_heads,
        "num_key_value_heads": llm.num_key_value_heads,
        "max_position_embeddings": llm.max_position_embeddings,
        "rms_norm_eps": llm.layer_norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": llm.rope_theta},
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": None,
        "pad_token_id": 0,
    }


def copy_weights(network: MolmoAct, peer: Any, named: Callable[[DecoderBlock], Mapping[str, Tensor]]) -> None:
    """Give a model of `transformers` the decoder and the head of `network`, in their number format. named: one block under its names."""
    decoder = network.model.transformer
    with torch.no_grad():
        for layer, block in zip(peer.model.layers, decoder.blocks, strict=True):
            assert isinstance(block, DecoderBlock)
            layer.load_state_dict(named(block), strict=True)
        peer.model.norm.weight.copy_(decoder.ln_f.weight)
        peer.lm_head.weight.copy_(network.lm_head.weight)
    peer.to(network.lm_head.weight)


def projections(block: DecoderBlock) -> dict[str, Tensor]:
    """One block's linear layers under the names of `transformers`: the fused projections cut apart."""
    attention, mlp = block.self_attn, block.mlp
    found = {"self_attn.o_proj.weight": attention.attn_out.weight, "mlp.down_proj.weight": mlp.ff_out.weight}
    for kind in ("weight", "bias") if attention.att_proj.bias is not None else ("weight",):
        for name, part in zip("qkv", getattr(attention.att_proj, kind).split(attention.sizes), strict=True):
            found[f"self_attn.{name}_proj.{kind}"] = part
    found["mlp.up_proj.weight"], found["mlp.gate_proj.weight"] = mlp.ff_proj.weight.chunk(2)
    return found


def _as_qwen2(block: DecoderBlock) -> dict[str, Tensor]:
    found = projections(block)
    found["input_layernorm.weight"], found["post_attention_layernorm.weight"] = block.attn_norm.weight, block.ff_norm.weight
    return found
