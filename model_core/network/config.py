"""The network's configuration, under the published `config.json` keys.

`MolmoActConfig.from_json` reads what the published checkpoints carry (`vit_config`, `adapter_config`,
`llm_config`, `image_patch_id`, `n_action_bins`, `norm_stats`, ...) and `to_json` writes it back; keys
that this implementation does not need are kept in `extras`, so nothing is lost on the way.
The keys marked *ours* do not exist in published files; their defaults mean "as published".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_core.network.config_section import section_from_json, section_to_json
from model_core.network.settings_file import read_settings
from model_core.spec.documents import Number, from_document
from model_core.spec.errors import CheckpointError, SpecError, require

ATTENTION_IMPLEMENTATIONS = ("sdpa", "eager")
ARCHITECTURE = "MolmoActForActionReasoning"


@dataclass(frozen=True, slots=True, kw_only=True)
class VitConfig:
    """The vision tower. `num_hidden_layers` counts configured blocks; only those up to the deepest used one exist.

    patch_stem (*ours*): "linear" embeds each flattened patch (published); "conv" runs a small convolutional
    stem over the whole crop and ends on the same patch grid (tiny models; the patch size is a power of two).
    stem_channels (*ours*): width of each stride-2 convolution, one per halving of the patch.
    further_input_sizes (*ours*): sizes that a conv stem reads beside `image_default_input_size`, each with positions of its own
    (networks for several embodiments); `image_num_pos` counts the positions of all.
    """

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    num_key_value_heads: int = 16
    head_dim: int = 72
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: Number = 1e-6
    image_default_input_size: tuple[int, int] = (378, 378)
    image_patch_size: int = 14
    image_num_pos: int = 729
    float32_attention: bool = True
    use_cls_token: bool = False
    patch_bias: bool = True
    pre_layernorm: bool = False
    patch_stem: str = "linear"
    stem_channels: tuple[int, ...] = ()
    further_input_sizes: tuple[tuple[int, int], ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.patch_stem in ("linear", "conv"), "patch_stem must be 'linear' or 'conv'", got=self.patch_stem)
        plain = self.patch_stem == "conv" and not self.use_cls_token
        require(plain or not self.further_input_sizes, "further_input_sizes need a conv stem and no class token", got=self.patch_stem)
        positions = sum(self._patches(size) for size in self._sizes) + int(self.use_cls_token)
        require(
            self.image_num_pos == positions,
            f"image_num_pos must be {positions} for {' and '.join(map(str, self._sizes))}",
            got=self.image_num_pos,
        )
        if self.patch_stem == "conv":
            require(
                2 ** len(self.stem_channels) == self.image_patch_size,
                f"a conv stem needs one entry of stem_channels per halving of the patch size {self.image_patch_size}",
                got=self.stem_channels,
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in one crop."""
        height, width = self.image_default_input_size
        return height // self.image_patch_size, width // self.image_patch_size

    @property
    def _sizes(self) -> tuple[tuple[int, int], ...]:
        return (self.image_default_input_size, *self.further_input_sizes)

    def _patches(self, size: tuple[int, int]) -> int:
        return (size[0] // self.image_patch_size) * (size[1] // self.image_patch_size)

    def position_rows(self, height: int, width: int) -> slice:
        """Which positions are those of images of this size. Raises `SpecError` for a size that the tower does not read."""
        start = 0
        for size in self._sizes:
            if size == (height, width):
                return slice(start, start + self._patches(size))
            start += self._patches(size)
        raise SpecError(f"an image of {height}x{width} pixels; this network reads {' and '.join(f'{h}x{w}' for h, w in self._sizes)}")

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch: (row, column, channel), channel fastest."""
        return 3 * self.image_patch_size**2


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """The connector: which block outputs are read, 2x2 attention pooling and the SwiGLU projector.

    vit_layers: block outputs, concatenated in the listed order (published: deep layer first). Empty (*ours*):
    the patch stem's output itself.
    image_padding_embed: None or "pad_and_partial_pad" (7B-O).
    pool_residual (*ours*): adds the mean of the four slots to the pooled vector.
    """

    vit_layers: tuple[int, ...] = (-3, -9)
    hidden_size: int = 1152
    num_attention_heads: int = 16
    num_key_value_heads: int = 16
    head_dim: int = 72
    float32_attention: bool = True
    hidden_act: str = "silu"
    intermediate_size: int = 18944
    text_hidden_size: int = 3584
    image_padding_embed: str | None = None
    pool_residual: bool = False
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = (None, "pad_and_partial_pad")
        require(self.image_padding_embed in known, f"image_padding_embed must be one of {known}", got=self.image_padding_embed)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmConfig:
    """The decoder. `vocab_size` is the number of base rows, which is also what `lm_head` scores.

    num_slots (*ours*): 0, or the number of fixed slots; a learned row per position id is then added to the input.
    use_rope (*ours*): off where the slots alone carry position.
    """

    hidden_size: int = 3584
    num_attention_heads: int = 28
    num_key_value_heads: int = 4
    head_dim: int = 128
    vocab_size: int = 152064
    additional_vocab_size: int = 128
    qkv_bias: bool = True
    num_hidden_layers: int = 28
    intermediate_size: int = 18944
    hidden_act: str = "silu"
    max_position_embeddings: int = 4096
    rope_theta: Number = 1_000_000.0
    use_qk_norm: bool = False
    qk_norm_type: str = "olmo"
    layer_norm_eps: Number = 1e-6
    norm_after: bool = False
    num_slots: int = 0
    use_rope: bool = True
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.qk_norm_type in ("olmo", "qwen3"), "qk_norm_type must be 'olmo' or 'qwen3'", got=self.qk_norm_type)
        groups = self.num_attention_heads % self.num_key_value_heads
        require(groups == 0, "num_attention_heads must be a multiple of num_key_value_heads", got=self.num_attention_heads)
        scaling = self.extras.get("rope_scaling")
        require(not scaling, "rope_scaling is not part of any published MolmoAct and is not implemented", got=scaling)


@dataclass(frozen=True, slots=True, kw_only=True)
class MolmoActConfig:
    """Everything that decides the network's shape and arithmetic.

    attention (*ours*): "sdpa" (fused kernel) or "eager" (plain matmul and softmax). Both give the same numbers within rounding. On a
    CPU the fused one takes 0.8x the time of a training step over packed examples of 400 tokens; over a few dozen tokens it is slower.
    """

    vit: VitConfig = field(default_factory=VitConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    llm: LlmConfig = field(default_factory=LlmConfig)
    image_patch_id: int = 152066
    n_action_bins: int = 256
    norm_stats: Mapping[str, Any] = field(default_factory=dict)
    attention: str = "sdpa"
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.attention in ATTENTION_IMPLEMENTATIONS, f"attention must be one of {ATTENTION_IMPLEMENTATIONS}", got=self.attention)
        rows = self.llm.vocab_size + self.llm.additional_vocab_size
        require(0 <= self.image_patch_id < rows, f"image_patch_id must be 0..{rows - 1}", got=self.image_patch_id)
        require(
            self.adapter.text_hidden_size == self.llm.hidden_size,
            f"adapter text_hidden_size must equal the decoder's {self.llm.hidden_size}",
            got=self.adapter.text_hidden_size,
        )
        require(not self.extras.get("tie_word_embeddings"), "tied embeddings are not part of any published MolmoAct")
        if self.adapter.vit_layers:
            deepest = max(self.feature_layers)
            require(deepest < self.vit.num_hidden_layers, "vit_layers name a block that is not configured", got=self.adapter.vit_layers)
            require(min(self.feature_layers) >= 0, "vit_layers name a block that is not configured", got=self.adapter.vit_layers)

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """`vit_layers` as block numbers from 0."""
        depth = self.vit.num_hidden_layers
        return tuple(layer if layer >= 0 else layer + depth for layer in self.adapter.vit_layers)

    @property
    def vit_blocks(self) -> int:
        """Blocks that exist in a checkpoint: those up to the deepest one whose output is used."""
        return max(self.feature_layers, default=-1) + 1

    @property
    def feature_width(self) -> int:
        """Width of one patch's feature as it enters the connector."""
        return self.vit.hidden_size * max(1, len(self.adapter.vit_layers))

    def to_json(self) -> dict[str, Any]:
        """The published `config.json` object; keys of ours appear only where they differ from "as published"."""
        head: dict[str, Any] = {"architectures": [ARCHITECTURE], "model_type": "molmoact", **self.extras}
        head["vit_config"] = section_to_json(self.vit)
        head["adapter_config"] = section_to_json(self.adapter)
        head["llm_config"] = section_to_json(self.llm)
        head |= {"image_patch_id": self.image_patch_id, "n_action_bins": self.n_action_bins, "norm_stats": dict(self.norm_stats)}
        if self.attention != "sdpa":
            head["attention"] = self.attention
        return head

    @classmethod
    def from_json(cls, source: Mapping[str, Any] | str | Path) -> MolmoActConfig:
        """Read a parsed `config.json`, its text, or the file (or folder holding it) at a `Path`.

        Raises CheckpointError when the file is missing, is not JSON, or is not a MolmoAct configuration.
        """
        data = read_settings(source, "config.json")
        missing = [key for key in ("vit_config", "adapter_config", "llm_config", "image_patch_id") if key not in data]
        if missing:
            raise CheckpointError(f"not a MolmoAct config: keys {missing} are missing; got {sorted(data)}")
        top = ("image_patch_id", "n_action_bins", "norm_stats", "attention")
        elsewhere = {*top, "vit_config", "adapter_config", "llm_config", "architectures", "model_type"}
        try:
            values = {
                "vit": section_from_json(VitConfig, data, "vit_config"),
                "adapter": section_from_json(AdapterConfig, data, "adapter_config"),
                "llm": section_from_json(LlmConfig, data, "llm_config"),
                "extras": {key: value for key, value in data.items() if key not in elsewhere},
            }
            return from_document(cls, values | {key: data[key] for key in top if data.get(key) is not None}, where="config.json")
        except SpecError as error:
            raise CheckpointError(f"config.json does not describe a network that we can build: {error}") from error
