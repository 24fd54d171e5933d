"""The tiny Action Reasoning Model: the published network at a size that learns on two processor cores in minutes.

Same modules as 7B (vision stem -> 2x2 attention pooling -> SwiGLU projector -> RMSNorm/SwiGLU/RoPE decoder), with a convolutional
stem in place of the pretrained ViT and one learned row per slot of the compact language.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from model_core.network.config import AdapterConfig, LlmConfig, MolmoActConfig, VitConfig
from model_core.network.model import MolmoAct
from model_core.network.queries import ACTION_HEAD_KEY, ActionHead, action_head_of
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError, SpecError, require
from model_core.tokenization.compact.layout import CompactLayout, CompactVocabulary, words_of

LAYOUT_KEY = "compact_layout"


@dataclass(frozen=True, slots=True, kw_only=True)
class TinySize:
    """What may be chosen about a tiny model. width: of the decoder; feed_forward: of its SwiGLU; stem: channels a stride-2 convolution."""

    width: int = 192
    layers: int = 4
    heads: int = 3
    kv_heads: int = 3
    feed_forward: int = 512
    projector: int = 384
    stem: tuple[int, ...] = (32, 64, 128)
    rope: bool = False

    def __post_init__(self) -> None:
        require(self.width % (2 * self.heads) == 0, f"width {self.width} must be a multiple of twice the {self.heads} heads")
        require(1 <= len(self.stem) <= 5, "the stem has 1..5 stride-2 convolutions", got=self.stem)

    @staticmethod
    def of(network: str | Mapping[str, Any]) -> TinySize:
        """Read ``TrainConfig.network``: the name "tiny", or the fields to change. Raises `SpecError` on anything else."""
        if isinstance(network, str):
            require(network == "tiny", "network must be 'tiny' or a mapping of its fields", got=network)
            return TinySize()
        known = {entry.name for entry in fields(TinySize)}
        if strangers := sorted(set(network) - known):
            raise SpecError(f"network has no field {strangers}; it has {sorted(known)}")
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in network.items()}
        return TinySize(**values)


def tiny_layout(contract: PolicyContract, size: TinySize, instructions: tuple[str, ...]) -> CompactLayout:
    """The slots of `contract`'s language: a 2x2-pooled patch grid per camera, as many words as the longest instruction (8 at least)."""
    camera = contract.embodiment.cameras[0]
    patch = 2 ** len(size.stem)
    for other in contract.embodiment.cameras:
        require((other.width, other.height) == (camera.width, camera.height), "a tiny model needs cameras of one size", got=other)
    require(
        camera.height % (2 * patch) == 0 and camera.width % (2 * patch) == 0, f"camera sides must be multiples of {2 * patch}", got=camera
    )
    grid = (camera.height // patch // 2, camera.width // patch // 2)
    longest = max((len(words_of(text)) for text in instructions), default=0)
    return CompactLayout.of_contract(contract, patch_grid=grid, max_words=max(8, longest))


def tiny_config(layout: CompactLayout, size: TinySize, head: ActionHead = ActionHead.CAUSAL) -> MolmoActConfig:
    """The network for `layout`; its JSON also carries what `layout_of` needs beside the contract, and how actions are predicted."""
    extras: dict[str, Any] = {LAYOUT_KEY: layout_options(layout)}
    if head.has_queries:
        extras[ACTION_HEAD_KEY] = head.value
    patch, (rows, columns) = 2 ** len(size.stem), layout.patch_grid
    head_dim = size.width // size.heads
    sides = (rows * 2 * patch, columns * 2 * patch)
    return MolmoActConfig(
        vit=VitConfig(
            hidden_size=size.width,
            intermediate_size=0,
            num_hidden_layers=0,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            head_dim=head_dim,
            image_default_input_size=sides,
            image_patch_size=patch,
            image_num_pos=rows * columns * 4,
            patch_stem="conv",
            stem_channels=size.stem,
        ),
        adapter=AdapterConfig(
            vit_layers=(),
            hidden_size=size.width,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            head_dim=head_dim,
            float32_attention=False,
            intermediate_size=size.projector,
            text_hidden_size=size.width,
            pool_residual=True,
        ),
        llm=_decoder(layout, size),
        image_patch_id=layout.vocabulary.im_patch_id,
        attention="eager",
        extras=extras,
    )


def layout_options(layout: CompactLayout) -> dict[str, Any]:
    """What a config carries of a layout: all that its contract does not imply."""
    return {"patch_grid": list(layout.patch_grid), "max_words": layout.max_words, "image_marks": layout.image_marks}


def _decoder(layout: CompactLayout, size: TinySize) -> LlmConfig:
    """The decoder, with one position for each slot of the layout."""
    return LlmConfig(
        hidden_size=size.width,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.width // size.heads,
        vocab_size=layout.vocabulary.base_size,
        additional_vocab_size=layout.vocabulary.size - layout.vocabulary.base_size,
        num_hidden_layers=size.layers,
        intermediate_size=size.feed_forward,
        max_position_embeddings=layout.num_slots,
        rope_theta=10_000.0,
        num_slots=layout.num_slots,
        use_rope=size.rope,
    )


def layout_of(config: MolmoActConfig, contract: PolicyContract) -> CompactLayout:
    """The layout that a stored config and its contract imply. Raises `CheckpointError` where they do not fit each other."""
    options = config.extras.get(LAYOUT_KEY)
    if not isinstance(options, Mapping):
        raise CheckpointError(f"config.json has no {LAYOUT_KEY!r}: not a model of the compact language")
    layout = CompactLayout.of_contract(contract, **{**options, "patch_grid": tuple(options["patch_grid"])})
    for name, expected, got in (
        ("llm_config.num_slots", layout.num_slots, config.llm.num_slots),
        ("llm_config.vocab_size", layout.vocabulary.base_size, config.llm.vocab_size),
        ("image_patch_id", layout.vocabulary.im_patch_id, config.image_patch_id),
        ("kind of policy", contract.reasoning.kind, action_head_of(config).kind),
    ):
        if expected != got:
            raise CheckpointError(f"weights and contract do not belong together: {name} is {got}, the contract implies {expected}")
    return layout


def pooled_patches(layout: CompactLayout) -> Tensor:
    """(N, 4) int64: the four patches of every image token, view after view, row-major. See `VisionBackbone.pool`."""
    rows, columns = layout.patch_grid
    cells = torch.arange(layout.views * rows * columns * 4).view(layout.views, rows, 2, columns, 2)
    return cells.permute(0, 1, 3, 2, 4).reshape(-1, 4)


def new_tiny_model(layout: CompactLayout, size: TinySize, seed: int, head: ActionHead = ActionHead.CAUSAL) -> MolmoAct:
    """Fresh weights, the same for every `head`.

    Neighbouring numbers start as neighbours: ordinal ids lie on one smooth curve, which learning then bends.
    """
    return fresh_model(tiny_config(layout, size, head), layout.vocabulary, seed)


@torch.no_grad()
def fresh_model(config: MolmoActConfig, vocabulary: CompactVocabulary, seed: int) -> MolmoAct:
    """Fresh weights of the compact language: as `new_tiny_model`, for any config of these ids."""
    model = MolmoAct(config)
    model.init_weights(seed, std=0.1)
    decoder = model.model.transformer
    curve = _sine_rows(256, config.llm.hidden_size)
    for ids, gain in ((vocabulary.trace_coordinates, 1.0), (vocabulary.action, 1.0), (vocabulary.proprio, 2.0)):
        decoder.wte.embedding[ids.start : ids.stop] = gain * curve
    torch.nn.init.normal_(model.lm_head.weight, std=0.02, generator=torch.Generator().manual_seed(seed + 1))
    return model


def _sine_rows(count: int, width: int) -> Tensor:
    places = torch.arange(count, dtype=torch.float32)[:, None] / count
    frequencies = torch.exp(torch.linspace(0.0, math.log(40.0), width // 2))[None] * math.pi
    return 0.1 * torch.cat([torch.sin(places * frequencies), torch.cos(places * frequencies)], dim=1)
