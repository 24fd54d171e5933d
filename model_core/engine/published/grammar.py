"""The published spelling as a state machine over real token ids: what is allowed now, and where that leads.

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
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_core.engine.automaton import REFUSED, Stage, forced_id, walk
from model_core.engine.published.word_tree import WordStep, WordTree
from model_core.spec.errors import GrammarError, require
from model_core.spec.types import DEPTH_CELLS, TRACE_MAX_POINTS, TRACE_RANGE, ActionReasoning, DepthTokens, Trace
from model_core.tokenization.action_codec import NUM_BINS, PUBLISHED_FIRST_ID, published_symbols
from model_core.tokenization.published.grammar import Form, Style, render_actions, render_answer, render_depth, render_trace
from model_core.tokenization.published.parse import parse_answer
from model_core.tokenization.published.tokenizer import PromptTokenizer

Spelling = Literal["published", "single"]


class PublishedGrammar:
    """All answers of one form, as token ids. Satisfies `Grammar`; the answer begins in state `start`.

    tokenizer: text encoding and special ids of the checkpoint. views, style: which of the published wordings.
    spelling: how action values are written. A state is a place in the tables; where the right trajectory must repeat the left
    (fine-tuned wording), what was answered for the left is part of the number, so that nothing is kept between calls.
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
        require(spelling in ("published", "single"), "spelling must be 'published' or 'single'", got=spelling)
        require(min(chunk_length, action_dims, views) >= 1, "a chunk has rows and values", got=(chunk_length, action_dims, views))
        self.tokenizer, self.form, self.views, self.style, self.spelling = tokenizer, form, views, style, spelling
        self.chunk_length, self.action_dims, self.nested = chunk_length, action_dims, chunk_length > 1 or style is Style.FINETUNED
        self.start, self.first_action = 0, REFUSED
        self._steps: list[WordStep] = []
        self._build()
        self._tabulate()

    # ---- walking

    def after(self, state: int, token: int) -> int:
        """See `Grammar.after`."""
        left, place = divmod(state, self._places)
        if place == self.done:
            return REFUSED
        number, node = self._step_at[place], self._node_at[place]
        step = self._steps[number]
        if step.role == "right":
            remembered = self._remembered(left)
            if token != remembered[node]:
                return REFUSED
            return self._first[step.branches[0]] if node + 1 == len(remembered) else state + 1
        child = step.words.children[node].get(token)
        if child is None:
            return REFUSED
        if step.role == "left":
            left = left * self._radix + self._letters[token]
        return left * self._places + (self._first[step.branches[~child]] if child < 0 else self._first[number] + child)

    def group(self, state: int) -> int:
        """See `Grammar.group`."""
        left, place = divmod(state, self._places)
        if place != self.done and self._steps[self._step_at[place]].role == "right":
            return self._group_of_letter[self._remembered(left)[self._node_at[place]]]
        return self._group_at[place]

    def stage(self, state: int) -> Stage:
        """See `Grammar.stage`; brackets and commas count with the value that they stand beside."""
        place = state % self._places
        return Stage.PROSE if place == self.done else self._steps[self._step_at[place]].stage

    def place(self, state: int, index: int) -> int:
        """The number of the token: the published networks count on."""
        return index

    def echo(self, state: int) -> int:
        """See `Grammar.echo`: the same piece of the cell, point or row before."""
        place = state % self._places
        if place == self.done:
            return REFUSED
        number = self._step_at[place]
        step, back = self._steps[number], number - self._steps[number].echo
        if not step.echo or back < 0 or self._steps[back].words is not step.words:
            return REFUSED
        return state - place + self._first[back] + self._node_at[place]

    def allowed(self, state: int) -> NDArray[np.int64]:
        """Ids that are allowed in `state`, ascending; empty only when the answer is complete."""
        return np.empty(0, np.int64) if state == self.done else self.groups[self.group(state)]

    def forced(self, state: int) -> tuple[int, ...]:
        """The ids that follow without any choice from `state` on; empty where there is one."""
        run: list[int] = []
        while (token := forced_id(self, state)) != REFUSED:
            run.append(token)
            state = self.after(state, token)
        return tuple(run)

    def state_after(self, ids: Iterable[int], state: int | None = None) -> int:
        """The state after all of `ids`. Raises `GrammarError` with the position of the first that is not allowed."""
        state = self.start if state is None else state
        for place, token in enumerate(ids):
            following = self.after(state, int(token))
            if following == REFUSED:
                raise GrammarError(f"position {place}: id {int(token)} is not allowed; expected {self._expected(state)}", place, place + 1)
            state = following
        return state

    @property
    def max_length(self) -> int:
        """Ids of the longest answer."""
        left = sum(step.words.longest for step in self._steps if step.role == "left")
        return left + sum(step.words.longest for step in self._steps)

    def _remembered(self, left: int) -> list[int]:
        letters = []
        while left:
            left, letter = divmod(left, self._radix)
            letters.append(self._alphabet[letter - 1])
        return letters[::-1]

    # ---- meaning

    def answer_ids(self, reasoning: ActionReasoning) -> NDArray[np.int64]:
        """The ids of one answer with its end of text: the inverse of `parse`."""
        text = render_answer(self.form, reasoning, views=self.views, style=self.style, nested=self.nested)
        if self.spelling == "published" or not self.acts:
            return self.tokenizer.answer_ids(text)
        before = text.removesuffix(render_actions(reasoning.bins_KA, nested=self.nested) + ".")
        ids: list[int] = self.tokenizer.encode(before + self._opening)
        for row, bins_A in enumerate(reasoning.bins_KA.tolist()):
            ids += self.tokenizer.encode("], [") if row else []
            for column, action_bin in enumerate(bins_A):
                ids += [*(self.tokenizer.encode(", ") if column else []), _entry(action_bin)]
        return np.array([*ids, *self.tokenizer.encode(self._closing + "."), self.tokenizer.special.eos], np.int64)

    def actions(self, bins_DA: NDArray[np.integer]) -> dict[int, int]:
        """The first rows of the action block, bins 1..256, as {state: id}: values with the punctuation between and behind them."""
        rows, dims = bins_DA.shape
        bins_KA = np.ones((self.chunk_length, self.action_dims), np.int64)
        bins_KA[:rows] = bins_DA
        grid, trace = DepthTokens(codes_G=np.zeros(DEPTH_CELLS, np.int64)), Trace(points_N2=np.zeros((1, 2), np.int64))
        encoded = walk(self, self.start, self.answer_ids(ActionReasoning(depth=grid, trace=trace, bins_KA=bins_KA)).tolist())
        steps = rows * dims if self.spelling == "published" else 2 * rows * dims - 1
        within = range(self.first_action, self.first_action + steps)
        return {state: token for state, token in encoded.items() if state < self._places and self._step_at[state] in within}

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
    def acts(self) -> bool:
        """Whether answers of this form hold actions."""
        return self.form in (Form.FULL, Form.STEERED)

    @property
    def _opening(self) -> str:
        return "[[" if self.nested else "["

    @property
    def _closing(self) -> str:
        return "]]" if self.nested else "]"

    def _build(self) -> None:
        depth, traces, action = self._prose()
        special = self.tokenizer.special
        if depth:
            codes = range(special.depth_first, special.depth_first + special.num_depth)
            tag = WordTree([((code,), 0) for code in codes])
            self._fixed([*self.tokenizer.encode(depth), special.depth_start])
            for _ in range(DEPTH_CELLS):
                self._then(Stage.DEPTH, tag, echo=1)
            self._fixed([special.depth_end, *self.tokenizer.encode(".")])
        for side, text in enumerate(traces):
            self._fixed(self.tokenizer.encode(text.removesuffix(" ")))
            if side:
                self._then(Stage.TRACE, WordTree([]), role="right")
            else:
                self._trace("left" if len(traces) > 1 else "")
        if action:
            self._actions(action)
        self._fixed([special.eos])

    def _prose(self) -> tuple[str, tuple[str, ...], str]:
        """What stands before the depth tags, each trajectory and the actions: cut out of an answer that the renderer wrote."""
        grid, trace = DepthTokens(codes_G=np.zeros(DEPTH_CELLS, np.int64)), Trace(points_N2=np.zeros((1, 2), np.int64))
        sample = ActionReasoning(depth=grid, trace=trace, bins_KA=np.ones((self.chunk_length, self.action_dims), np.int64))
        rest = render_answer(self.form, sample, views=self.views, style=self.style, nested=self.nested)
        depth = ""
        if self.form in (Form.FULL, Form.DEPTH):
            depth, _, rest = rest.partition(render_depth(grid))
            rest = rest.removeprefix(".")
        *traces, rest = rest.split(render_trace(trace))
        action = rest.removeprefix(".").partition(render_actions(sample.bins_KA, nested=self.nested))[0]
        return depth, tuple(text.removeprefix(".") for text in traces), action if self.acts else ""

    def _tabulate(self) -> None:
        """Number all places, and find the distinct sets of ids."""
        steps = self._steps
        self._alphabet = sorted({token for step in steps if step.role == "left" for node in step.words.children for token in node})
        self._letters, self._radix = {token: number + 1 for number, token in enumerate(self._alphabet)}, len(self._alphabet) + 1
        longest = sum(step.words.longest for step in steps if step.role == "left")
        sizes = [longest if step.role == "right" else len(step.words.children) for step in steps]
        self._first = [0, *np.cumsum(sizes).tolist()]
        self.done = self._first[-1]
        self._places = self.done + 1
        self._step_at = np.repeat(np.arange(len(steps)), sizes).tolist()
        self._node_at = [node for size in sizes for node in range(size)]
        found: dict[tuple[int, ...], int] = {}
        of_tree = {
            id(step.words): [found.setdefault(tuple(sorted(node)), len(found)) for node in step.words.children]
            for step in steps
            if step.role != "right"
        }
        self._group_of_letter = {token: found.setdefault((token,), len(found)) for token in self._alphabet}
        self._group_at = [group for step, size in zip(steps, sizes, strict=True) for group in of_tree.get(id(step.words), [0] * size)] + [0]
        self.groups = tuple(np.array(ids, np.int64) for ids in found)

    def _fixed(self, ids: Sequence[int]) -> None:
        self._then(Stage.PROSE, WordTree([(ids, 0)]))

    def _then(self, stage: Stage, words: WordTree, *, role: str = "", echo: int = 0) -> None:
        self._steps.append(WordStep(stage, words, (len(self._steps) + 1,), role, echo))

    def _trace(self, role: str) -> None:
        numbers = [str(value) for value in range(TRACE_RANGE + 1)]
        begin = len(self._steps)
        end = begin + 2 * TRACE_MAX_POINTS
        first, later = self._tree([" [["], numbers, [","]), self._tree([" ["], numbers, [","])
        between, last = self._tree([" "], numbers, ["],", "]]."]), self._tree([" "], numbers, ["]]."])
        for point in range(TRACE_MAX_POINTS):
            here = begin + 2 * point
            self._steps.append(WordStep(Stage.TRACE, later if point else first, (here + 1,), role, echo=2))
            final = point == TRACE_MAX_POINTS - 1
            self._steps.append(WordStep(Stage.TRACE, last if final else between, (end,) if final else (here + 2, end), role, echo=2))

    def _actions(self, prose: str) -> None:
        if self.spelling == "single":
            return self._single_actions(prose)
        self._fixed(self.tokenizer.encode(prose.removesuffix(" ")))
        self.first_action = len(self._steps)
        symbols, made = published_symbols(), {}
        for row in range(self.chunk_length):
            for column in range(self.action_dims):
                lead = " " if column else " " + (self._opening if row == 0 else "[")
                tail = "," if column < self.action_dims - 1 else "]," if row < self.chunk_length - 1 else self._closing + "."
                if (lead, tail) not in made:
                    made[lead, tail] = self._tree([lead], symbols, [tail])
                self._then(Stage.ACTION, made[lead, tail], echo=self.action_dims)
        return None

    def _single_actions(self, prose: str) -> None:
        entries = WordTree([((_entry(action_bin),), 0) for action_bin in range(1, NUM_BINS + 1)])
        comma, row_break = self.tokenizer.encode(", "), self.tokenizer.encode("], [")
        self._fixed(self.tokenizer.encode(prose + self._opening))
        self.first_action = len(self._steps)
        for value in range(self.chunk_length * self.action_dims):
            if value:
                self._fixed(comma if value % self.action_dims else row_break)
            self._then(Stage.ACTION, entries, echo=2 * self.action_dims)
        self._fixed(self.tokenizer.encode(self._closing + "."))

    def _tree(self, leads: Sequence[str], values: Sequence[str], tails: Sequence[str]) -> WordTree:
        """Every lead + value + tail; the branch of a word is the number of its tail."""
        encode = self.tokenizer.encode
        return WordTree((encode(lead + value + tail), branch) for lead in leads for value in values for branch, tail in enumerate(tails))

    def _expected(self, state: int) -> str:
        choices = self.allowed(state).tolist()
        if not choices:
            return "nothing more: the answer is complete"
        shown = [repr(self.tokenizer.decode([token]) or "end of text") for token in choices[:3]]
        return f"one of {len(choices)} ids ({', '.join(shown)}{', ...' if len(choices) > 3 else ''})"


def _entry(action_bin: int) -> int:
    """The table entry whose surface string encodes a bin."""
    return PUBLISHED_FIRST_ID + 1 - action_bin
