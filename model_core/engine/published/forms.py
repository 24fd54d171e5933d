"""Several forms of the published language behind one engine: a round then answers questions of each of them. Satisfies `Language`.

State 0 is the end of an answer of any form; 1 + number + count * state is `state` of the grammar with this number, of `count` grammars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model_core.engine.automaton import REFUSED, Stage
from model_core.engine.decode_request import Prompt
from model_core.engine.published.grammar import PublishedGrammar
from model_core.engine.published.language import PublishedLanguage, PublishedRequest
from model_core.spec.errors import GrammarError
from model_core.spec.types import ActionReasoning, DepthTokens, Trace

_DONE = 0


class JoinedGrammar:
    """All answers of several grammars of one tokenizer. Satisfies `Grammar`."""

    def __init__(self, grammars: Sequence[PublishedGrammar]) -> None:
        self.grammars, self.done = tuple(grammars), _DONE
        self.groups: tuple[NDArray[np.int64], ...] = tuple(ids for grammar in grammars for ids in grammar.groups)
        sizes = [len(grammar.groups) for grammar in grammars]
        self._first_group = [sum(sizes[:number]) for number in range(len(sizes))]
        self._count = len(self.grammars)

    def outer(self, number: int, state: int) -> int:
        """The state that stands for `state` of grammar `number`."""
        return _DONE if state == self.grammars[number].done else 1 + number + self._count * state

    def inner(self, state: int) -> tuple[int, int]:
        """The number of the grammar that a state other than `done` belongs to, and the state there."""
        own, number = divmod(state - 1, self._count)
        return number, own

    def group(self, state: int) -> int:
        """See `Grammar.group`."""
        if state == _DONE:
            return 0
        own, number = divmod(state - 1, self._count)
        return self._first_group[number] + self.grammars[number].group(own)

    def after(self, state: int, token: int) -> int:
        """See `Grammar.after`."""
        if state == _DONE:
            return REFUSED
        own, number = divmod(state - 1, self._count)
        following = self.grammars[number].after(own, token)
        return REFUSED if following == REFUSED else self.outer(number, following)

    def stage(self, state: int) -> Stage:
        """See `Grammar.stage`."""
        if state == _DONE:
            return Stage.PROSE
        number, own = self.inner(state)
        return self.grammars[number].stage(own)

    def place(self, state: int, index: int) -> int:
        """See `Grammar.place`: the published networks count on."""
        return index

    def echo(self, state: int) -> int:
        """See `Grammar.echo`."""
        if state == _DONE:
            return REFUSED
        number, own = self.inner(state)
        earlier = self.grammars[number].echo(own)
        return REFUSED if earlier == REFUSED else self.outer(number, earlier)


class PublishedForms:
    """The published language in one form for each of `languages`; a question names its form (`PublishedRequest.form`)."""

    def __init__(self, languages: Sequence[PublishedLanguage]) -> None:
        self.languages = tuple(languages)
        self.grammar = JoinedGrammar([language.grammar for language in self.languages])
        self.max_length = max(language.max_length for language in self.languages)
        self._numbers = {language.grammar.form: number for number, language in enumerate(self.languages)}

    def prompt(self, question: PublishedRequest) -> Prompt:
        """See `PublishedLanguage.prompt`."""
        return self._of(question)[1].prompt(question)

    def begin(self, question: PublishedRequest) -> int:
        """See `Language.begin`."""
        number, language = self._of(question)
        return self.grammar.outer(number, language.begin(question))

    def given(self, question: PublishedRequest) -> dict[int, int]:
        """See `PublishedLanguage.given`."""
        number, language = self._of(question)
        return self._outer(number, language.given(question))

    def encode(self, reasoning: ActionReasoning, question: PublishedRequest, *, shift: int = 0) -> dict[int, int]:
        """See `PublishedLanguage.encode`."""
        number, language = self._of(question)
        return self._outer(number, language.encode(reasoning, question, shift=shift))

    def parse(self, ids: Sequence[int], question: PublishedRequest) -> ActionReasoning:
        """See `Language.parse`."""
        return self._of(question)[1].parse(ids, question)

    def read(self, stage: Stage, ids: Sequence[int], question: PublishedRequest) -> DepthTokens | Trace:
        """See `Language.read`."""
        return self._of(question)[1].read(stage, ids, question)

    def _of(self, question: PublishedRequest) -> tuple[int, PublishedLanguage]:
        number = self._numbers.get(question.form)
        if number is None:
            known = ", ".join(form.value for form in self._numbers)
            raise GrammarError(f"no answer of form {question.form.value}; this model is asked for {known}", 0, 0)
        return number, self.languages[number]

    def _outer(self, number: int, values: Mapping[int, int]) -> dict[int, int]:
        return {self.grammar.outer(number, state): token for state, token in values.items()}
