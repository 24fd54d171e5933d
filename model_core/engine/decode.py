"""Greedy decoding of the full chain: depth, trace, action, constrained by the grammar, over a static key-value cache.

One code path for one row and for many. Rows of a batch may ask for different modes and begin with different given parts; they
advance in lockstep, each in its own slot, and a row that is finished says padding until the last one is. Because a prompt has one
length and answers stand left-aligned, every cached token of a row is the row's own past: no padding mask is needed.

    prompt | given part common to all rows        one forward (prefill)
    then, token by token                           given id of the row, else the most likely allowed id

Shape letters: B rows, V views, L tokens, X ids.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_core.engine.automaton import GrammarAutomaton
from model_core.engine.cache import StaticCache
from model_core.network.model import MolmoAct
from model_core.spec.errors import GrammarError, require
from model_core.spec.types import ActionReasoning, DepthTokens, Trace
from model_core.speech.compact import CompactLayout, Field, Mode
from model_core.tiny import pooled_patches


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """One row to answer. images_VHW3 uint8; words_W word ids; proprio_bins_P 0..255.

    depth, trace: parts of the answer that are given: a steering trace (mode STEERED), or an edited depth grid or trace from
    which the model goes on. See `CompactLayout.given` for what a mode takes.
    """

    images_VHW3: NDArray[np.uint8]
    words_W: NDArray[np.int64]
    proprio_bins_P: NDArray[np.int64]
    mode: Mode = Mode.FULL
    depth: DepthTokens | None = None
    trace: Trace | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What one row said, given part included. finite: False when a logit was NaN or inf; the actions then mean nothing."""

    ids_L: NDArray[np.int64]
    reasoning: ActionReasoning
    finite: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """Answers in the order of the questions, and where the time of the whole batch went (vision, prefill, depth, trace, action)."""

    answers: tuple[Answer, ...]
    timing_ms: Mapping[str, float] = field(default_factory=dict)


class DecodingEngine:
    """Answers questions with `model` in the language of `layout`. dtype bfloat16 decodes under autocast; weights stay as they are."""

    def __init__(self, model: MolmoAct, layout: CompactLayout, *, dtype: torch.dtype = torch.float32) -> None:
        require(dtype in (torch.float32, torch.bfloat16), "an engine decodes in float32 or bfloat16", got=dtype)
        self.model, self.layout, self.dtype = model.eval(), layout, dtype
        self.device = next(model.parameters()).device
        self.automaton = GrammarAutomaton(layout, self.device)
        self._windows_N4 = pooled_patches(layout).to(self.device)

    @torch.inference_mode()
    def decode(self, questions: Sequence[Question]) -> Decoded:
        """Answer all questions together. Raises `GrammarError` for a given part that its mode does not take."""
        require(len(questions) > 0, "nothing to decode: give at least one question")
        clock = _StageClock()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            said_BL, finite_B = self._said(questions, clock)
        rows = said_BL.cpu().numpy()
        answers = tuple(
            self._answer(row, question.mode, bool(finite)) for row, question, finite in zip(rows, questions, finite_B, strict=True)
        )
        return Decoded(answers=answers, timing_ms=clock.stages)

    def _said(self, questions: Sequence[Question], clock: _StageClock) -> tuple[Tensor, Tensor]:
        given = _Given.of(self.layout, questions, self.device)
        images = torch.from_numpy(np.stack([q.images_VHW3 for q in questions])).to(self.device)
        features_ND = self.model.encode_images(images, self._windows_N4.expand(len(questions), -1, -1))
        clock.lap("vision")
        cache = self._cache(len(questions))
        slots_B = given.first_slots_B
        prompt_BL, prompt_slots_BL = self._prompt(questions)
        if given.common:
            prompt_BL = torch.cat([prompt_BL, given.ids_BN[:, : given.common]], dim=1)
            prompt_slots_BL = torch.cat([prompt_slots_BL, given.slots_BN[:, : given.common]], dim=1)
            slots_B = self.automaton.after(given.slots_BN[:, given.common - 1], given.ids_BN[:, given.common - 1])
        hidden_BD = self.model.trunk(self.model.embed(prompt_BL, features_ND), prompt_slots_BL, cache=cache)[:, -1]
        clock.lap("prefill")
        return self._go_on(hidden_BD, slots_B, given, cache, clock)

    def _go_on(self, hidden_BD: Tensor, slots_B: Tensor, given: _Given, cache: StaticCache, clock: _StageClock) -> tuple[Tensor, Tensor]:
        said = [given.ids_BN[:, step] for step in range(given.common)]
        finite_B = torch.ones(len(slots_B), dtype=torch.bool, device=self.device)
        while True:
            stage = self._stage(slots_B)
            logits_BX = self.model.logits(hidden_BD).float()
            finite_B &= torch.isfinite(logits_BX).all(-1)
            ids_B = given.or_chosen(len(said), self.automaton.choose(logits_BX, slots_B))
            said.append(ids_B)
            following_B = self.automaton.after(slots_B, ids_B)
            if bool((following_B == self.automaton.done).all()):
                clock.lap(stage)
                return torch.stack(said, dim=1), finite_B
            places_BL = slots_B.clamp(max=self.automaton.done - 1)[:, None]
            hidden_BD = self.model.trunk(self.model.embed(ids_B[:, None]), places_BL, cache=cache)[:, -1]
            slots_B = following_B
            clock.lap(stage)

    def _prompt(self, questions: Sequence[Question]) -> tuple[Tensor, Tensor]:
        layout = self.layout
        ids_BL = layout.prompts(
            np.stack([q.words_W for q in questions]), np.stack([q.proprio_bins_P for q in questions]), questions[0].mode
        )
        ids_BL[:, layout.slots[Field.MODE].start] = [layout.vocabulary.mode_id(q.mode) for q in questions]
        slots_L = torch.arange(layout.prompt_length, device=self.device)
        return torch.from_numpy(ids_BL).to(self.device), slots_L.expand(len(questions), -1)

    def _cache(self, rows: int) -> StaticCache:
        return StaticCache(self.model.config.llm, batch=rows, max_length=self.layout.max_length, dtype=self.dtype, device=self.device)

    def _stage(self, slots_B: Tensor) -> str:
        """The field that the row furthest behind is saying: what the others wait for."""
        return Field(int(self.layout.fields_S[int(slots_B.min())])).name.lower()

    def _answer(self, ids_L: NDArray[np.int64], mode: Mode, finite: bool) -> Answer:
        return Answer(ids_L=ids_L, reasoning=self.layout.parse(ids_L, mode), finite=finite)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Given:
    """The given parts of a batch, padded: ids_BN and slots_BN, `lengths_B` of them real; `common` columns are real in all rows."""

    ids_BN: Tensor
    slots_BN: Tensor
    lengths_B: Tensor
    common: int
    longest: int
    first_slots_B: Tensor

    @staticmethod
    def of(layout: CompactLayout, questions: Sequence[Question], device: torch.device) -> _Given:
        parts = [layout.given(q.mode, depth=q.depth, trace=q.trace) for q in questions]
        lengths = [len(ids) for ids, _ in parts]
        ids_BN, slots_BN = np.zeros((2, len(parts), max(lengths)), np.int64)
        for row, (ids, slots) in enumerate(parts):
            outside = (ids < layout.allowed_start_S[slots]) | (ids >= layout.allowed_stop_S[slots])
            if outside.any():
                place = int(np.flatnonzero(outside)[0])
                raise GrammarError(
                    f"given part of row {row}, position {place}: {layout.vocabulary.describe(int(ids[place]))} may not stand there",
                    place,
                    place + 1,
                )
            ids_BN[row, : len(ids)], slots_BN[row, : len(ids)] = ids, slots
        return _Given(
            ids_BN=torch.from_numpy(ids_BN).to(device),
            slots_BN=torch.from_numpy(slots_BN).to(device),
            lengths_B=torch.tensor(lengths, device=device),
            common=min(lengths),
            longest=max(lengths),
            first_slots_B=torch.tensor([layout.first_slot(q.mode) for q in questions], device=device),
        )

    def or_chosen(self, step: int, chosen_B: Tensor) -> Tensor:
        """The given id of answer position `step` where a row has one, else the chosen id."""
        if step >= self.longest:
            return chosen_B
        return torch.where(step < self.lengths_B, self.ids_BN[:, step], chosen_B)


class _StageClock:
    """Milliseconds by stage. Reading a clock is not part of what the model says, so the engine may do it."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now
