"""Rows that are decoded together: they join and leave between blocks, each with its own prompt, length, drafts and pace.

step:  cancelled rows leave | one block for all rows | waiting rows are prefilled, their first window with the prompt
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_core.engine.automaton import Stage
from model_core.engine.decode_request import Drafts
from model_core.engine.rounds.blocks import Choices, Feed
from model_core.engine.rounds.row import AnswerRow, Window
from model_core.engine.rounds.window import Acceptance, best_width
from model_core.spec.errors import ActwrightError, GrammarError
from model_core.spec.types import ActionReasoning

if TYPE_CHECKING:
    from model_core.engine.decode import DecodingEngine


class CancelledError(ActwrightError):
    """The asker gave the question up while it was being answered."""


class NotFiniteError(ActwrightError):
    """The model computed NaN or inf; there is no answer."""


Wrong = GrammarError | CancelledError | NotFiniteError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What one row said, given part included.

    counts: as `Decision.counts`. timing_ms: this row's share of the time, by stage.
    """

    ids_L: NDArray[np.int64]
    reasoning: ActionReasoning
    counts: Mapping[str, int] = field(default_factory=dict)
    timing_ms: Mapping[str, float] = field(default_factory=dict)


class AnswerRound:
    """A round of `engine` for up to `capacity` rows. Not thread-safe."""

    def __init__(self, engine: DecodingEngine, capacity: int) -> None:
        self._engine, self.capacity = engine, capacity
        self._cache = engine.borrow_cache(capacity)
        self._rows: list[tuple[int, AnswerRow]] = []  # row i stands in cache row i
        self._waiting: deque[tuple[int, AnswerRow]] = deque()
        self._next_key = 0

    @property
    def active(self) -> int:
        """Rows in it, those that still wait for their prefill included."""
        return len(self._rows) + len(self._waiting)

    def join(
        self,
        question: Any,
        drafts: Drafts | None = None,
        *,
        acceptance: Acceptance | None = None,
        on_part: Callable[[str, Any], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> int:
        """Take a question in; its key. More than `capacity` wait for a place. Raises `GrammarError` for a given part that does not fit."""
        engine = self._engine
        row = AnswerRow(
            question,
            engine.language.prompt(question),
            engine.language.grammar,
            engine.ways,
            begin=engine.language.begin(question),
            given=engine.language.given(question),
            drafts=drafts or Drafts(),
            acceptance=acceptance or engine.acceptance,
            on_part=on_part,
            is_cancelled=is_cancelled,
        )
        key, self._next_key = self._next_key, self._next_key + 1
        self._waiting.append((key, row))
        return key

    def leave(self, key: int) -> None:
        """Take a row out; nothing happens if it is out already."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] != key)
        for place, (found, _) in enumerate(self._rows):
            if found == key:
                self._remove(place)
                return

    def close(self) -> None:
        """Give the memory back; the round is over."""
        self._rows.clear()
        self._waiting.clear()
        self._engine.give_back(self._cache)

    @torch.inference_mode()
    def abandon(self) -> None:
        """As `close`, after a failure in the middle of a block: whatever half a block has left in the memory is wiped out."""
        self._cache.memory.zero_()
        self.close()

    def step(self) -> list[tuple[int, Answer | Wrong]]:
        """One block for everybody; (key, answer or what went wrong) of the rows that are finished, which are then out."""
        finished: list[tuple[int, Answer | Wrong]] = self._cancelled()
        wrong = self._block() if self._rows else {}
        while self._waiting and len(self._rows) < self.capacity:
            key, row = self._waiting.popleft()
            self._rows.append((key, row))
            if row.done:  # everything was given
                continue
            try:
                self._prefill(row, len(self._rows) - 1)
            except (GrammarError, NotFiniteError) as error:
                wrong[key] = error
        wrong |= self._read_blocks(wrong)
        for place in reversed(range(len(self._rows))):
            key, row = self._rows[place]
            if key in wrong:
                finished.append((key, wrong[key]))
            elif row.done:
                finished.append((key, self._outcome(row)))
            else:
                continue
            self._remove(place)
        return finished

    # ---- one step

    def _cancelled(self) -> list[tuple[int, Answer | Wrong]]:
        entries = [*self._waiting, *self._rows]
        gone = [key for key, row in entries if row.is_cancelled is not None and row.is_cancelled()]
        for key in gone:
            self.leave(key)
        return [(key, CancelledError("the question was given up while it was being answered")) for key in gone]

    def _block(self) -> dict[int, Wrong]:
        began = time.perf_counter()
        rows = [row for _, row in self._rows]
        windows = self._windows(rows)
        feeds = [self._feed(row, window) for row, window in zip(rows, windows, strict=True)]
        choices = self._engine.runner.run(feeds, self._cache)
        # alone and with one token, the block was the plain decoding that guards compare with
        trusted = len(rows) == 1 and len(windows[0].ids) == 1
        wrong: dict[int, Wrong] = {}
        for place, ((key, row), window, chosen) in enumerate(zip(self._rows, windows, choices, strict=True)):
            try:
                before = self._said(row)
                self._take(row, window, chosen, place, trusted)
                self._spend(row, before, (time.perf_counter() - began) * 1e3 / len(rows))
            except (GrammarError, NotFiniteError) as error:
                wrong[key] = error
        return wrong

    def _read_blocks(self, wrong: Mapping[int, Wrong]) -> dict[int, Wrong]:
        """Rows that have come to their actions are shown placeholders, where this engine has any and they pay."""
        block, found = self._engine.block, {}
        for place, (key, row) in enumerate(self._rows):
            if block is None or key in wrong or not (block.says(row) or block.drafts(row, self._engine.costs, len(self._rows))):
                continue
            try:
                self._read_block(row, place)
            except (GrammarError, NotFiniteError) as error:
                found[key] = error
        return found

    def _read_block(self, row: AnswerRow, place: int, prompt: tuple[Tensor, Tensor] | None = None) -> None:
        block, began, before = self._engine.block, time.perf_counter(), self._said(row)
        assert block is not None
        says = block.says(row)
        window = row.window(1) if says else self._windows([row])[0]
        chosen = block.read(row, window, self._cache, place, prompt, margins=self._engine.runner.margins)
        if says:
            row.tally.forwards += 1
            if not isfinite(sum(chosen.logits)):
                row.finite = False
                raise NotFiniteError("the model computed NaN or inf")
            row.say_block(row.block)
        else:
            self._take(row, window, chosen, place, trusted=False)
        self._spend(row, before, (time.perf_counter() - began) * 1e3)

    def _windows(self, rows: Sequence[AnswerRow]) -> list[Window]:
        if not self._engine.ways.speculate:
            return [row.window(1) for row in rows]
        curve = self._engine.costs.at(len(rows))
        windows = [row.window(max(curve), curve) for row in rows]
        width = best_width(curve, [window.gains for window in windows])
        return [window.cut(width) for window in windows]

    def _feed(self, row: AnswerRow, window: Window) -> Feed:
        # an output that is not asked may choose as the first that is: then most blocks need one part of the head
        group = row.grammar.group
        asked = [group(state) for state in window.states[window.first :] if state is not None]
        return Feed(window=window, groups=asked[:1] * window.first + asked, start=row.cached)

    @torch.inference_mode()
    def _prefill(self, row: AnswerRow, place: int) -> None:
        engine, began = self._engine, time.perf_counter()
        features = engine.features(row.prompt)
        seen = time.perf_counter()
        row.timing_ms["vision"] = (seen - began) * 1e3
        x_LD, places_L = engine.embedded(row.prompt, features)
        if engine.block is not None and engine.block.says(row):  # nothing is reasoned: prompt and placeholders in one forward
            self._read_block(row, place, (x_LD[:-1], places_L[:-1]))
            return
        # a depth string that is to be reused goes in whole, whatever the curve says
        window = row.window(1) if row.reuse_depth is not None else self._windows([row])[0]
        chosen = engine.runner.prefill(x_LD[:-1], places_L[:-1], self._feed(row, window), self._cache, place)
        self._take(row, window, chosen, place, trusted=len(window.ids) == 1)
        row.timing_ms["prefill"] = (time.perf_counter() - seen) * 1e3

    def _take(self, row: AnswerRow, window: Window, chosen: Choices, place: int, trusted: bool) -> None:
        row.tally.forwards += 1
        if not isfinite(sum(chosen.logits)):
            row.finite = False
            raise NotFiniteError("the model computed NaN or inf")
        bound = 0.0 if trusted else self._engine.guard_bound
        if row.take(window, chosen.ids, chosen.margins, bound):
            alone = row.window(1)
            again = self._engine.runner.run([self._feed(row, alone)], self._cache, first_row=place)[0]
            row.tally.forwards += 1
            row.take(alone, again.ids)
        self._tell(row)

    def _tell(self, row: AnswerRow) -> None:
        """Hand out a part that has just been completed; a part that was given is known to who gave it."""
        if row.on_part is None:
            return
        now = None if row.done else row.grammar.stage(row.state)
        for stage in (Stage.DEPTH, Stage.TRACE):
            if stage is not now and row.own.pop(stage, 0):
                row.on_part(stage.value, self._engine.language.read(stage, row.said_by[stage], row.question))

    # ---- book-keeping

    def _remove(self, place: int) -> None:
        _, row = self._rows[place]
        last = len(self._rows) - 1
        if place != last:
            self._rows[place] = self._rows[last]
            self._cache.move(last, place)
        self._rows.pop()
        if not row.finite:
            self._cache.clear(last)

    def _said(self, row: AnswerRow) -> dict[Stage, int]:
        return {stage: len(ids) for stage, ids in row.said_by.items()}

    def _spend(self, row: AnswerRow, before: Mapping[Stage, int], milliseconds: float) -> None:
        """Share a block's time among the stages that it said ids of."""
        said = {stage: len(ids) - before.get(stage, 0) for stage, ids in row.said_by.items()}
        total = sum(said.values()) or 1
        for stage, count in said.items():
            row.timing_ms[stage.value] = row.timing_ms.get(stage.value, 0.0) + milliseconds * count / total

    def _outcome(self, row: AnswerRow) -> Answer | GrammarError:
        try:
            return self._answer(row)
        except GrammarError as error:
            return error

    def _answer(self, row: AnswerRow) -> Answer:
        for stage in row.said_by:  # a stage that was said along with the prompt took no time of its own
            row.timing_ms.setdefault(stage.value, 0.0)
        return Answer(
            ids_L=np.array(row.said, np.int64),
            reasoning=self._engine.language.parse(row.said, row.question),
            counts=row.tally.counts(),
            timing_ms=row.timing_ms,
        )
