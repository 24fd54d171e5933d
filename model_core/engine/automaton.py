"""A language as a machine: which ids may come now, which one must, what follows, where the network sees it.

`Grammar` is what the decoding engine needs of a language; `CompactGrammar` is the compact one, `engine.published` holds the
published one. A *state* is a small integer that stands for everything answered so far that matters for what comes next. It is also
the name of a place in the answer: drafts and given values are kept by state (`{state: id}`), so that the rest of a draft still
fits after one value of it was wrong.

Shape letters: X ids of the head that is used, G groups (distinct sets of allowed ids).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_core.spec.types import ActionReasoning
from model_core.tokenization.compact.layout import CompactLayout, Field, ReasoningMode

# What `Grammar.after` answers for an id that may not stand in a state.
REFUSED = -1


class Stage(enum.StrEnum):
    """The part of an answer that a state belongs to: what acceptance and time are counted by."""

    DEPTH = "depth"
    TRACE = "trace"
    ACTION = "action"
    PROSE = "prose"


class Grammar(Protocol):
    """A deterministic automaton over ids, walked by the engine in plain Python: each call is a table look-up."""

    @property
    def done(self) -> int:
        """The state after the last id of an answer."""
        ...

    @property
    def groups(self) -> tuple[NDArray[np.int64], ...]:
        """The distinct sets of allowed ids, each ascending and not empty. A set of one id is forced."""
        ...

    def group(self, state: int) -> int:
        """Which of `groups` is allowed in `state` (any, in `done`)."""
        ...

    def after(self, state: int, token: int) -> int:
        """The state that follows once `token` was chosen in `state`; `REFUSED` where it may not stand there."""
        ...

    def stage(self, state: int) -> Stage:
        """The part of the answer that `state` belongs to."""
        ...

    def place(self, state: int, index: int) -> int:
        """Position id under which the network sees the token chosen in `state` as the row's token number `index` (prompt included)."""
        ...

    def echo(self, state: int) -> int:
        """An earlier state whose id is a fair guess here (the cell to the left, the same dimension one row ago), or `REFUSED`."""
        ...


def forced_id(grammar: Grammar, state: int) -> int:
    """The only id that may stand in `state`, or `REFUSED` where there is a choice or the answer is done."""
    if state == grammar.done:
        return REFUSED
    ids_N = grammar.groups[grammar.group(state)]
    return int(ids_N[0]) if len(ids_N) == 1 else REFUSED


def walk(grammar: Grammar, state: int, ids: Iterable[int]) -> dict[int, int]:
    """{state: id} of `ids` as they follow from `state` on; ends before the first id that may not stand where it does."""
    walked: dict[int, int] = {}
    for token in ids:
        following = REFUSED if state == grammar.done else grammar.after(state, token)
        if following == REFUSED:
            break
        walked[state] = token
        state = following
    return walked


class CompactGrammar:
    """The compact language: a state is a slot, `done` is the number of slots. Satisfies `Grammar`."""

    def __init__(self, layout: CompactLayout) -> None:
        vocabulary = layout.vocabulary
        self.layout, self.done = layout, layout.num_slots
        ranges = list(zip(layout.allowed_start_S.tolist(), layout.allowed_stop_S.tolist(), strict=True))
        first = layout.prompt_length
        distinct = list(dict.fromkeys(ranges[first:]))
        self.groups = tuple(np.arange(start, stop) for start, stop in distinct)
        self._ranges = ranges
        self._group = [0] * first + [distinct.index(entry) for entry in ranges[first:]] + [0]
        stages = {Field.DEPTH: Stage.DEPTH, Field.TRACE: Stage.TRACE, Field.ACTION: Stage.ACTION}
        self._stage = [stages.get(Field(int(field)), Stage.PROSE) for field in layout.fields_S] + [Stage.ACTION]
        self._trace_end, self._after_trace = vocabulary.trace_end, layout.slots[Field.ACTION].start

    def group(self, state: int) -> int:
        """See `Grammar.group`."""
        return self._group[state]

    def after(self, state: int, token: int) -> int:
        """See `Grammar.after`."""
        start, stop = self._ranges[state]
        if not start <= token < stop:
            return REFUSED
        return self._after_trace if token == self._trace_end else state + 1

    def stage(self, state: int) -> Stage:
        """See `Grammar.stage`."""
        return self._stage[state]

    def place(self, state: int, index: int) -> int:
        """The slot itself: a value stands in its slot whatever was answered before it."""
        return state

    def echo(self, state: int) -> int:
        """See `Grammar.echo`."""
        return self._echo[state]

    @cached_property
    def _echo(self) -> Mapping[int, int]:
        depth, action = self.layout.slots[Field.DEPTH], self.layout.slots[Field.ACTION]
        trace, dims = self.layout.slots[Field.TRACE], self.layout.action_dims
        found = dict.fromkeys(range(self.done + 1), REFUSED)
        found |= {state: state - 1 for state in range(depth.start + 1, depth.stop)}
        found |= {state: state - 2 for state in range(trace.start + 2, trace.stop - 1)}
        return found | {state: state - dims for state in range(action.start + dims, action.stop)}

    # ---- values as ids by state

    def given(self, mode: ReasoningMode, **parts: object) -> dict[int, int]:
        """Edited or steering parts as {state: id}. See `CompactLayout.given`, which also says what it raises."""
        ids, slots = self.layout.given(mode, **parts)  # type: ignore[arg-type]
        return dict(zip(slots.tolist(), ids.tolist(), strict=True))

    def committed(self, bins_DA: NDArray[np.integer]) -> dict[int, int]:
        """The first rows of the action block, bins 1..256, as {state: id}."""
        start = self.layout.slots[Field.ACTION].start
        ids = bins_DA.astype(np.int64).reshape(-1) + (self.layout.vocabulary.action.start - 1)
        return {start + offset: token for offset, token in enumerate(ids.tolist())}

    def encode(self, reasoning: ActionReasoning, *, shift: int = 0) -> dict[int, int]:
        """A whole reasoning as {state: id}; the chunk moved up by `shift` rows, its last row repeated at the end."""
        layout, encoded = self.layout, {}
        if reasoning.depth is not None:
            encoded |= self.given(ReasoningMode.FULL, depth=reasoning.depth)
        if reasoning.trace is not None:
            encoded |= self.given(ReasoningMode.TRACE_ACTION, trace=reasoning.trace)
        if reasoning.bins_KA.shape == (layout.chunk_length, layout.action_dims):
            rows_K = np.minimum(np.arange(layout.chunk_length) + shift, layout.chunk_length - 1)
            encoded |= self.committed(reasoning.bins_KA[rows_K])
        return encoded
