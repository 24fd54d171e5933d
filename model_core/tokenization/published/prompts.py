"""Whole prompts in the published language: an instruction and image grids in, ids and the places of the image tokens out.

    BOS . ["Image 1"] image 1 . ["Image 2"] image 2 ... . "User: {question} Assistant:"

How the published programs call it:

    the quick start, the LIBERO runner      style QUICK_START: several-image question, also about one image, which then is "Image 1"
    the simulation policy                   style RELEASED, one image, no number
    ... with a line drawn into the image    the same with form STEERED
    the fine-tuning script                  style FINETUNED, see `published.examples`

Image grids depend on the sizes of the images alone: `ImageProcessor.grids_of` tells them, or what it returns for the images.
Prompts of different lengths are stacked by `tokenizer.pad_left`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import require
from model_core.spec.types import ActionReasoning
from model_core.tokenization.published.grammar import Form, Style, render_answer, render_question
from model_core.tokenization.published.tokenizer import PromptTokenizer

ImageGrids = Sequence[Sequence[tuple[int, int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """In which of the published wordings a decision is asked for and written.

    form: what is asked for; STEERED where a trace was drawn into the first image. views: how many images. nested: see `render_actions`.
    published: write an instruction as it is, see `render_question`.
    """

    form: Form = Form.FULL
    style: Style = Style.RELEASED
    views: int = 1
    nested: bool | None = None
    published: bool = False

    def question(self, instruction: str) -> str:
        """The question. Raises `GrammarError` for an instruction that is no plain text."""
        return render_question(self.form, instruction, views=self.views, style=self.style, published=self.published)

    def answer(self, reasoning: ActionReasoning) -> str:
        """The answer, without blank and end-of-text. Raises `GrammarError` where the form needs a part that is missing."""
        return render_answer(self.form, reasoning, views=self.views, style=self.style, nested=self.nested).removeprefix(" ")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PublishedPrompt:
    """One prompt. ids_L: int64, BOS first. text: what stands behind the images.

    image_places_N: int64, where in `ids_L` the `<im_patch>` tokens stand, in the order of the image features.
    """

    ids_L: NDArray[np.int64]
    image_places_N: NDArray[np.int64]
    text: str


def prompt_of(tokenizer: PromptTokenizer, instruction: str, image_grids: ImageGrids, wording: Wording | None = None) -> PublishedPrompt:
    """The prompt that asks for a decision about images.

    image_grids: per image its grids of tokens, (rows, columns), low resolution first. wording: by default the released one for as many
    images as there are; its `views` must be their number. Raises `GrammarError` for an instruction that is no plain text, `SpecError`
    for another number of views.
    """
    views = len(image_grids)
    wording = Wording(views=views) if wording is None else wording
    require(wording.views == views, f"the wording is for {wording.views} image(s)", got=views)
    question = wording.question(instruction)
    ids_L = tokenizer.prompt_ids(question, image_grids, numbered=wording.style.numbers_images(views))
    return PublishedPrompt(ids_L=ids_L, image_places_N=image_places(tokenizer, ids_L), text=f"User: {question} Assistant:")


def image_places(tokenizer: PromptTokenizer, ids_L: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where image features are added: the places of `<im_patch>`, ascending."""
    return np.flatnonzero(ids_L == tokenizer.special.im_patch)
