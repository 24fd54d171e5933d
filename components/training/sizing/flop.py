"""Floating-point operations of one example, by part: 2 for each weight and token, and those of attention.

    forward    decoder   2 x weights of the layers x tokens  +  2 x layers x heads x head width x tokens^2   (causal: half of all pairs)
               head      2 x rows x width x answer tokens
               vision    2 x weights of the blocks x patches +  4 x blocks x heads x head width x patches^2  (a crop; all pairs)
               connector its layers, once for each image token (keys and values of its pooling four times)
    training   3 x forward; with adapters 2 x forward (no gradient of a frozen weight) and 6 for each adapter weight and token; of a
              tower that is not trained its forward once, or nothing where its features are read

Norms, rotations and the softmax are not counted, nor what is computed a second time to save memory: a utilisation of these numbers is of
work that the result needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from components.config.published.training import PublishedTraining
from components.training.sizing.counts import is_linear, shapes_of
from model_core.network.config import MolmoActConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleShape:
    """How large an example is. prompt, answer: tokens. image_tokens: of the prompt, those that hold image features. crops: through the
    vision tower. head_rows: rows that the head computes."""

    prompt: int
    answer: int
    image_tokens: int
    crops: int
    head_rows: int

    @property
    def tokens(self) -> int:
        """Of prompt and answer."""
        return self.prompt + self.answer


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleFlop:
    """FLOP of one example in a forward pass, by part, and of its whole training."""

    decoder: float
    head: float
    vision: float
    connector: float
    adapters: float
    training: float


Tower = Literal["trained", "frozen", "cached"]


def example_flop(
    config: MolmoActConfig, shape: ExampleShape, *, lora_rank: int = 0, tower: Tower = "trained", ids: int | None = None
) -> ExampleFlop:
    """FLOP of an example of this shape. lora_rank: of adapters on every linear layer; 0: all weights are trained. tower: whether the vision
    tower is trained, or only computed, or its features are read. ids: how many compete in the loss; None: all that the head scores."""
    llm, vit = config.llm, config.vit
    layers, blocks, patches = llm.num_hidden_layers, config.vit_blocks, math.prod(vit.grid) + int(vit.use_cls_token)
    sizes = _linear_sizes(config)
    sizes["head"] = sizes["head"] if ids is None else ids * llm.hidden_size
    attention = 2.0 * layers * llm.num_attention_heads * llm.head_dim * shape.tokens**2
    tower_attention = 4.0 * blocks * vit.num_attention_heads * vit.head_dim * patches**2
    used = {
        "decoder": 2.0 * sizes["decoder"] * shape.tokens + attention,
        "head": 2.0 * sizes["head"] * shape.head_rows,
        "vision": shape.crops * (2.0 * sizes["vision"] * patches + tower_attention),
        "connector": 2.0 * (sizes["pooled"] + 4 * sizes["slots"]) * shape.image_tokens,
    }
    untrained = 0.0 if tower == "trained" else used["vision"]
    once = untrained if tower == "frozen" else 0.0
    forward = sum(used.values()) - untrained
    if not lora_rank:
        return ExampleFlop(**used, adapters=0.0, training=3.0 * forward + once)
    ranks = _linear_sizes(config, lora_rank)
    adapters = 2.0 * (
        ranks["decoder"] * shape.tokens
        + ranks["head"] * shape.head_rows
        + (ranks["vision"] * shape.crops * patches if tower == "trained" else 0.0)
        + (ranks["pooled"] + 4 * ranks["slots"]) * shape.image_tokens
    )
    return ExampleFlop(**used, adapters=adapters, training=2.0 * forward + 3.0 * adapters + once)


def tower_of(published: PublishedTraining) -> Tower:
    """What a training computes of the vision tower."""
    if not published.freeze_tower:
        return "trained"
    return "cached" if published.feature_cache else "frozen"


def _linear_sizes(config: MolmoActConfig, lora_rank: int = 0) -> dict[str, int]:
    """Weights of linear layers by how often they are used; with a rank, those of the adapters on them."""
    sizes: dict[str, int] = dict.fromkeys(("decoder", "head", "vision", "pooled", "slots"), 0)
    for name, shape in shapes_of(config).items():
        if not is_linear(name, shape):
            continue
        size = lora_rank * sum(shape) if lora_rank else math.prod(shape)
        if name == "lm_head.weight":
            sizes["head"] += size
        elif ".image_vit." in name:
            sizes["vision"] += size
        elif name.endswith(("image_pooling_2d.wk.weight", "image_pooling_2d.wv.weight")):
            sizes["slots"] += size
        else:
            sizes["pooled" if ".vision_backbone." in name else "decoder"] += size
    return sizes
