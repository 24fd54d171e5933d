"""The decoding engine: questions in, answers out, by blocks of guessed tokens that the model itself checks.

    prompt and first guesses      one forward (prefill)
    then, block by block          pending tokens and guesses; what the model chose itself stands, the rest is dropped

Greedy and exact: with `exact` the answer is, token by token, the one of plain decoding (`speculate=False`) of the same engine.
`decode` answers a list of questions; `open_round` lets rows join and leave between blocks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from model_core.engine.cache import RowCache
from model_core.engine.decode_request import CompactLanguage, Drafts, Language, Prompt, Question
from model_core.engine.forward import BlockForward
from model_core.engine.kernels.vision_kernels import packed_eyes
from model_core.engine.numerics import Numerics, measure_numerics
from model_core.engine.rounds.blocks import BlockRunner, Feed
from model_core.engine.rounds.parallel import ActionBlock, BlockUse, placeholders_of
from model_core.engine.rounds.round import Answer, AnswerRound
from model_core.engine.rounds.row import Ways, Window
from model_core.engine.rounds.window import WIDTHS, Acceptance, CostCurve
from model_core.network.model import MolmoAct
from model_core.network.queries import action_head_of
from model_core.spec.errors import require
from model_core.tokenization.compact.layout import CompactLayout

__all__ = ["Answer", "Decoded", "DecodingEngine", "Question"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """Answers in the order of the questions, and where the time of all of them went (vision, prefill, depth, trace, action)."""

    answers: tuple[Answer, ...]
    timing_ms: Mapping[str, float] = field(default_factory=dict)


class DecodingEngine:
    """Answers questions with `model` in a language (`CompactLanguage` where a layout is given).

    dtype: float32 or bfloat16; weights are cast once, pictures are seen under autocast.
    constrained: only ids of the grammar are scored, and what has no alternative is said unasked; every answer can be read. False
    is the faithful mode: the tokens of unconstrained greedy decoding; an answer outside the grammar ends with a `GrammarError`.
    exact: guesses never change an answer, see `engine.numerics`; False leaves near ties to rounding.
    speculate: False is plain decoding, one token a forward: the reference. refine, echo: sources of guesses, see `engine.row.Ways`.
    numerics, costs: what would else be measured at the first question. block: what the model's placeholders are used for, if it
    has any; None: what it was trained for.
    """

    def __init__(
        self,
        model: MolmoAct,
        language: Language | CompactLayout,
        *,
        dtype: torch.dtype = torch.float32,
        constrained: bool = True,
        exact: bool = True,
        speculate: bool = True,
        refine: bool = True,
        echo: bool = True,
        capacity: int = 16,
        numerics: Numerics | None = None,
        costs: CostCurve | None = None,
        block: BlockUse | None = None,
    ) -> None:
        require(dtype in (torch.float32, torch.bfloat16), "an engine decodes in float32 or bfloat16", got=dtype)
        self.model, self.dtype, self.capacity = model.eval(), dtype, capacity
        self.language: Language = CompactLanguage(language) if isinstance(language, CompactLayout) else language
        self.device = next(model.parameters()).device
        self.block_use = BlockUse.of(action_head_of(model.config)) if block is None else block
        says = self.block_use is BlockUse.SAY
        self.exact, self.ways = exact, Ways(constrained=constrained, speculate=speculate, refine=refine, echo=echo, block_says=says)
        self.acceptance = Acceptance()
        self._given_numerics, self._given_costs = numerics, costs
        self._free_caches: list[RowCache] = []
        # actions may be spelt before a block is read (committed rows; a draft that comes late): placeholders have places of their own
        self.length = self.language.max_length + (0 if self.block_use is BlockUse.NONE else placeholders_of(self.language))
        self.forward = BlockForward(model, self.language.grammar, max_length=self.length, dtype=dtype, constrained=constrained)
        self.eyes = packed_eyes(model.model.vision_backbone, dtype)
        self.block = None if self.block_use is BlockUse.NONE else ActionBlock(self.forward, self.language, self.block_use)

    # ---- what this machine is like

    @cached_property
    def numerics(self) -> Numerics:
        """How blocks and single tokens compare here; measured once, in a few hundred milliseconds at most for a small model."""
        if not self.exact:
            return Numerics(tile=1, bound=0.0)
        return self._given_numerics or measure_numerics(self.forward, self.language.max_length)

    @property
    def guard_bound(self) -> float:
        """Choices whose second best id is less than this behind are computed again alone."""
        return self.numerics.bound

    @cached_property
    def runner(self) -> BlockRunner:
        """Runs blocks the way `numerics` asks for."""
        return BlockRunner(self.forward, tile=self.numerics.tile, margins=self.guard_bound > 0)

    @cached_property
    def costs(self) -> CostCurve:
        """Milliseconds by rows and width; measured as rows and widths are asked for."""
        widths = [width for width in WIDTHS if width >= self.numerics.tile and width <= self.language.max_length]
        return self._given_costs or CostCurve(self._measure, widths=widths)

    def warm_up(self, rows: Sequence[int] = (1,)) -> None:
        """Measure everything that decoding would measure on the way."""
        for count in rows:
            self.costs.at(count)

    @torch.inference_mode()
    def _measure(self, rows: int, width: int) -> float:
        # the time of this thread where it does all the work: other processes are not part of the cost
        clock = time.thread_time if self.device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
        cache = self.borrow_cache(rows)
        token, start = self.forward.head_ids[0], max(0, min(self.language.max_length // 2, self.language.max_length - width))
        window = Window([token] * width, [0] * width, [None] * width, [], 0)
        feeds = [Feed(window=window, groups=[0] * width, start=start)] * rows
        began = clock()
        self.runner.run(feeds, cache)  # its answer is read back, so nothing is left running
        spent = (clock() - began) * 1e3
        self.give_back(cache)
        return spent

    # ---- answering

    def decode(self, questions: Sequence[Any], drafts: Sequence[Drafts | None] | None = None) -> Decoded:
        """Answer all questions together.

        Raises `GrammarError` for a given part that its mode does not take, or (faithful mode) an answer that is not in the
        language; `NotFiniteError` for NaN or inf.
        """
        require(len(questions) > 0, "nothing to decode: give at least one question")
        began = self.open_round(min(len(questions), self.capacity))
        try:
            keys = [began.join(q, d) for q, d in zip(questions, drafts or [None] * len(questions), strict=True)]
            found: dict[int, Answer] = {}
            while began.active:
                for key, outcome in began.step():
                    if not isinstance(outcome, Answer):
                        raise outcome
                    found[key] = outcome
        finally:
            began.close()
        answers = tuple(found[key] for key in keys)
        stages = dict.fromkeys(stage for answer in answers for stage in answer.timing_ms)
        return Decoded(answers=answers, timing_ms={stage: sum(a.timing_ms.get(stage, 0.0) for a in answers) for stage in stages})

    def open_round(self, capacity: int | None = None) -> AnswerRound:
        """Begin to decode for up to `capacity` rows that join and leave between blocks."""
        return AnswerRound(self, capacity or self.capacity)

    # ---- for a round

    @torch.inference_mode()
    def features(self, prompt: Prompt) -> Tensor | None:
        """Image features (N, D) of one prompt. One prompt at a time: convolutions of several are not the same bit for bit."""
        if prompt.images is None or prompt.pooled_patches_idx is None:
            return None
        masks = None if prompt.image_masks is None else prompt.image_masks.to(self.device)
        images, windows = prompt.images.to(self.device), prompt.pooled_patches_idx.to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return self.eyes(images, windows, masks)

    @torch.inference_mode()
    def embedded(self, prompt: Prompt, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """(x_LD, places_L) of a prompt."""
        ids_L = torch.from_numpy(prompt.ids_L).to(self.device)
        places_L = torch.from_numpy(prompt.places_L).to(self.device)
        return self.model.embed(ids_L[None], features)[0].to(self.dtype), places_L

    def borrow_cache(self, capacity: int) -> RowCache:
        """Memory for `capacity` rows or more; `give_back` it. On CUDA always the largest, so that captured graphs stay valid."""
        wanted = max(capacity, self.capacity) if self.device.type == "cuda" else 1 << (capacity - 1).bit_length()
        for place, cache in enumerate(self._free_caches):
            if cache.capacity == wanted:
                return self._free_caches.pop(place)
        return RowCache(self.model.config.llm, capacity=wanted, length=self.length, dtype=self.dtype, device=self.device)

    def give_back(self, cache: RowCache) -> None:
        """The cache is free for the next round."""
        self._free_caches.append(cache)
