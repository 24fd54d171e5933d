"""How many tokens the examples of a recipe have, counted on examples that are really made: sentences, images and answers of its form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.config.published.training import ExampleGroup
from components.training.published.kinds import FORMS, kind_weights
from components.training.sizing.flop import ExampleShape
from model_core.network.config import MolmoActConfig
from model_core.network.images import ImageProcessor
from model_core.spec.types import ActionReasoning, DepthTokens, Trace
from model_core.tokenization.published.prompts import Wording, prompt_of
from model_core.tokenization.published.tokenizer import PromptTokenizer

_FRAME_HW = (240, 320)  # what robot frames are brought to before training, as published
_INSTRUCTION = "put the red block into the white bowl"
_DRAWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionShape:
    """What an answer states: views that are asked about, actions of a chunk, numbers of an action."""

    views: int
    chunk_length: int
    dims: int = 7


def example_shape(
    config: MolmoActConfig, processor: ImageProcessor, tokenizer: PromptTokenizer, action: ActionShape, groups: Sequence[ExampleGroup]
) -> ExampleShape:
    """The mean example of these groups, by their rates and kinds: an instruction of eight words, frames of 240 x 320, a trace of five
    points, actions around the middle of their range (drawn with a fixed seed)."""
    inputs = processor([np.zeros((*_FRAME_HW, 3), np.uint8)] * action.views)
    weights = kind_weights(groups)
    prompt = answer = 0.0
    for kind, weight in weights.items():
        wording = Wording(form=FORMS[kind], views=action.views)
        prompt += weight * len(prompt_of(tokenizer, _INSTRUCTION, inputs.image_grids, wording).ids_L)
        answer += weight * float(np.mean([_answer_tokens(tokenizer, wording, action, seed) for seed in range(_DRAWS)]))
    image_tokens = sum(rows * columns for grids in inputs.image_grids for rows, columns in grids)
    return ExampleShape(
        prompt=round(prompt), answer=round(answer), image_tokens=image_tokens, crops=len(inputs.images_CPD), head_rows=round(answer)
    )


def _answer_tokens(tokenizer: PromptTokenizer, wording: Wording, action: ActionShape, seed: int) -> int:
    rng = np.random.default_rng(seed)
    bins_KA = np.clip(np.rint(rng.normal(128, 30, (action.chunk_length, action.dims))), 1, 256).astype(np.int64)
    reasoning = ActionReasoning(
        depth=DepthTokens(codes_G=rng.integers(0, 128, 100)), trace=Trace(points_N2=rng.integers(0, 256, (5, 2))), bins_KA=bins_KA
    )
    return len(tokenizer.answer_ids(wording.answer(reasoning)))
