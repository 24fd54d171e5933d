"""How many tokens the examples of a recipe have, counted on examples that are really made: sentences, images and answers of its form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from components.config.published.training import ExampleGroup, PublishedTraining
from components.config.train_config import start_folder
from components.data.web_pairs.opened import WebPairs
from components.training.published.kinds import FORMS, kind_weights
from components.training.published.shapes import NetworkShape
from components.training.published.validation import spread
from components.training.published.web.examples import WebExamples, web_processor
from components.training.sizing.flop import ExampleShape
from model_core.network.config import MolmoActConfig
from model_core.network.finetuning.packing import TrainingExample
from model_core.network.images import ImageProcessor
from model_core.spec.types import ActionReasoning, DepthTokens, Trace
from model_core.tokenization.published.prompts import Wording, prompt_of
from model_core.tokenization.published.tokenizer import PromptTokenizer

_FRAME_HW = (240, 320)  # what robot frames are brought to before training, as published
_INSTRUCTION = "put the red block into the white bowl"
_DRAWS = 16
_WEB_ROWS = 16  # of a source, evenly spaced


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


def with_web(shape: ExampleShape, published: PublishedTraining, network: NetworkShape) -> ExampleShape:
    """The mean example where web sources are drawn beside the groups: some rows of each listing are measured."""
    found, weights = [shape], [sum(group.rate for group in published.groups)]
    for source in published.web:
        rows = WebExamples(source, WebPairs(start_folder(source.path)), network, published, web_processor(network.processor))
        found.append(mean_shape([measured_shape(rows.example(place)) for place in spread(np.arange(len(rows)), _WEB_ROWS)]))
        weights.append(source.rate)
    return mean_shape(found, weights) if published.web else shape


def mean_shape(shapes: Sequence[ExampleShape], weights: Sequence[float] | None = None) -> ExampleShape:
    """The mean of these, each by its weight, in whole numbers."""
    values = np.average([list(asdict(one).values()) for one in shapes], axis=0, weights=weights)
    return ExampleShape(**dict(zip(asdict(shapes[0]), np.rint(values).astype(int).tolist(), strict=True)))


def measured_shape(example: TrainingExample) -> ExampleShape:
    """The size of an example that was made."""
    images, answer = example.images, example.answer_tokens
    assert images is not None
    tokens, crops = (sum(rows * columns for grids in images.image_grids for rows, columns in grids), len(images.image_masks_CP))
    return ExampleShape(prompt=len(example.ids_L) - answer, answer=answer, image_tokens=tokens, crops=crops, head_rows=answer)


def _answer_tokens(tokenizer: PromptTokenizer, wording: Wording, action: ActionShape, seed: int) -> int:
    rng = np.random.default_rng(seed)
    bins_KA = np.clip(np.rint(rng.normal(128, 30, (action.chunk_length, action.dims))), 1, 256).astype(np.int64)
    reasoning = ActionReasoning(
        depth=DepthTokens(codes_G=rng.integers(0, 128, 100)), trace=Trace(points_N2=rng.integers(0, 256, (5, 2))), bins_KA=bins_KA
    )
    return len(tokenizer.answer_ids(wording.answer(reasoning)))
