"""Training examples in the published language: images, questions and answers in; ids, targets, loss weights and positions out.

One question and answer:       BOS . images . question . answer                 targets: the next id, EOS behind the answer
Several about the same images: BOS . images . question 1 . answer 1 . question 2 . answer 2 ...

Each of several sees the images and itself (`subsegments_L`), begins at the position behind the images, and ends in its own EOS, which is
only a target. Loss stands on answers and their EOS, divided by the square root of the number of questions, as published.

The four kinds of example of one frame, with `annotation_of` and a `prompts.Wording` of the form in brackets: full reasoning (FULL),
trajectory-conditioned (STEERED; draw the trace into the first image), depth alone (DEPTH), trace alone (TRACE). The sentences of the last
two are in no published code: they are the clauses of the full answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import require
from model_core.spec.types import ActionReasoning
from model_core.tokenization.published.prompts import ImageGrids, Wording, image_places
from model_core.tokenization.published.tokenizer import PromptTokenizer

IMAGE_SEGMENT = 10_000  # the subsegment of BOS and images: above every question, so that all of them see it
SINGLE_SEGMENT = 1  # of a whole sequence with one question


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One question about the images and its answer, both without the words of the chat template."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSequence:
    """One sample as token ids, all of length L.

    input_ids_L: int64, what is read. targets_L: int64, the id that each place predicts. weights_L: float32, what each prediction counts
    in the loss, 0 where it does not. positions_L: int64, rotary positions. subsegments_L: int64; a place sees places before it of its
    own number or a higher one. image_places_N: int64, where image features are added.
    """

    input_ids_L: NDArray[np.int64]
    targets_L: NDArray[np.int64]
    weights_L: NDArray[np.float32]
    positions_L: NDArray[np.int64]
    subsegments_L: NDArray[np.int64]
    image_places_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.input_ids_L)


def annotation_of(instruction: str, reasoning: ActionReasoning, wording: Wording) -> Annotation:
    """The question and answer of one decision. Raises `GrammarError` for no plain instruction, or where a part is missing."""
    return Annotation(question=wording.question(instruction), answer=wording.answer(reasoning))


def training_sequence(
    tokenizer: PromptTokenizer,
    image_grids: ImageGrids,
    annotations: Sequence[Annotation],
    *,
    weight: float = 1.0,
    numbered: bool | None = None,
) -> TrainingSequence:
    """One sample of one or several annotations of the same images, in the given order.

    image_grids, numbered: see `PromptTokenizer.prompt_ids`. weight: what the sample counts. Raises `SpecError` for no annotation or a
    weight that is not positive.
    """
    require(len(annotations) > 0, "a training sequence needs at least one annotation")
    require(math.isfinite(weight) and weight > 0, "the weight of a sample must be positive", got=weight)
    prefix = tokenizer.prefix_ids(image_grids, numbered=numbered)
    several = len(annotations) > 1
    parts = [_Part([], prefix, IMAGE_SEGMENT if several else SINGLE_SEGMENT, 0, 0.0)]
    for number, annotation in enumerate(annotations):
        question, answer = tokenizer.question_ids(annotation.question), tokenizer.answer_ids(annotation.answer).tolist()
        segment = number if several else SINGLE_SEGMENT
        parts.append(_Part(question, answer, segment, len(prefix), weight / math.sqrt(len(annotations))))
    parts[0].ids.append(parts[1].ids[0])  # what the last image token precedes; it has no weight
    input_ids_L = np.array([token for part in parts for token in part.ids[:-1]], np.int64)
    return TrainingSequence(
        input_ids_L=input_ids_L,
        targets_L=np.array([token for part in parts for token in part.ids[1:]], np.int64),
        weights_L=np.concatenate([part.weights() for part in parts]),
        positions_L=np.concatenate([part.first_position + np.arange(len(part.ids) - 1) for part in parts]),
        subsegments_L=np.concatenate([np.full(len(part.ids) - 1, part.segment, np.int64) for part in parts]),
        image_places_N=image_places(tokenizer, input_ids_L),
    )


class _Part:
    """The images, or one question and answer: ids that are read, and behind them the last target."""

    def __init__(self, given: list[int], learned: list[int], segment: int, first_position: int, weight: float) -> None:
        self.ids, self.segment, self.first_position = [*given, *learned], segment, first_position
        self._given, self._weight = len(given), weight

    def weights(self) -> NDArray[np.float32]:
        """What each target counts: those of the answer, its first word to EOS."""
        weights_L = np.zeros(len(self.ids) - 1, np.float32)
        weights_L[max(self._given - 1, 0) :] = self._weight
        return weights_L
