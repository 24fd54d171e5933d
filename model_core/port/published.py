"""The port to a checkpoint of the published language: the released prompts, drawn traces on the first image, answers as typed values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model_core.adoption.loading import PublishedParts
from model_core.engine.published.forms import PublishedForms
from model_core.engine.published.language import PublishedLanguage, PublishedRequest
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError, GrammarError
from model_core.spec.types import ActionReasoning, DecisionRequest, Trace
from model_core.tokenization.observation import ContractActions
from model_core.tokenization.overlays.resizing import area_resized
from model_core.tokenization.overlays.styles import STEERING_SIDE, steering_overlay, training_overlay
from model_core.tokenization.published.grammar import Form, Style
from model_core.tokenization.published.prompts import Wording, prompt_of
from model_core.tokenization.trace import to_pixels

# What may be asked for: a published answer is whole, or acts along a drawn trace.
LEVELS = ("full", "reuse-depth")
_FORMS = (Form.FULL, Form.STEERED)
_MARK = "xyz"


class PublishedPort:
    """Tokenizer, processor and contract of an adopted checkpoint. Satisfies `ModelPort`.

    A steering trace is drawn on the first image, and the question says so; the answer then holds actions alone. Raises `CheckpointError`
    where prompt and answer are longer than the network has positions for.
    """

    def __init__(self, parts: PublishedParts, contract: PolicyContract) -> None:
        self.contract, self.parts, self.dtype = contract, parts, parts.dtype
        self.constrained = parts.choices.decoding == "constrained"
        self._actions = ContractActions(contract=contract)
        cameras, most = contract.embodiment.cameras, longest_prompt(parts, contract)
        self.language = PublishedForms(
            [
                PublishedLanguage(
                    parts.tokenizer,
                    parts.processor,
                    chunk_length=contract.chunk_length,
                    action_dims=len(contract.embodiment.action),
                    form=form,
                    views=len(cameras),
                    style=Style(parts.choices.wording),
                    max_prompt=most,
                )
                for form in _FORMS
            ]
        )
        if self.language.max_length > parts.max_positions:
            raise CheckpointError(
                f"the longest prompt has {most} tokens and its answer up to {self.language.max_length - most}, the network has positions "
                f"for {parts.max_positions}. Fix: fewer or smaller cameras, or a shorter chunk"
            )

    def question(self, request: DecisionRequest, level: str) -> PublishedRequest:
        """See `ModelPort.question`. Raises `GrammarError` for a drawn trace of one point, which draws nothing."""
        observation = request.observation
        images = tuple(observation.images[camera.name] for camera in self.contract.embodiment.cameras)
        steering = request.drawn
        return PublishedRequest(
            images=images if steering is None else (drawn_image(images[0], steering, self.parts.choices.steering), *images[1:]),
            instruction=observation.instruction,
            depth=request.depth,
            trace=request.trace,
            committed_DA=self._actions.committed_bins(request),
            steering=steering,
        )

    def told(self, reasoning: ActionReasoning, question: PublishedRequest) -> ActionReasoning:
        """See `ModelPort.told`."""
        return reasoning if question.steering is None else replace(reasoning, trace=question.steering)

    def actions_of(self, bins_KA: NDArray[np.integer]) -> NDArray[np.float32]:
        """See `ModelPort.actions_of`."""
        return self._actions.actions_of(bins_KA)


def longest_prompt(parts: PublishedParts, contract: PolicyContract) -> int:
    """Tokens of the longest prompt: the contract's images, and an instruction of as many tokens as it may have characters.

    An instruction of rarer characters than that is refused when it is asked (`PublishedLanguage.prompt`).
    """
    cameras, style = contract.embodiment.cameras, Style(parts.choices.wording)
    sizes, several = [(camera.height, camera.width) for camera in cameras], style.numbers_images(len(cameras))
    shown = {Form.FULL: sizes, Form.STEERED: sizes}
    if parts.choices.steering == "published":
        shown[Form.STEERED] = [(STEERING_SIDE, STEERING_SIDE), *sizes[1:]]
    longest = twice = 0
    for form, sizes_V in shown.items():
        wording = Wording(form=form, style=style, views=len(cameras))
        grids = parts.processor.grids_of(sizes_V, several=several)
        longest = max(longest, len(prompt_of(parts.tokenizer, _MARK, grids, wording).ids_L))
        twice = max(twice, wording.question(_MARK).count(_MARK))  # how often a question repeats its instruction
    return longest + twice * contract.max_instruction_chars


def drawn_image(image_HW3: NDArray[np.uint8], trace: Trace, style: str) -> NDArray[np.uint8]:
    """The image that a steered question shows. style: see `LanguageChoices.steering`. Raises `GrammarError` for a trace of one point."""
    if len(trace.points_N2) < 2:
        raise GrammarError("steering: a trace of one point draws no line on the image. Fix: draw at least two points", 0, 1)
    if style == "training":
        return training_overlay(image_HW3, trace)
    height, width = image_HW3.shape[:2]
    square_HW3 = area_resized(image_HW3, width=STEERING_SIDE, height=STEERING_SIDE)
    pixels_N2 = np.rint(
        to_pixels(trace.points_N2, width=width, height=height)
    )  # whole ones, as a person draws; the style cuts the rest off
    return steering_overlay(square_HW3, pixels_N2, width=width, height=height)
