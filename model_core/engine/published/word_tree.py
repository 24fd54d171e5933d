"""Alternative words as prefix trees, and the steps of an answer that is built word by word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from model_core.engine.automaton import Stage
from model_core.spec.errors import require


class WordTree:
    """A prefix tree of alternative words. Node 0 is the root; a leaf is kept as ~branch, so that it is below zero.

    longest: ids of the longest word.
    """

    def __init__(self, words: Iterable[tuple[Sequence[int], int]]) -> None:
        self.children: list[dict[int, int]] = [{}]
        self.longest = 0
        for ids, branch in words:
            node = 0
            for token in ids[:-1]:
                node = self.children[node].setdefault(token, len(self.children))
                if node == len(self.children):
                    self.children.append({})
                require(node > 0, "one word of the grammar is the beginning of another", got=list(ids))
            require(ids[-1] not in self.children[node], "two words of the grammar have the same ids", got=list(ids))
            self.children[node][ids[-1]] = ~branch
            self.longest = max(self.longest, len(ids))


@dataclass(frozen=True, slots=True, eq=False)
class WordStep:
    """One word of an answer. branches: the step that follows, by the branch of the word. echo: how many steps back the same word is, or 0.

    role: "left" for words of a trajectory that is remembered, "right" for its repetition, else "".
    """

    stage: Stage
    words: WordTree
    branches: tuple[int, ...]
    role: str = ""
    echo: int = 0
