"""An untrained tiny model, written as a checkpoint: real files, real code paths, no skill."""

from __future__ import annotations

from pathlib import Path

from model_core.checkpoint import write_checkpoint
from model_core.spec.contract import EmbodimentSpec, PolicyContract, ReasoningSpec
from model_core.spec.stats import UnnormStats
from model_core.tiny import TinySize, new_tiny_model, tiny_config, tiny_layout

SMALLEST = TinySize(width=32, layers=1, heads=2, kv_heads=2, feed_forward=64, projector=64, stem=(8, 16, 16))
INSTRUCTIONS = ("push the button of the coffee machine", "close the green drawer")


def write_tiny_checkpoint(
    folder: Path,
    *,
    embodiment: EmbodimentSpec,
    instructions: tuple[str, ...] = INSTRUCTIONS,
    seed: int = 0,
    size: TinySize = SMALLEST,
    execute_horizon: int = 8,
) -> PolicyContract:
    """Write a checkpoint of a model of this size for this body, without a depth codebook; returns its contract."""
    dims = len(embodiment.action)
    words = tuple(sorted({word for text in instructions for word in text.split()}))
    contract = PolicyContract(
        embodiment=embodiment,
        stats=UnnormStats(q01=(-1.0,) * dims, q99=(1.0,) * dims, mask=(True,) * (dims - 1) + (False,), count=100),
        reasoning=ReasoningSpec(trace_camera=embodiment.cameras[0].name),
        chunk_length=8,
        execute_horizon=execute_horizon,
        words=words,
    )
    layout = tiny_layout(contract, size, instructions)
    model = new_tiny_model(layout, size, seed)
    write_checkpoint(folder, state=model.state_dict(), config=tiny_config(layout, size), contract=contract)
    return contract
