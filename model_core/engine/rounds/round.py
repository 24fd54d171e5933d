"""Rows that are decoded together: they join and leave between blocks, each with its own prompt, length, drafts and pace.

step:  cancelled rows leave | one block for all rows | waiting rows are prefilled, their first window with the prompt
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model_core.engine.answer import CancelledError, DecodeFailure, DecodeResult, NotFiniteError
from model_core.engine.automaton import Stage
from model_core.engine.decode_request import Drafts
from model_core.engine.resources import EngineResources
from model_core.engine.rounds.blocks import Choices, Feed
from model_core.engine.rounds.row import AnswerRow
from model_core.engine.rounds.row_state import RowStart, Window
from model_core.engine.rounds.window import Acceptance, best_width
from model_core.spec.errors import GrammarError


class AnswerRound:
    """A round over an engine's resources for up to `capacity` rows. Not thread-safe."""

    def __init__(self, resources: EngineResources, capacity: int) -> None:
        self._resources, self.capacity = resources, capacity
        self._cache = resources.borrow_cache(capacity)
        self._rows: list[tuple[int, AnswerRow]] = []  # row i stands in cache row i
        self._waiting: deque[tuple[int, AnswerRow]] = deque()
        self._next_key = 0

    @property
    def active(self) -> int:
        """Rows in it, those that still wait for their prefill included."""
        return len(self._rows) + len(self._waiting)

    def join(
        self,
        request: Any,
        drafts: Drafts | None = None,
        *,
        acceptance: Acceptance | None = None,
        on_part: Callable[[str, Any], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> int:
        """Take a request in; its key. More than `capacity` wait for a place. Raises `GrammarError` for a given part that does not fit."""
        resources, language = self._resources, self._resources.language
        start = RowStart(
            request=request,
            prompt=language.prompt(request),
            begin=language.begin(request),
            given=language.given(request),
            drafts=drafts or Drafts(),
            on_part=on_part,
            is_cancelled=is_cancelled,
        )
        row = AnswerRow(start, language.grammar, resources.rows, acceptance or resources.acceptance)
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
        self._resources.give_back(self._cache)

    @torch.inference_mode()
    def abandon(self) -> None:
        """As `close`, after a failure in the middle of a block: whatever half a block has left in the memory is wiped out."""
        self._cache.memory.zero_()
        self.close()

    def step(self) -> list[tuple[int, DecodeResult | DecodeFailure]]:
        """One block for every row; (key, result or failure) of the rows that are finished, which are then out."""
        finished: list[tuple[int, DecodeResult | DecodeFailure]] = self._cancelled()
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

    def _cancelled(self) -> list[tuple[int, DecodeResult | DecodeFailure]]:
        entries = [*self._waiting, *self._rows]
        gone = [key for key, row in entries if row.is_cancelled is not None and row.is_cancelled()]
        for key in gone:
            self.leave(key)
        return [(key, CancelledError("the request was cancelled while it was decoded")) for key in gone]

    def _block(self) -> dict[int, DecodeFailure]:
        began = time.perf_counter()
        rows = [row for _, row in self._rows]
        windows = self._windows(rows)
        feeds = [self._feed(row, window) for row, window in zip(rows, windows, strict=True)]
        choices = self._resources.runner.run(feeds, self._cache)
        # alone and with one token, the block was the plain decoding that guards compare with
        trusted = len(rows) == 1 and len(windows[0].ids) == 1
        wrong: dict[int, DecodeFailure] = {}
        for place, ((key, row), window, chosen) in enumerate(zip(self._rows, windows, choices, strict=True)):
            try:
                before = self._decoded(row)
                self._take(row, window, chosen, place, trusted)
                self._spend(row, before, (time.perf_counter() - began) * 1e3 / len(rows))
            except (GrammarError, NotFiniteError) as error:
                wrong[key] = error
        return wrong

    def _read_blocks(self, wrong: Mapping[int, DecodeFailure]) -> dict[int, DecodeFailure]:
        """Rows that have come to their actions are shown placeholders, where this engine has any and they pay."""
        block, found = self._resources.block, {}
        for place, (key, row) in enumerate(self._rows):
            if block is None or key in wrong or not (block.predicts(row) or block.drafts(row, self._resources.costs, len(self._rows))):
                continue
            try:
                self._read_block(row, place)
            except (GrammarError, NotFiniteError) as error:
                found[key] = error
        return found

    def _read_block(self, row: AnswerRow, place: int, prompt: tuple[Tensor, Tensor] | None = None) -> None:
        block, began, before = self._resources.block, time.perf_counter(), self._decoded(row)
        assert block is not None
        predicts = block.predicts(row)
        window = row.window(1) if predicts else self._windows([row])[0]
        chosen = block.read(row, window, self._cache, place, prompt, margins=self._resources.runner.margins)
        if predicts:
            row.tally.forwards += 1
            if not isfinite(sum(chosen.logits)):
                row.finite = False
                raise NotFiniteError("the model computed NaN or inf")
            row.take_block(row.block)
        else:
            self._take(row, window, chosen, place, trusted=False)
        self._spend(row, before, (time.perf_counter() - began) * 1e3)

    def _windows(self, rows: Sequence[AnswerRow]) -> list[Window]:
        if not self._resources.rows.speculate:
            return [row.window(1) for row in rows]
        curve = self._resources.costs.at(len(rows))
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
        resources, began = self._resources, time.perf_counter()
        features = resources.features(row.prompt)
        seen = time.perf_counter()
        row.timing_ms["vision"] = (seen - began) * 1e3
        x_LD, places_L = resources.embedded(row.prompt, features)
        if resources.block is not None and resources.block.predicts(row):  # nothing is reasoned: prompt and placeholders in one forward
            self._read_block(row, place, (x_LD[:-1], places_L[:-1]))
            return
        # a depth string that is to be reused goes in whole, whatever the curve says
        window = row.window(1) if row.reuse_depth is not None else self._windows([row])[0]
        chosen = resources.runner.prefill(x_LD[:-1], places_L[:-1], self._feed(row, window), self._cache, place)
        self._take(row, window, chosen, place, trusted=len(window.ids) == 1)
        row.timing_ms["prefill"] = (time.perf_counter() - seen) * 1e3

    def _take(self, row: AnswerRow, window: Window, chosen: Choices, place: int, trusted: bool) -> None:
        row.tally.forwards += 1
        if not isfinite(sum(chosen.logits)):
            row.finite = False
            raise NotFiniteError("the model computed NaN or inf")
        bound = 0.0 if trusted else self._resources.guard_bound
        if row.take(window, chosen.ids, chosen.margins, bound):
            alone = row.window(1)
            again = self._resources.runner.run([self._feed(row, alone)], self._cache, first_row=place)[0]
            row.tally.forwards += 1
            row.take(alone, again.ids)
        self._hand_out_parts(row)

    def _hand_out_parts(self, row: AnswerRow) -> None:
        """Hand out a part that has just been completed; a part that was given is known to the caller."""
        if row.on_part is None:
            return
        now = None if row.done else row.grammar.stage(row.state)
        for stage in (Stage.DEPTH, Stage.TRACE):
            if stage is not now and row.own.pop(stage, 0):
                row.on_part(stage.value, self._resources.language.read(stage, row.ids_by_stage[stage], row.request))

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

    def _decoded(self, row: AnswerRow) -> dict[Stage, int]:
        return {stage: len(ids) for stage, ids in row.ids_by_stage.items()}

    def _spend(self, row: AnswerRow, before: Mapping[Stage, int], milliseconds: float) -> None:
        """Share a block's time among the stages that it decoded ids of."""
        decoded = {stage: len(ids) - before.get(stage, 0) for stage, ids in row.ids_by_stage.items()}
        total = sum(decoded.values()) or 1
        for stage, count in decoded.items():
            row.timing_ms[stage.value] = row.timing_ms.get(stage.value, 0.0) + milliseconds * count / total

    def _outcome(self, row: AnswerRow) -> DecodeResult | GrammarError:
        try:
            return self._answer(row)
        except GrammarError as error:
            return error

    def _answer(self, row: AnswerRow) -> DecodeResult:
        for stage in row.ids_by_stage:  # a stage that was decoded along with the prompt took no time of its own
            row.timing_ms.setdefault(stage.value, 0.0)
        return DecodeResult(
            ids_L=np.array(row.ids, np.int64),
            reasoning=self._resources.language.parse(row.ids, row.request),
            counts=row.tally.counts(),
            timing_ms=row.timing_ms,
        )
