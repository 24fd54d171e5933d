"""The error of the actions that a network in training predicts for held-out samples: its own whole answers, no label is given.

Shape letters: K chunk, A action dims.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from components.training.published.examples import ExampleMaker
from model_core.spec.contract import PolicyContract
from model_core.tokenization.action_codec import ActionCodec
from model_core.tokenization.published.grammar import Form, Style

if TYPE_CHECKING:
    from model_core.network.model import MolmoAct


def open_loop_error(model: MolmoAct, maker: ExampleMaker, places: Sequence[int], *, style: str) -> dict[str, float]:
    """Mean absolute error of each action dimension, in its own unit, over the recorded actions of these samples: {"x": 0.012, ...}.

    Answers are decoded greedily inside the language, all parts of them predicted: depth, trajectory, actions. The weights are used as they
    are, as a service does it: a training's autocast, inside which losses are measured, does not hold here.
    """
    import torch

    from model_core.engine.decode import DecodingEngine
    from model_core.engine.published.language import PublishedLanguage, PublishedRequest
    from model_core.engine.resources import EngineOptions
    from model_core.engine.rounds.window import WIDTHS, CostCurve

    contract, split = maker.contract, maker.split
    requests = [
        PublishedRequest(images=tuple(split.images_NVHW3[place]), instruction=split.instructions[int(split.instruction_idx_N[place])])
        for place in places
    ]
    longest = max(maker.example(place, "action_reasoning").answer_start for place in places)
    language = PublishedLanguage(
        maker.network.tokenizer,
        maker.network.processor,
        chunk_length=contract.chunk_length,
        action_dims=len(contract.embodiment.action),
        form=Form.FULL,
        views=maker.views,
        style=Style(style),
        max_prompt=longest,
    )
    with merged(model), torch.autocast(next(model.parameters()).device.type, enabled=False):
        # speed does not matter here, and measuring what blocks cost takes longer than the answers
        costs = CostCurve(lambda rows, width: 1.0 + 0.01 * rows * width, widths=WIDTHS)
        engine = DecodingEngine(model, language, EngineOptions(exact=False, capacity=min(8, len(places)), costs=costs))
        answers = engine.decode(requests).answers
    return _errors(contract, maker, places, [answer.reasoning.bins_KA for answer in answers])


def _errors(contract: PolicyContract, maker: ExampleMaker, places: Sequence[int], bins: Sequence[np.ndarray]) -> dict[str, float]:
    split, codec = maker.split, ActionCodec(stats=contract.stats)
    predicted_NKA = np.stack([codec.decode(bins_KA) for bins_KA in bins])
    recorded_NKA = split.actions_NKA[np.asarray(places)]
    counts_NK = np.ones(recorded_NKA.shape[:2], bool) if split.is_padded_NK is None else ~split.is_padded_NK[np.asarray(places)]
    error_A = np.abs(predicted_NKA - recorded_NKA)[counts_NK].mean(axis=0)
    return {dim.name: float(error) for dim, error in zip(contract.embodiment.action.dims, error_A, strict=True)}


@contextmanager
def merged(model: MolmoAct) -> Iterator[None]:
    """Inside, adapters are part of the weights, which the engine reads directly; afterwards every weight is what it was, bit for bit."""
    from model_core.network.finetuning.lora import is_adapted

    if not is_adapted(model):
        yield
        return
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    kept = [layer.get_base_layer().weight.detach().clone() for layer in layers]  # type: ignore[union-attr]
    for layer in layers:
        layer.merge(safe_merge=True)
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, weight in zip(layers, kept, strict=True):
                layer.unmerge()
                layer.get_base_layer().weight.copy_(weight)  # type: ignore[union-attr, operator]
