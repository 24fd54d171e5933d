"""The published spelling as a state machine over real token ids: what may be said now, and where that leads.

    prose | depth tags | prose | " [[x," " y]," ... " y]]." | prose | " [[a," " b," ... " z]]." | end of text

Why a chain of words is enough: the published pre-tokeniser never lets a piece reach over a blank, except for a blank at its front. So the
ids of a text are the ids of its blank-led words one after the other, and each word can be tabulated with its brackets and commas. What a
walk through these tables says is therefore exactly what the tokeniser would have made of the same text: no spelling that a model was
never trained on is offered, and every walk parses.

Two action spellings: "published" (each value is the byte-level surface string of a rare entry, 2..5 ids with its punctuation) and
"single" (each value is that entry itself, one id; the punctuation between stays text).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import GrammarError, require
from model_core.spec.types import DEPTH_CELLS, TRACE_MAX_POINTS, TRACE_RANGE, ActionReasoning, DepthTokens, Trace
from model_core.speech.action_codec import NUM_BINS, PUBLISHED_FIRST_ID, published_symbols
from model_core.speech.compact import Field
from model_core.speech.grammar import Form, Style, parse_answer, render_actions, render_answer, render_depth, render_trace
from model_core.speech.tokens import PromptTokenizer

Spelling = Literal["published", "single"]
_END = -1  # the step after the last


class PublishedState(NamedTuple):
    """Where an answer stands. step, node: word and place within it. left: ids of the first trajectory, where it must be repeated."""

    step: int
    node: int = 0
    left: tuple[int, ...] = ()


class _Words:
    """A prefix tree of alternative words. Node 0 is the root; a leaf is kept as ~branch, so that it is below zero."""

    def __init__(self, words: Iterable[tuple[Sequence[int], int]]) -> None:
        self.children: list[dict[int, int]] = [{}]
        for ids, branch in words:
            node = 0
            for token in ids[:-1]:
                node = self.children[node].setdefault(token, len(self.children))
                if node == len(self.children):
                    self.children.append({})
                require(node > 0, "one word of the grammar is the beginning of another", got=list(ids))
            require(ids[-1] not in self.children[node], "two words of the grammar have the same ids", got=list(ids))
            self.children[node][ids[-1]] = ~branch


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One word to say. branches: the step that follows, by the branch of the word.

    role: "left" for words of a trajectory that is remembered, "right" for its repetition, else "".
    """

    field: Field
    words: _Words
    branches: tuple[int, ...]
    role: str = ""


class PublishedGrammar:
    """All answers of one form, as token ids: `start`, then `allowed` and `after` until `is_done`.

    tokenizer: text encoding and special ids of the checkpoint. views, style: which of the published wordings.
    spelling: how action values are written. States are hashable values; nothing is kept between calls.
    """

    def __init__(
        self,
        tokenizer: PromptTokenizer,
        *,
        form: Form = Form.FULL,
        chunk_length: int,
        action_dims: int,
        views: int = 1,
        style: Style = Style.RELEASED,
        spelling: Spelling = "published",
    ) -> None:
        require(spelling in ("published", "single"), "actions are spelt 'published' or 'single'", got=spelling)
        require(min(chunk_length, action_dims, views) >= 1, "a chunk has rows and values", got=(chunk_length, action_dims, views))
        self.tokenizer, self.form, self.views, self.style, self.spelling = tokenizer, form, views, style, spelling
        self.chunk_length, self.action_dims = chunk_length, action_dims
        self._steps: list[_Step] = []
        self._build()
        self.start = PublishedState(0)

    # ---- walking

    def allowed(self, state: PublishedState) -> tuple[int, ...]:
        """Ids that may be said in `state`, without order; empty only when the answer is complete."""
        if self.is_done(state):
            return ()
        step = self._steps[state.step]
        return (state.left[state.node],) if step.role == "right" else tuple(step.words.children[state.node])

    def after(self, state: PublishedState, token: int) -> PublishedState:
        """The state once `token` was said. Raises `GrammarError` where it may not be said."""
        step = self._steps[state.step] if not self.is_done(state) else None
        if step is not None and step.role == "right":
            if token == state.left[state.node]:
                done = state.node + 1 == len(state.left)
                return PublishedState(step.branches[0]) if done else state._replace(node=state.node + 1)
        elif step is not None and token in step.words.children[state.node]:
            child = step.words.children[state.node][token]
            left = (*state.left, token) if step.role == "left" else state.left
            return PublishedState(step.branches[~child], 0, left) if child < 0 else PublishedState(state.step, child, left)
        raise GrammarError(f"id {token} may not be said here; expected {self._expected(state)}", 0, 1)

    def is_done(self, state: PublishedState) -> bool:
        """Whether the end of text was said."""
        return state.step == _END

    def field(self, state: PublishedState) -> Field:
        """What is being said: DEPTH, TRACE or ACTION, with the prose before it; PAD when the answer is complete."""
        return Field.PAD if self.is_done(state) else self._steps[state.step].field

    def forced(self, state: PublishedState) -> tuple[int, ...]:
        """The ids that follow without any choice from `state` on; empty where there is one."""
        run: list[int] = []
        while len(choices := self.allowed(state)) == 1:
            run.append(choices[0])
            state = self.after(state, choices[0])
        return tuple(run)

    def walk(self, ids: Iterable[int], state: PublishedState | None = None) -> PublishedState:
        """The state after all of `ids`. Raises `GrammarError` with the position of the first that may not be said."""
        state = self.start if state is None else state
        for place, token in enumerate(ids):
            try:
                state = self.after(state, int(token))
            except GrammarError as error:
                raise GrammarError(f"position {place}: {error}", place, place + 1) from error
        return state

    @property
    def max_length(self) -> int:
        """Ids of the longest answer."""
        total = sum(_deepest(step.words) for step in self._steps)
        return 2 * total if self.form is Form.FULL and self.style is Style.FINETUNED else total

    # ---- meaning

    def answer_ids(self, reasoning: ActionReasoning) -> NDArray[np.int64]:
        """The ids of one answer with its end of text: the inverse of `parse`."""
        text = render_answer(self.form, reasoning, views=self.views, style=self.style)
        if self.spelling == "published" or not self._acts:
            return self.tokenizer.answer_ids(text)
        before = text.removesuffix(render_actions(reasoning.bins_KA) + ".")
        ids: list[int] = self.tokenizer.encode(before + self._opening)
        for row, bins_A in enumerate(reasoning.bins_KA.tolist()):
            ids += self.tokenizer.encode("], [") if row else []
            for column, action_bin in enumerate(bins_A):
                ids += [*(self.tokenizer.encode(", ") if column else []), _entry(action_bin)]
        return np.array([*ids, *self.tokenizer.encode(self._closing + "."), self.tokenizer.special.eos], np.int64)

    def parse(self, ids: Sequence[int] | NDArray[np.integer]) -> ActionReasoning:
        """The typed meaning of a complete answer. Raises `GrammarError` at the first place that is not in the language."""
        return parse_answer(
            self.form,
            self.text_of(ids),
            action_dims=self.action_dims,
            chunk_length=self.chunk_length,
            num_codes=self.tokenizer.special.num_depth,
        )

    def text_of(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The answer as published text; action entries of the single-id spelling appear as their surface strings."""
        if self.spelling == "published":
            return self.tokenizer.decode(ids)
        parts: list[str] = []
        plain: list[int] = []
        for token in (int(value) for value in ids):
            if _entry(NUM_BINS) <= token <= _entry(1):
                parts += [self.tokenizer.decode(plain), published_symbols()[PUBLISHED_FIRST_ID - token]]
                plain = []
            else:
                plain.append(token)
        return "".join([*parts, self.tokenizer.decode(plain)])

    # ---- tables

    @property
    def _acts(self) -> bool:
        return self.form in (Form.FULL, Form.STEERED)

    @property
    def _opening(self) -> str:
        return "[[" if self.chunk_length > 1 else "["

    @property
    def _closing(self) -> str:
        return "]]" if self.chunk_length > 1 else "]"

    def _build(self) -> None:
        depth, traces, action = self._prose()
        special = self.tokenizer.special
        if depth:
            codes = range(special.depth_first, special.depth_first + special.num_depth)
            tag = _Words([((code,), 0) for code in codes])
            self._fixed(Field.DEPTH, [*self.tokenizer.encode(depth), special.depth_start])
            for _ in range(DEPTH_CELLS):
                self._then(Field.DEPTH, tag)
            self._fixed(Field.DEPTH, [special.depth_end, *self.tokenizer.encode(".")])
        for side, text in enumerate(traces):
            self._fixed(Field.TRACE, self.tokenizer.encode(text.removesuffix(" ")))
            if side:
                self._then(Field.TRACE, _Words([]), role="right")
            else:
                self._trace("left" if len(traces) > 1 else "")
        if action:
            self._actions(action)
        self._fixed(self._steps[-1].field, [special.eos], following=_END)

    def _prose(self) -> tuple[str, tuple[str, ...], str]:
        """What stands before the depth tags, each trajectory and the actions: cut out of an answer that the renderer wrote."""
        grid, trace = DepthTokens(codes_G=np.zeros(DEPTH_CELLS, np.int64)), Trace(points_N2=np.zeros((1, 2), np.int64))
        said = ActionReasoning(depth=grid, trace=trace, bins_KA=np.ones((self.chunk_length, self.action_dims), np.int64))
        rest = render_answer(self.form, said, views=self.views, style=self.style)
        depth = ""
        if self.form in (Form.FULL, Form.DEPTH):
            depth, _, rest = rest.partition(render_depth(grid))
            rest = rest.removeprefix(".")
        *traces, rest = rest.split(render_trace(trace))
        traces = [text.removeprefix(".") for text in traces]
        return depth, tuple(traces), rest.removeprefix(".").partition(render_actions(said.bins_KA))[0] if self._acts else ""

    def _fixed(self, field: Field, ids: Sequence[int], following: int | None = None) -> None:
        self._then(field, _Words([(ids, 0)]), following=following)

    def _then(self, field: Field, words: _Words, *, role: str = "", following: int | None = None) -> None:
        here = len(self._steps)
        self._steps.append(_Step(field, words, (here + 1 if following is None else following,), role))

    def _trace(self, role: str) -> None:
        numbers = [str(value) for value in range(TRACE_RANGE + 1)]
        begin = len(self._steps)
        end = begin + 2 * TRACE_MAX_POINTS
        first, later = self._tree([" [["], numbers, [","]), self._tree([" ["], numbers, [","])
        between, last = self._tree([" "], numbers, ["],", "]]."]), self._tree([" "], numbers, ["]]."])
        for point in range(TRACE_MAX_POINTS):
            here = begin + 2 * point
            self._steps.append(_Step(Field.TRACE, later if point else first, (here + 1,), role))
            final = point == TRACE_MAX_POINTS - 1
            self._steps.append(_Step(Field.TRACE, last if final else between, (end,) if final else (here + 2, end), role))

    def _actions(self, prose: str) -> None:
        if self.spelling == "single":
            return self._single_actions(prose)
        self._fixed(Field.ACTION, self.tokenizer.encode(prose.removesuffix(" ")))
        symbols, made = published_symbols(), {}
        for row in range(self.chunk_length):
            for column in range(self.action_dims):
                lead = " " if column else " " + (self._opening if row == 0 else "[")
                tail = "," if column < self.action_dims - 1 else "]," if row < self.chunk_length - 1 else self._closing + "."
                if (lead, tail) not in made:
                    made[lead, tail] = self._tree([lead], symbols, [tail])
                self._then(Field.ACTION, made[lead, tail])
        return None

    def _single_actions(self, prose: str) -> None:
        entries = _Words([((_entry(action_bin),), 0) for action_bin in range(1, NUM_BINS + 1)])
        comma, row_break = self.tokenizer.encode(", "), self.tokenizer.encode("], [")
        self._fixed(Field.ACTION, self.tokenizer.encode(prose + self._opening))
        for value in range(self.chunk_length * self.action_dims):
            if value:
                self._fixed(Field.ACTION, comma if value % self.action_dims else row_break)
            self._then(Field.ACTION, entries)
        self._fixed(Field.ACTION, self.tokenizer.encode(self._closing + "."))

    def _tree(self, leads: Sequence[str], values: Sequence[str], tails: Sequence[str]) -> _Words:
        """Every lead + value + tail; the branch of a word is the number of its tail."""
        encode = self.tokenizer.encode
        return _Words((encode(lead + value + tail), branch) for lead in leads for value in values for branch, tail in enumerate(tails))

    def _expected(self, state: PublishedState) -> str:
        choices = self.allowed(state)
        if not choices:
            return "nothing more: the answer is complete"
        shown = [repr(self.tokenizer.decode([token]) or "end of text") for token in choices[:3]]
        return f"one of {len(choices)} ids ({', '.join(shown)}{', ...' if len(choices) > 3 else ''})"


def _entry(action_bin: int) -> int:
    """The table entry whose surface string spells a bin."""
    return PUBLISHED_FIRST_ID + 1 - action_bin


def _deepest(words: _Words) -> int:
    depth = [0] * len(words.children)
    deepest = 0
    for node, children in enumerate(words.children):  # a child is made after its parent
        for child in children.values():
            deepest = max(deepest, depth[node] + 1)
            if child > 0:
                depth[child] = depth[node] + 1
    return deepest
