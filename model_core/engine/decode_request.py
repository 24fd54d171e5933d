"""What is asked of the engine, and how a language turns a question into tokens and tokens into an answer.

`Question` is what is asked in any language. `Language` joins a grammar with its prompts; `CompactLanguage` is the compact one,
`engine.published` holds the published one.
Shape letters: V views, L tokens, W words, P proprio dims, D committed rows, A action dims.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_core.engine.automaton import CompactGrammar, Grammar, Stage
from model_core.spec.errors import GrammarError
from model_core.spec.types import ActionReasoning, DepthTokens, Trace
from model_core.tiny import pooled_patches
from model_core.tokenization.compact.layout import CompactLayout, ReasoningMode


class Question(Protocol):
    """What policies and draft caches ask of a question, whatever its language."""

    @property
    def views(self) -> Sequence[NDArray[np.uint8]]:
        """The frames that are looked at, (H, W, 3) uint8 each."""
        ...

    @property
    def asked(self) -> Hashable:
        """Equal for two questions that differ in what is seen and given alone."""
        ...

    @property
    def depth(self) -> DepthTokens | None:
        """The depth grid that is given, of an edit."""
        ...

    @property
    def is_steered(self) -> bool:
        """Whether a person has drawn the trace."""
        ...

    @property
    def is_given(self) -> bool:
        """Whether a part of the answer is given, so that it is not what the model would predict."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodeRequest:
    """One row to answer in the compact language. images_VHW3 uint8; words_W word ids; proprio_bins_P 0..255.

    depth, trace: parts of the answer that are given: a steering trace (mode STEERED), or an edited depth grid or trace from
    which the model continues. See `CompactLayout.given` for what a mode takes. committed_DA: int64 (D, A), action bins 1..256 of
    the first rows of the chunk, which stand whatever the model would predict.
    """

    images_VHW3: NDArray[np.uint8]
    words_W: NDArray[np.int64]
    proprio_bins_P: NDArray[np.int64]
    mode: ReasoningMode = ReasoningMode.FULL
    depth: DepthTokens | None = None
    trace: Trace | None = None
    committed_DA: NDArray[np.int64] | None = None

    @property
    def views(self) -> Sequence[NDArray[np.uint8]]:
        """See `Question.views`."""
        return list(self.images_VHW3)

    @property
    def asked(self) -> Hashable:
        """See `Question.asked`."""
        return self.words_W.tobytes(), self.mode.value

    @property
    def is_steered(self) -> bool:
        """See `Question.is_steered`."""
        return self.mode is ReasoningMode.STEERED

    @property
    def is_given(self) -> bool:
        """See `Question.is_given`."""
        return any(part is not None for part in (self.depth, self.trace, self.committed_DA))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """A question as the network takes it. ids_L, places_L: int64 (L,); the images as `MolmoAct.encode_images` wants them, batch 1."""

    ids_L: NDArray[np.int64]
    places_L: NDArray[np.int64]
    images: Tensor | None = None
    pooled_patches_idx: Tensor | None = None
    image_masks: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drafts:
    """Guesses at an answer, by state of the grammar: `{state: id}`. They decide how fast an answer comes, never what it says.

    reuse_depth: the one exception, and never exact: the depth drafts stand as they are while the model's own argmax agrees with
    at least this share of them (all are read in one forward); None to verify them like any draft.
    """

    ids: Mapping[int, int] = field(default_factory=dict)
    reuse_depth: float | None = None


class Language(Protocol):
    """A grammar, its prompts and its values. Whatever it raises for a bad question is a `GrammarError`."""

    @property
    def grammar(self) -> Grammar:
        """The automaton of the answers."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens of the longest prompt and answer."""
        ...

    def prompt(self, question: Any) -> Prompt:
        """The tokens and images before the answer."""
        ...

    def begin(self, question: Any) -> int:
        """The state of the answer's first token."""
        ...

    def given(self, question: Any) -> dict[int, int]:
        """Values that stand whatever the model would predict (edited, steering, committed), as {state: id}."""
        ...

    def encode(self, reasoning: ActionReasoning, question: Any, *, shift: int = 0) -> dict[int, int]:
        """A reasoning as drafts for `question`: {state: id}, the chunk moved up by `shift` rows."""
        ...

    def parse(self, ids: Sequence[int], question: Any) -> ActionReasoning:
        """The ids of one whole answer as values. Raises `GrammarError`."""
        ...

    def read(self, stage: Stage, ids: Sequence[int], question: Any) -> DepthTokens | Trace:
        """All ids that were predicted in `stage` (depth or trace) as its value, before the answer is complete."""
        ...


class CompactLanguage:
    """The compact language of a layout. Satisfies `Language`."""

    def __init__(self, layout: CompactLayout) -> None:
        self.layout, self.grammar, self.max_length = layout, CompactGrammar(layout), layout.max_length
        self._places_L = np.arange(layout.prompt_length)
        self._windows_1N4 = pooled_patches(layout)[None]

    def prompt(self, question: DecodeRequest) -> Prompt:
        """See `Language.prompt`."""
        ids_L = self.layout.prompts(question.words_W[None], question.proprio_bins_P[None], question.mode)[0]
        images = torch.from_numpy(np.ascontiguousarray(question.images_VHW3))[None]
        return Prompt(ids_L=ids_L, places_L=self._places_L, images=images, pooled_patches_idx=self._windows_1N4)

    def begin(self, question: DecodeRequest) -> int:
        """See `Language.begin`."""
        return self.layout.first_slot(question.mode)

    def given(self, question: DecodeRequest) -> dict[int, int]:
        """See `Language.given`. Raises `GrammarError` for a part that the mode does not take, or a value outside its range."""
        found = self.grammar.given(question.mode, depth=question.depth, trace=question.trace)
        for place, (state, token) in enumerate(found.items()):
            if self.grammar.after(state, token) < 0:
                named = self.layout.vocabulary.describe(token)
                raise GrammarError(f"given part, position {place}: {named} may not stand there", place, place + 1)
        if question.committed_DA is None:
            return found
        rows, dims = question.committed_DA.shape
        if rows > self.layout.chunk_length or dims != self.layout.action_dims:
            most = (self.layout.chunk_length, self.layout.action_dims)
            raise GrammarError(f"committed rows: expected at most {most[0]} x {most[1]} values, got {rows} x {dims}", 0, rows)
        return found | self.grammar.committed(question.committed_DA)

    def encode(self, reasoning: ActionReasoning, question: DecodeRequest, *, shift: int = 0) -> dict[int, int]:
        """See `Language.encode`."""
        return self.grammar.encode(reasoning, shift=shift)

    def parse(self, ids: Sequence[int], question: DecodeRequest) -> ActionReasoning:
        """See `Language.parse`."""
        return self.layout.parse(np.asarray(ids), question.mode)

    def read(self, stage: Stage, ids: Sequence[int], question: DecodeRequest) -> DepthTokens | Trace:
        """See `Language.read`."""
        vocabulary, ids_N = self.layout.vocabulary, np.asarray(ids, np.int64)
        if stage is Stage.DEPTH:
            return DepthTokens(codes_G=ids_N - vocabulary.depth.start, num_codes=vocabulary.depth_codes)
        return Trace(points_N2=ids_N[:-1].reshape(-1, 2) - vocabulary.trace.start)
