"""The compact language of small models: one id a value, one fixed slot a meaning. Numpy only.

    prompt   image patches | words | proprio | mode                (fixed length)
    answer   depth 100 | trace 2..10 + end | action K*A             (left-aligned, padding after it)

Every value has its own *slot*, the position id that the network sees. A trace of two points leaves slots unused,
so that action (k, a) stands in the same slot whatever was answered before. Because the prompt length is fixed and the
padding comes last, a causal mask is all that a batch needs, and rows of a batch decode in lockstep.

Every set of ids that is allowed in a slot is one range: `allowed_start_S` and `allowed_stop_S` are the whole grammar,
`next_slots` the transitions. The published, textual language is in `tokenization.published`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import GrammarError, SpecError, require
from model_core.spec.types import DEPTH_CELLS, TRACE_MAX_POINTS, TRACE_RANGE, ActionReasoning, DepthTokens, Trace
from model_core.tokenization.compact.vocabulary import (
    ORDINAL_BINS,
    CompactVocabulary,
    Field,
    IdRange,
    ReasoningMode,
    closed_words,
    proprio_bins,
    words_of,
)

__all__ = [
    "NO_SLOT",
    "CompactBatch",
    "CompactLayout",
    "CompactVocabulary",
    "Field",
    "IdRange",
    "ReasoningMode",
    "closed_words",
    "proprio_bins",
    "words_of",
]

NO_SLOT = -1
_TRACE_SLOTS = 2 * TRACE_MAX_POINTS + 1

_ANSWER_FIELDS: Mapping[ReasoningMode, tuple[Field, ...]] = {
    ReasoningMode.FULL: (Field.DEPTH, Field.TRACE, Field.ACTION),
    ReasoningMode.TRACE_ACTION: (Field.TRACE, Field.ACTION),
    ReasoningMode.ACTION: (Field.ACTION,),
    ReasoningMode.STEERED: (Field.TRACE, Field.ACTION),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompactBatch:
    """B token rows ready for a network: ids, slots and kind of every token.

    ids_BL, slots_BL: int64 (B, L), L = prompt and longest answer; padding (id 0, slot 0, Field.PAD) is last.
    fields_BL: uint8 `Field`. learn_BL: True where the token must be predicted (a given trace is not).
    """

    ids_BL: NDArray[np.int64]
    slots_BL: NDArray[np.int64]
    fields_BL: NDArray[np.uint8]
    learn_BL: NDArray[np.bool_]
    prompt_length: int

    def targets(self, field: Field, ids: IdRange) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(rows_N, columns_N, codes_N) of the learned tokens of `field`: predict code = id - ids.start at (row, column).

        The columns are those of the *predicting* position, one left of the token, so they index hidden states directly.
        """
        rows_N, columns_N = np.nonzero((self.fields_BL == field) & self.learn_BL)
        return rows_N, columns_N - 1, self.ids_BL[rows_N, columns_N] - ids.start


@dataclass(frozen=True, kw_only=True)
class CompactLayout:
    """Where every value stands. Slots, in order: image | words | proprio | mode | depth | trace and its end | action.

    patch_grid: (rows, columns) of pooled patches of one view. image_marks: encode a view as the published layout does,
    im_start + rows x (patches + im_col) + im_end, in place of its patches alone. max_words: words that fit an instruction.
    """

    vocabulary: CompactVocabulary
    chunk_length: int
    action_dims: int
    proprio_dims: int
    views: int = 1
    patch_grid: tuple[int, int] = (5, 5)
    max_words: int = 8
    image_marks: bool = False

    def __post_init__(self) -> None:
        sizes = (self.chunk_length, self.action_dims, self.views, self.max_words, *self.patch_grid)
        require(min(sizes) >= 1 and self.proprio_dims >= 0, "sizes of a layout must be positive", got=sizes)

    @staticmethod
    def of_contract(contract: PolicyContract, **options: Any) -> CompactLayout:
        """The layout that a contract implies; `options` are patch_grid, max_words, image_marks."""
        reasoning = contract.reasoning
        cells = reasoning.depth_grid[0] * reasoning.depth_grid[1]
        require(cells == DEPTH_CELLS, f"the compact language has {DEPTH_CELLS} depth cells", got=reasoning.depth_grid)
        require(reasoning.trace_points == TRACE_MAX_POINTS, f"the compact language has traces of 1..{TRACE_MAX_POINTS} points")
        return CompactLayout(
            vocabulary=CompactVocabulary(words=contract.words, depth_codes=reasoning.depth_codes),
            chunk_length=contract.chunk_length,
            action_dims=len(contract.embodiment.action),
            proprio_dims=len(contract.embodiment.proprio),
            views=len(contract.embodiment.cameras),
            **options,
        )

    # ---- slots

    @cached_property
    def _view_ids(self) -> NDArray[np.int64]:
        marks, (rows, columns) = self.vocabulary.image_marks, self.patch_grid
        if not self.image_marks:
            return np.full(rows * columns, marks["im_patch"], np.int64)
        row = [marks["im_patch"]] * columns + [marks["im_col"]]
        return np.array([marks["im_start"], *row * rows, marks["im_end"]], np.int64)

    @cached_property
    def slots(self) -> Mapping[Field, IdRange]:
        """Range of slots of every field but padding."""
        lengths = {
            Field.IMAGE: self.views * len(self._view_ids),
            Field.WORD: self.max_words,
            Field.PROPRIO: self.proprio_dims,
            Field.MODE: 1,
            Field.DEPTH: DEPTH_CELLS,
            Field.TRACE: _TRACE_SLOTS,
            Field.ACTION: self.chunk_length * self.action_dims,
        }
        found, start = {}, 0
        for field, length in lengths.items():
            found[field] = IdRange(start, start + length)
            start += length
        return found

    @property
    def num_slots(self) -> int:
        """Number of slots: `llm_config.num_slots` of a model of this layout."""
        return self.slots[Field.ACTION].stop

    @property
    def prompt_length(self) -> int:
        """Tokens before the answer, the same for every prompt."""
        return self.slots[Field.MODE].stop

    def max_answer_length(self, mode: ReasoningMode) -> int:
        """Longest answer in `mode`, a given trace included."""
        return sum(len(self.slots[field]) for field in _ANSWER_FIELDS[mode])

    @property
    def max_length(self) -> int:
        """Longest prompt and answer."""
        return self.prompt_length + self.max_answer_length(ReasoningMode.FULL)

    @cached_property
    def fields_S(self) -> NDArray[np.uint8]:
        """`Field` of every slot, (num_slots,)."""
        return np.concatenate([np.full(len(slots), field, np.uint8) for field, slots in self.slots.items()])

    # ---- the grammar, as two tables and a step

    @cached_property
    def allowed_start_S(self) -> NDArray[np.int64]:
        """First id that may stand in each slot, (num_slots,)."""
        return self._allowed[0]

    @cached_property
    def allowed_stop_S(self) -> NDArray[np.int64]:
        """One past the last id that may stand in each slot, (num_slots,)."""
        return self._allowed[1]

    @cached_property
    def _allowed(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        vocabulary = self.vocabulary
        start_S, stop_S = np.empty(self.num_slots, np.int64), np.empty(self.num_slots, np.int64)
        for field, slots in self.slots.items():
            ids = vocabulary.range_of(field)
            start_S[slots.start : slots.stop], stop_S[slots.start : slots.stop] = ids.start, ids.stop
        # words: padding is 0, so a word slot allows more than one range; only answers are ever constrained.
        trace = self.slots[Field.TRACE]
        stop_S[trace.start : trace.stop] = vocabulary.trace_coordinates.stop
        stop_S[trace.start + 2 : trace.stop : 2] = vocabulary.trace.stop  # an x after the first point may be the end
        start_S[trace.stop - 1] = vocabulary.trace_end  # after five points only the end
        return start_S, stop_S

    def allowed(self, slot: int) -> IdRange:
        """Ids that may stand in an answer slot."""
        return IdRange(int(self.allowed_start_S[slot]), int(self.allowed_stop_S[slot]))

    def first_slot(self, mode: ReasoningMode) -> int:
        """Slot of the first answer token in `mode` (of the given trace, when steered)."""
        return self.slots[_ANSWER_FIELDS[mode][0]].start

    def next_slots(self, slots_B: NDArray[np.int64], ids_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots that follow after `ids_B` were chosen in `slots_B`; `NO_SLOT` where the answer is complete."""
        following_B = np.where(ids_B == self.vocabulary.trace_end, self.slots[Field.ACTION].start, slots_B + 1)
        return np.where((slots_B == NO_SLOT) | (following_B >= self.num_slots), NO_SLOT, following_B)

    def _next_slot(self, slot: int, token: int) -> int:
        """`next_slots` of one token, without arrays: parsing is on the way of every decision."""
        following = self.slots[Field.ACTION].start if token == self.vocabulary.trace_end else slot + 1
        return following if following < self.num_slots else NO_SLOT

    # ---- rendering

    def instruction_ids(self, instruction: str) -> NDArray[np.int64]:
        """Word ids padded to (max_words,). Raises `GrammarError` on an unknown word or too many words."""
        ids = self.vocabulary.word_ids(instruction)
        if len(ids) > self.max_words:
            raise GrammarError(
                f"instruction {instruction!r} has {len(ids)} words; this policy takes at most {self.max_words}", 0, len(instruction)
            )
        return np.array(ids + [self.vocabulary.pad_id] * (self.max_words - len(ids)), np.int64)

    def instruction_table(self, instructions: Iterable[str]) -> NDArray[np.int64]:
        """(n, max_words): row i is instruction i, so that a batch looks its words up by index."""
        return np.stack([self.instruction_ids(text) for text in instructions])

    def prompts(self, words_BW: NDArray[np.int64], proprio_bins_BP: NDArray[np.integer], mode: ReasoningMode) -> NDArray[np.int64]:
        """Prompt ids (B, prompt_length); their slots are simply 0..prompt_length-1."""
        size = len(words_BW)
        require(words_BW.shape == (size, self.max_words), f"words must be (B, {self.max_words})", got=words_BW.shape)
        require(proprio_bins_BP.shape == (size, self.proprio_dims), f"proprio must be (B, {self.proprio_dims})", got=proprio_bins_BP.shape)
        require(
            proprio_bins_BP.size == 0 or (int(proprio_bins_BP.min()) >= 0 and int(proprio_bins_BP.max()) < ORDINAL_BINS),
            "proprio bins must be 0..255",
        )
        ids_BL = np.empty((size, self.prompt_length), np.int64)
        columns = {field: slice(slots.start, slots.stop) for field, slots in self.slots.items()}
        ids_BL[:, columns[Field.IMAGE]] = np.tile(self._view_ids, self.views)
        ids_BL[:, columns[Field.WORD]] = words_BW
        ids_BL[:, columns[Field.PROPRIO]] = proprio_bins_BP.astype(np.int64) + self.vocabulary.proprio.start
        ids_BL[:, columns[Field.MODE]] = self.vocabulary.mode_id(mode)
        return ids_BL

    def batch(
        self,
        *,
        mode: ReasoningMode,
        words_BW: NDArray[np.int64],
        proprio_bins_BP: NDArray[np.integer],
        bins_BKA: NDArray[np.integer],
        depth_codes_BG: NDArray[np.integer] | None = None,
        trace_B52: NDArray[np.integer] | None = None,
        committed_rows_B: NDArray[np.integer] | None = None,
    ) -> CompactBatch:
        """Prompts with their answers, for training: the hot path, no loop over rows.

        bins_BKA: action bins 1..256. depth_codes_BG: needed in mode FULL. trace_B52: (B, 5, 2), coordinates 0..255 and
        -1 after the last point, needed in all modes but ACTION. committed_rows_B: how many first action rows of each sample are
        given and not trained (none). Raises `SpecError` on a value outside its range.
        """
        prompt_BL = self.prompts(words_BW, proprio_bins_BP, mode)
        parts: list[NDArray[np.int64]] = []
        for field in _ANSWER_FIELDS[mode]:
            if field is Field.DEPTH:
                parts.append(self._depth_ids(depth_codes_BG, len(prompt_BL)))
            elif field is Field.TRACE:
                parts.append(self._trace_ids(trace_B52, len(prompt_BL)))
            else:
                parts.append(self._action_ids(bins_BKA, len(prompt_BL)))
        answer_BL = np.concatenate(parts, axis=1)
        slots_L = np.concatenate([np.arange(self.slots[f].start, self.slots[f].stop) for f in _ANSWER_FIELDS[mode]])
        order_BL = np.argsort(answer_BL < 0, axis=1, kind="stable")  # absent trace points move to the end, all else stays
        answer_BL = np.take_along_axis(answer_BL, order_BL, axis=1)
        length = int((answer_BL >= 0).sum(axis=1).max())
        answer_BL, answer_slots_BL = answer_BL[:, :length], slots_L[order_BL[:, :length]]
        absent_BL = answer_BL < 0
        answer_fields_BL = np.where(absent_BL, Field.PAD, self.fields_S[answer_slots_BL]).astype(np.uint8)
        learn_BL = ~absent_BL if mode is not ReasoningMode.STEERED else answer_fields_BL == Field.ACTION
        if committed_rows_B is not None:
            given_B1 = self.slots[Field.ACTION].start + np.asarray(committed_rows_B)[:, None] * self.action_dims
            learn_BL &= (answer_fields_BL != Field.ACTION) | (answer_slots_BL >= given_B1)
        size, prompt = len(prompt_BL), self.prompt_length
        return CompactBatch(
            ids_BL=np.concatenate([prompt_BL, np.where(absent_BL, self.vocabulary.pad_id, answer_BL)], axis=1),
            slots_BL=np.concatenate([np.broadcast_to(np.arange(prompt), (size, prompt)), np.where(absent_BL, 0, answer_slots_BL)], axis=1),
            fields_BL=np.concatenate([np.broadcast_to(self.fields_S[:prompt], (size, prompt)), answer_fields_BL], axis=1),
            learn_BL=np.concatenate([np.zeros((size, prompt), bool), learn_BL], axis=1),
            prompt_length=prompt,
        )

    def _depth_ids(self, codes_BG: NDArray[np.integer] | None, size: int) -> NDArray[np.int64]:
        if codes_BG is None or codes_BG.shape != (size, DEPTH_CELLS):
            raise SpecError(f"depth codes must be ({size}, {DEPTH_CELLS}), got {None if codes_BG is None else codes_BG.shape}")
        codes_BG = codes_BG.astype(np.int64)
        require(codes_BG.min() >= 0 and codes_BG.max() < self.vocabulary.depth_codes, "a depth code is outside the codebook")
        return codes_BG + self.vocabulary.depth.start

    def _trace_ids(self, trace_B52: NDArray[np.integer] | None, size: int) -> NDArray[np.int64]:
        if trace_B52 is None or trace_B52.shape != (size, TRACE_MAX_POINTS, 2):
            raise SpecError(f"traces must be ({size}, {TRACE_MAX_POINTS}, 2), got {None if trace_B52 is None else trace_B52.shape}")
        values_BT = trace_B52.reshape(size, -1).astype(np.int64)
        counts_B = (values_BT >= 0).sum(axis=1)
        present_BT = np.arange(2 * TRACE_MAX_POINTS) < counts_B[:, None]
        sound = (counts_B >= 2).all() and (counts_B % 2 == 0).all() and bool(((values_BT >= 0) == present_BT).all())
        require(bool(sound) and values_BT.max() <= TRACE_RANGE, "a trace needs 1..5 points of 0..255, then -1 only")
        ids_BT = np.full((size, _TRACE_SLOTS), -1, np.int64)
        ids_BT[:, :-1] = np.where(present_BT, values_BT + self.vocabulary.trace.start, -1)
        ids_BT[np.arange(size), counts_B] = self.vocabulary.trace_end
        return ids_BT

    def _action_ids(self, bins_BKA: NDArray[np.integer], size: int) -> NDArray[np.int64]:
        expected = (size, self.chunk_length, self.action_dims)
        require(bins_BKA.shape == expected, f"action bins must be {expected}", got=bins_BKA.shape)
        require(bins_BKA.min() >= 1 and bins_BKA.max() <= ORDINAL_BINS, "action bins must be 1..256")
        return bins_BKA.reshape(size, -1).astype(np.int64) + (self.vocabulary.action.start - 1)

    def given(
        self, mode: ReasoningMode, *, depth: DepthTokens | None = None, trace: Trace | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(ids_L, slots_L) of the first part of an answer that is given and not generated.

        A steered answer starts with its trace. *Edit and continue*: an edited depth grid (mode FULL), an edited trace (after
        its depth in mode FULL), and the model continues from there. Nothing given is the empty prefix.
        Raises `GrammarError` where the mode has no such field, or a trace is given in FULL without the depth before it.
        """
        fields, ids, slots = _ANSWER_FIELDS[mode], [], []
        for field, value in ((Field.DEPTH, depth), (Field.TRACE, trace)):
            if value is not None and field not in fields:
                raise GrammarError(f"mode {mode.value} has no {field.name.lower()}, so none can be given; choose another mode", 0, 0)
        if mode is ReasoningMode.FULL and trace is not None and depth is None:
            raise GrammarError("in mode full a given trace needs the depth before it: give both, or use mode trace_action", 0, 0)
        if mode is ReasoningMode.STEERED and trace is None:
            raise GrammarError("mode steered needs the trace that steers", 0, 0)
        if depth is not None:
            ids.append(self._depth_ids(depth.codes_G[None], 1)[0])
            slots.append(np.arange(self.slots[Field.DEPTH].start, self.slots[Field.DEPTH].stop))
        if trace is not None:
            encoded = np.append(trace.points_N2.reshape(-1) + self.vocabulary.trace.start, self.vocabulary.trace_end)
            ids.append(encoded.astype(np.int64))
            slots.append(self.slots[Field.TRACE].start + np.arange(len(encoded)))
        empty = np.empty(0, np.int64)
        return np.concatenate([empty, *ids]), np.concatenate([empty, *slots])

    def answer_ids(self, reasoning: ActionReasoning, mode: ReasoningMode) -> NDArray[np.int64]:
        """The ids of one answer, as it would be generated after the prompt: the inverse of `parse`."""
        wanted = _ANSWER_FIELDS[mode]
        depth = reasoning.depth if Field.DEPTH in wanted else None
        trace = reasoning.trace if Field.TRACE in wanted else None
        if (Field.DEPTH in wanted and depth is None) or (Field.TRACE in wanted and trace is None):
            raise GrammarError(f"mode {mode.value} has {[f.name.lower() for f in wanted]}, but one of them is missing", 0, 0)
        return np.concatenate([self.given(mode, depth=depth, trace=trace)[0], self._action_ids(reasoning.bins_KA[None], 1)[0]])

    # ---- parsing

    def parse(self, ids_L: NDArray[np.integer], mode: ReasoningMode) -> ActionReasoning:
        """Answer ids (given part included, padding and what follows the last action dropped) -> typed reasoning.

        Raises `GrammarError` with the position, what was expected and what stood there, at the first id outside the grammar.
        """
        slot, position, values = self.first_slot(mode), 0, {field: [] for field in Field}
        while slot != NO_SLOT:
            allowed = self.allowed(slot)
            if position >= len(ids_L):
                raise GrammarError(f"answer ends at position {position}; expected {self._expected(allowed)}", position, position)
            token = int(ids_L[position])
            if token not in allowed:
                got = self.vocabulary.describe(token)
                raise GrammarError(f"position {position}: expected {self._expected(allowed)}, got {got}", position, position + 1)
            values[Field(int(self.fields_S[slot]))].append(token)
            slot = self._next_slot(slot, token)
            position += 1
        left = [int(token) for token in ids_L[position:] if int(token) not in (self.vocabulary.pad_id, self.vocabulary.eos_id)]
        if left:
            raise GrammarError(f"position {position}: expected nothing more, got {self.vocabulary.describe(left[0])}", position, len(ids_L))
        return self._reasoning(values)

    def _expected(self, allowed: IdRange) -> str:
        first, last = self.vocabulary.describe(allowed.start), self.vocabulary.describe(allowed.stop - 1)
        return first if len(allowed) == 1 else f"{first} .. {last}"

    def _reasoning(self, values: Mapping[Field, list[int]]) -> ActionReasoning:
        vocabulary = self.vocabulary
        depth, trace = values[Field.DEPTH], values[Field.TRACE][:-1]
        bins_KA = np.array(values[Field.ACTION], np.int64).reshape(self.chunk_length, self.action_dims) - (vocabulary.action.start - 1)
        return ActionReasoning(
            depth=DepthTokens(codes_G=np.array(depth, np.int64) - vocabulary.depth.start, num_codes=vocabulary.depth_codes)
            if depth
            else None,
            trace=Trace(points_N2=np.array(trace, np.int64).reshape(-1, 2) - vocabulary.trace.start) if trace else None,
            bins_KA=bins_KA,
        )
