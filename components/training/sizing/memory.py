"""Memory of one GPU in a training step, by part, as the training engine and the network of this repository use it.

    weights      4 bytes each, float32; ZeRO stage 3 leaves each process its share
    gradients    4 bytes for each trained weight; shared from stage 2 on
    optimiser    8 bytes for each trained weight (two moments of AdamW); shared from stage 1 on
    gathered     stage 3: two whole units (the one at work, the next one) and the gradient of one, before it is spread, at 4 bytes each
    casts        bfloat16 copies that the forward pass makes: of all weights; of stage 3, of two units
    activations  of the decoder what enters each block, kept in float32, and all that one block keeps while it is computed a second time;
                 of the tower and connector all that they keep, where they are trained or adapted
    logits       of the answer rows that are in memory at once: float32, and their bfloat16 form twice
    reserve      of CUDA, its libraries and of memory that the allocator cannot use: 3 GiB

What a block keeps for a token is counted in `decoder_block_bytes` and `vision_block_bytes`; tests compare both with what autograd holds
of a real block.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from components.training.sizing.counts import ParameterCounts
from components.training.sizing.flop import ExampleShape
from components.training.sizing.machines import GIB
from model_core.network.config import MolmoActConfig

RESERVE_BYTES = 3 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """How a training is spread. world: processes, one a GPU. zero_stage: 0..3. examples: of one forward pass. loss_rows: answer rows whose
    logits are in memory at once."""

    world: int
    zero_stage: int
    examples: int
    loss_rows: int

    def share(self, from_stage: int) -> int:
        """Among how many processes a tensor is spread that is spread from this stage on."""
        return self.world if self.zero_stage >= from_stage else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryParts:
    """Bytes of one GPU by part; see the module."""

    weights: int
    gradients: int
    optimiser: int
    gathered: int
    casts: int
    activations: int
    logits: int
    reserve: int

    @property
    def total(self) -> int:
        """All parts."""
        return sum(asdict(self).values())


def memory_parts(
    config: MolmoActConfig, counts: ParameterCounts, shape: ExampleShape, sharing: Sharing, *, frozen_tower: bool = False
) -> MemoryParts:
    """Memory of one GPU. shape: of one example; as many of them as `sharing` says are in a forward pass. frozen_tower: nothing is kept of
    the vision tower."""
    whole = sharing.zero_stage < 3
    rows = min(sharing.loss_rows, sharing.examples * shape.head_rows)
    return MemoryParts(
        weights=_share(4 * counts.held, sharing.share(3)),
        gradients=_share(4 * counts.trained, sharing.share(2)),
        optimiser=_share(8 * counts.trained, sharing.share(1)),
        gathered=0 if whole else 3 * 4 * counts.block,
        casts=2 * (counts.held if whole else 2 * counts.block),
        activations=activation_bytes(config, shape, sharing.examples, frozen_tower=frozen_tower),
        logits=rows * config.llm.vocab_size * (4 + 2 + 2),
        reserve=RESERVE_BYTES,
    )


def activation_bytes(config: MolmoActConfig, shape: ExampleShape, examples: int, *, frozen_tower: bool = False) -> int:
    """What is kept for the backward pass of `examples` examples: decoder with recomputed blocks, tower and connector without."""
    tokens, crops = examples * shape.tokens, examples * shape.crops
    llm, vit = config.llm, config.vit
    patches = math.prod(vit.grid) + int(vit.use_cls_token)
    decoder = tokens * (4 * llm.hidden_size * (llm.num_hidden_layers + 1) + decoder_block_bytes(config))
    tower = 0 if frozen_tower else crops * patches * config.vit_blocks * vision_block_bytes(config)
    return decoder + tower + examples * shape.image_tokens * connector_bytes(config)


def decoder_block_bytes(config: MolmoActConfig) -> int:
    """What one decoder block keeps of a token: its norms in float32, the inputs of its layers and of attention in bfloat16."""
    llm = config.llm
    width, queries = llm.hidden_size, llm.num_attention_heads * llm.head_dim
    keys, inner = llm.num_key_value_heads * llm.head_dim, llm.intermediate_size
    norms = 2 * (4 + 4) * width  # before and after it is scaled, twice a block
    attention = 2 * width + 2 * (queries + 2 * keys) + 2 * queries + 2 * queries  # input; q, k, v; result; input of the last layer
    feed_forward = 2 * width + 2 * 2 * inner + 2 * inner + 2 * inner  # input; value and gate; activated gate; their product
    return norms + attention + feed_forward


def vision_block_bytes(config: MolmoActConfig) -> int:
    """What one block of the vision tower keeps of a patch."""
    vit = config.vit
    width, inner = vit.hidden_size, vit.intermediate_size
    heads = vit.num_attention_heads * vit.head_dim
    norms = 2 * 4 * width
    attention = 2 * width + 3 * 2 * heads + 2 * heads + 2 * heads
    return norms + attention + 2 * width + 2 * inner + 2 * inner


def connector_bytes(config: MolmoActConfig) -> int:
    """What pooling and projector keep of an image token: four slots of the tower's features, and the projector's inner values."""
    adapter = config.adapter
    heads = adapter.num_attention_heads * adapter.head_dim
    pooling = 4 * (4 + 2) * config.feature_width + (4 + 2) * config.feature_width + 2 * heads * (1 + 4 + 4 + 2)
    return pooling + 2 * adapter.hidden_size + 2 * 4 * adapter.intermediate_size


def _share(size: int, processes: int) -> int:
    return -(-size // processes)
