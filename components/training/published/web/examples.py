"""Examples of one web source: the image, then each of its questions with its answer. Only answers are learned.

An image is cut into as many crops as the published processor allows for one image, at its own size: robot frames alone are kept small. It
is never augmented, because answers may name places in it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from components.config.published.training import KINDS, WEB, PublishedTraining
from components.config.published.web import WebSource
from components.data.web_pairs.opened import WebPairs
from components.training.published.examples import Look
from components.training.published.shapes import NetworkShape
from model_core.network.finetuning.packing import TrainingExample, several_questions
from model_core.network.images import ImageProcessor
from model_core.spec.errors import DatasetError, require
from model_core.tokenization.published.tokenizer import PromptTokenizer

_FRAME_BYTES = len("User:  Assistant: ") + 1  # of a question and its answer: the words of the chat template, and the end


def web_processor(processor: ImageProcessor) -> ImageProcessor:
    """The processor as it is for images that are not a robot's: large ones are cut into crops, not shrunk."""
    return replace(processor, shrinks_large=False)


class WebExamples:
    """Examples of the rows of one side of a source. held_out: which side. look: what makes an image the input of the network.

    places_N: rows of the listing, in order. too_long: how many rows were left out because they have more than `max_tokens` tokens.
    Raises `DatasetError` for a side without rows (held out: it may have none).
    """

    def __init__(
        self, source: WebSource, pairs: WebPairs, network: NetworkShape, published: PublishedTraining, look: Look, *, held_out: bool = False
    ) -> None:
        self.source, self._pairs, self._tokenizer, self._look = source, pairs, network.tokenizer, look
        self._prefixes = _Prefixes(network.tokenizer, web_processor(network.processor))
        wanted_N = np.flatnonzero(pairs.held_out_N == held_out)
        fits_N = self._fits(wanted_N, published.max_tokens)
        self.places_N, self.too_long = wanted_N[fits_N], int((~fits_N).sum())
        require(
            held_out or len(self.places_N) > 0,
            f"web source {source.name!r}: none of its {len(wanted_N)} rows for training has at most {published.max_tokens} tokens. Fix: "
            "raise train.published.max_tokens",
            error=DatasetError,
        )

    def __len__(self) -> int:
        return len(self.places_N)

    def possible(self) -> dict[str, NDArray[np.bool_]]:
        """As `ExampleMaker.possible`: no kind of a robot's example can be made of a row."""
        return {kind: np.zeros(len(self), bool) for kind in KINDS}

    def answer_tokens(self, place: int, kind: str = WEB) -> float:
        """How many tokens are learned, each by its weight."""
        pairs = self._ids(int(self.places_N[place]))
        return sum(len(answer) for _, answer in pairs) / np.sqrt(len(pairs))

    def example(self, place: int, kind: str = WEB, generator: np.random.Generator | None = None) -> TrainingExample:
        """The example of a row. Raises `DatasetError` where its image is not the one that was listed."""
        row = int(self.places_N[place])
        image_HW3 = self._pairs.image(row)
        prefix = self._prefixes.ids(*image_HW3.shape[:2])
        return several_questions(prefix, self._ids(row), self._look([image_HW3]), kind)

    def _ids(self, row: int) -> list[tuple[list[int], NDArray[np.int64]]]:
        style = f"{self.source.style}: " if self.source.style else ""
        questions, answers = self._pairs.texts(row)
        made = self._tokenizer
        return [(made.question_ids(style + one), made.answer_ids(other)) for one, other in zip(questions, answers, strict=True)]

    def _fits(self, rows_N: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
        """Whether each row has at most `most` tokens. A text has at most as many tokens as bytes, so only long ones are counted."""
        images_N = np.array([len(self._prefixes.ids(*size)) for size in self._pairs.sizes_N2[rows_N].tolist()], np.int64)
        texts_N = self._pairs.text_bytes()[rows_N]
        fits_N = np.zeros(len(rows_N), bool)
        for number, row in enumerate(rows_N.tolist()):
            room = int(most - images_N[number])
            style_bytes = len(self.source.style.encode()) + 2
            surely = texts_N[number] + (_FRAME_BYTES + style_bytes) * self._pairs.question_counts_N[row] <= room
            fits_N[number] = surely or sum(len(question) + len(answer) for question, answer in self._ids(row)) <= room
        return fits_N


class _Prefixes:
    """BOS and image tokens of one image, by its size; images of a few layouts are most."""

    def __init__(self, tokenizer: PromptTokenizer, processor: ImageProcessor) -> None:
        self._tokenizer, self._processor = tokenizer, processor
        self._of_grids: dict[tuple[tuple[int, int], ...], list[int]] = {}
        self.ids = lru_cache(maxsize=100_000)(self._ids)

    def _ids(self, height: int, width: int) -> list[int]:
        grids = self._processor.grids_of([(height, width)])[0]
        if grids not in self._of_grids:
            self._of_grids[grids] = self._tokenizer.prefix_ids([grids])
        return self._of_grids[grids]
