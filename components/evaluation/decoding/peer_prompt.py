"""What a peer gets and how it is timed: places of tokens, what may follow them, image features, and the stages of one answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_core.engine.automaton import REFUSED
from model_core.engine.decode_request import Language, Prompt
from model_core.network.model import MolmoAct

STAGES = ("vision", "prefill", "depth", "trace", "action")
PROSE = "prose"  # of languages that have any


class Places:
    """Where the tokens of one answer stand, and which ids may follow, from the ids alone: the grammar of `language` walked along.

    rows: ids that the head scores.
    """

    def __init__(self, language: Language, rows: int) -> None:
        self.language, self._rows = language, rows
        self._prompt_places_L = torch.zeros(0, dtype=torch.int64)
        self._ids: list[int] = []
        self._states: list[int] = [0]
        self._blocked: dict[int, Tensor] = {}

    def start(self, prompt_places_L: NDArray[np.int64], begin: int) -> None:
        """A new answer begins behind a prompt with these places, in state `begin`."""
        self._prompt_places_L = torch.from_numpy(np.ascontiguousarray(prompt_places_L))
        self._ids, self._states = [], [begin]

    @property
    def prompt_length(self) -> int:
        """Tokens before the answer."""
        return len(self._prompt_places_L)

    def next(self, ids_1L: Tensor) -> int:
        """The state of the token that follows (1, L) ids; that of the last one that may stand where a guess may not."""
        return self._walked(ids_1L)[-1]

    def blocked(self, state: int, device: torch.device) -> Tensor:
        """(rows,) bool: True where an id is not allowed in `state`. Made once for each distinct set of ids."""
        grammar = self.language.grammar
        group = grammar.group(state)
        if group not in self._blocked:
            row_X = torch.ones(self._rows, dtype=torch.bool)
            row_X[torch.from_numpy(grammar.groups[group])] = False
            self._blocked[group] = row_X.to(device)
        return self._blocked[group]

    def of_last(self, ids_1L: Tensor, count: int) -> Tensor:
        """(1, count) places of the last ids."""
        prompt, length = len(self._prompt_places_L), ids_1L.shape[1]
        first = length - count
        if length <= prompt:
            return self._prompt_places_L[first:length][None]
        states, place = self._walked(ids_1L), self.language.grammar.place
        found = [place(states[index - prompt], index) for index in range(max(first, prompt), length)]
        return torch.cat([self._prompt_places_L[min(first, prompt) :], torch.tensor(found, dtype=torch.int64)])[None]

    def stage_of_last(self, ids_1L: Tensor, count: int) -> str:
        """The part of the answer that the first of the last `count` ids belongs to."""
        states = self._walked(ids_1L)
        return self.language.grammar.stage(states[max(0, ids_1L.shape[1] - count - len(self._prompt_places_L))]).value

    def _walked(self, ids_1L: Tensor) -> Sequence[int]:
        """The state before each id of the answer and after the last; what was walked before is not walked again."""
        answer = ids_1L[0, len(self._prompt_places_L) :].tolist()
        known, grammar = self._ids, self.language.grammar
        if answer[: len(known)] != known:
            same = next((place for place, (one, other) in enumerate(zip(known, answer, strict=False)) if one != other), len(answer))
            self._ids, self._states = known[:same], self._states[: same + 1]
        for token in answer[len(self._ids) :]:
            state = self._states[-1]
            following = REFUSED if state == grammar.done else grammar.after(state, token)
            self._ids.append(token)
            self._states.append(state if following == REFUSED else following)
        return self._states


@dataclass(slots=True)
class Laps:
    """When each forward began, and in which stage: enough to split the time of one answer."""

    began: float = 0.0
    marks: list[tuple[str, float]] = field(default_factory=list)

    def start(self) -> None:
        """A new answer begins now."""
        self.marks.clear()
        self.began = time.perf_counter()

    def mark(self, stage: str) -> None:
        """The stage named ends here."""
        self.marks.append((stage, time.perf_counter()))

    def split(self) -> dict[str, float]:
        """Milliseconds by stage, up to now."""
        self.mark("action")
        found: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        last = self.began
        for stage, at in self.marks:
            found[stage] = found.get(stage, 0.0) + (at - last) * 1e3
            last = at
        return found


def encode(network: MolmoAct, prompt: Prompt) -> Tensor:
    """Image features of one prompt."""
    device = network.lm_head.weight.device
    moved = [None if part is None else part.to(device) for part in (prompt.images, prompt.pooled_patches_idx, prompt.image_masks)]
    assert moved[0] is not None
    assert moved[1] is not None
    return network.encode_images(moved[0], moved[1], moved[2])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PeerAnswer:
    """ids_N: int64, the answer alone. forwards: of the decoder, prefill included. stages_ms: where the time went."""

    ids_N: NDArray[np.int64]
    forwards: int
    stages_ms: Mapping[str, float]
