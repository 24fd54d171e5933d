"""The published language for the engine: prompts as released, answers by `engine.published`. Satisfies `engine.decode_request.Language`.

Constrained decoding slices the head to what the grammar allows and fills in the prose. Faithful decoding gives what the released checkpoint
generates by itself; prose is then only a draft, checked like any other, several words a forward.
Shape letters: D committed rows, A action dims.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_core.engine.automaton import Stage, walk
from model_core.engine.decode_request import Prompt
from model_core.engine.published.grammar import PublishedGrammar, Spelling
from model_core.network.images import ImageProcessor
from model_core.spec.errors import GrammarError
from model_core.spec.types import DEPTH_CELLS, ActionReasoning, DepthTokens, Trace
from model_core.tokenization.published.grammar import Form, Style, given_prefix
from model_core.tokenization.published.prompts import Wording, prompt_of
from model_core.tokenization.published.tokenizer import PromptTokenizer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PublishedRequest:
    """One row to answer in the published language. images: the views, (H, W, 3) uint8 each.

    depth, trace: parts of the answer that are given (`grammar.given_prefix`). committed_DA: int64 (D, A), action bins 1..256 of the
    first rows of the chunk. steering: the trace that images[0] shows as a drawn line; the question is then of form STEERED.
    """

    images: tuple[NDArray[np.uint8], ...]
    instruction: str
    depth: DepthTokens | None = None
    trace: Trace | None = None
    committed_DA: NDArray[np.int64] | None = None
    steering: Trace | None = None

    @property
    def form(self) -> Form:
        """What is asked for, of a language that answers in several forms (`published.forms`)."""
        return Form.FULL if self.steering is None else Form.STEERED

    @property
    def views(self) -> Sequence[NDArray[np.uint8]]:
        """See `Question.views`."""
        return self.images

    @property
    def asked(self) -> Hashable:
        """See `Question.asked`."""
        return self.instruction, self.form.value

    @property
    def is_steered(self) -> bool:
        """See `Question.is_steered`."""
        return self.steering is not None

    @property
    def is_given(self) -> bool:
        """See `Question.is_given`."""
        return any(part is not None for part in (self.depth, self.trace, self.committed_DA, self.steering))


class PublishedLanguage:
    """The published language of one form. max_prompt: tokens of the longest prompt; a longer one is refused."""

    def __init__(
        self,
        tokenizer: PromptTokenizer,
        processor: ImageProcessor,
        *,
        chunk_length: int,
        action_dims: int,
        form: Form = Form.FULL,
        views: int = 1,
        style: Style = Style.RELEASED,
        spelling: Spelling = "published",
        max_prompt: int = 1280,
    ) -> None:
        self.tokenizer, self.processor, self.max_prompt = tokenizer, processor, max_prompt
        self.grammar = PublishedGrammar(
            tokenizer, form=form, chunk_length=chunk_length, action_dims=action_dims, views=views, style=style, spelling=spelling
        )

    @property
    def max_length(self) -> int:
        """See `Language.max_length`."""
        return self.max_prompt + self.grammar.max_length

    def prompt(self, question: PublishedRequest) -> Prompt:
        """See `Language.prompt`. Raises `GrammarError` for a foreign instruction, another number of views, or a prompt that is too long."""
        views = self.grammar.views
        if len(question.images) != views:
            raise GrammarError(f"expected {views} view(s), got {len(question.images)}", 0, 0)
        wording = Wording(form=self.grammar.form, style=self.grammar.style, views=views)
        inputs = self.processor(question.images, several=wording.style.numbers_images(views))
        ids_L = prompt_of(self.tokenizer, question.instruction, inputs.image_grids, wording).ids_L
        if len(ids_L) > self.max_prompt:
            raise GrammarError(f"the prompt has {len(ids_L)} tokens, at most {self.max_prompt} fit; shorten the instruction", 0, len(ids_L))
        tensors = inputs.tensors()
        return Prompt(
            ids_L=ids_L,
            places_L=np.arange(len(ids_L)),
            images=tensors["images_BCPD"],
            pooled_patches_idx=tensors["pooled_patches_idx_BN4"],
            image_masks=tensors["image_masks_BCP"],
        )

    def begin(self, question: PublishedRequest) -> int:
        """See `Language.begin`."""
        return self.grammar.start

    def given(self, question: PublishedRequest) -> dict[int, int]:
        """See `Language.given`. Raises `GrammarError` for a part that the form has not."""
        grammar, found = self.grammar, {}
        if question.depth is not None or question.trace is not None:
            given = given_prefix(grammar.form, depth=question.depth, trace=question.trace, views=grammar.views, style=grammar.style)
            found = walk(grammar, grammar.start, self.tokenizer.encode(given))
        if question.committed_DA is None or not len(question.committed_DA):
            return found
        rows, dims = question.committed_DA.shape
        if rows > grammar.chunk_length or dims != grammar.action_dims or not grammar.acts:
            most = f"{grammar.chunk_length} x {grammar.action_dims}" if grammar.acts else "no"
            raise GrammarError(f"committed rows: expected at most {most} values, got {rows} x {dims}", 0, rows)
        return found | grammar.actions(question.committed_DA)

    def encode(self, reasoning: ActionReasoning, question: PublishedRequest, *, shift: int = 0) -> dict[int, int]:
        """See `Language.encode`. What a reasoning has not is left out; the prose around it is a draft all the same."""
        grammar, missing = self.grammar, set()
        depth, trace, bins_KA = reasoning.depth, reasoning.trace, reasoning.bins_KA
        if depth is None:
            depth, missing = DepthTokens(codes_G=np.zeros(DEPTH_CELLS, np.int64)), missing | {Stage.DEPTH}
        if trace is None:
            trace, missing = Trace(points_N2=np.zeros((1, 2), np.int64)), missing | {Stage.TRACE}
        if bins_KA.shape != (grammar.chunk_length, grammar.action_dims):
            bins_KA, missing = np.ones((grammar.chunk_length, grammar.action_dims), np.int64), missing | {Stage.ACTION}
        rows_K = np.minimum(np.arange(grammar.chunk_length) + shift, grammar.chunk_length - 1)
        whole = ActionReasoning(depth=depth, trace=trace, bins_KA=bins_KA[rows_K])
        encoded = walk(grammar, grammar.start, grammar.answer_ids(whole).tolist())
        return {state: token for state, token in encoded.items() if grammar.stage(state) not in missing}

    def parse(self, ids: Sequence[int], question: PublishedRequest) -> ActionReasoning:
        """See `Language.parse`."""
        return self.grammar.parse(ids)

    def read(self, stage: Stage, ids: Sequence[int], question: PublishedRequest) -> DepthTokens | Trace:
        """See `Language.read`."""
        special = self.tokenizer.special
        if stage is Stage.DEPTH:
            return DepthTokens(codes_G=np.asarray(ids, np.int64) - special.depth_first, num_codes=special.num_depth)
        points = json.loads(self.tokenizer.decode(ids).partition("]]")[0] + "]]")
        return Trace(points_N2=np.array(points, np.int64))
