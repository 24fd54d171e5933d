"""What belongs to one row of a round: where it starts, how it is decoded, what it feeds, and what is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from model_core.engine.automaton import Stage
from model_core.engine.decode_request import Drafts, Prompt


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowStart:
    """What one row decodes. begin: the state of the answer's first id. given: ids that stand whatever the model would choose.

    on_part: called with each completed part. is_cancelled: asked between blocks.
    """

    request: Any
    prompt: Prompt
    begin: int
    given: dict[int, int]
    drafts: Drafts
    on_part: Callable[[str, Any], None] | None = None
    is_cancelled: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """How rows are decoded. constrained: an id without an alternative is taken unscored. speculate: draft at all. refine: replace
    drafts behind a wrong one by the model's choices there, where that has been the better source. echo: draft earlier values of
    the same answer. block_predicts: actions are predicted by placeholders, not drafted."""

    constrained: bool = True
    speculate: bool = True
    refine: bool = True
    echo: bool = True
    block_predicts: bool = False


@dataclass(slots=True, eq=False)
class Window:
    """What one row feeds. states[j]: the state that output j chooses for, None where the next token is known already.

    gains[w - 1]: ids expected from feeding the first w tokens. first: the first output that is asked for anything.
    """

    ids: list[int]
    places: list[int]
    states: list[int | None]
    gains: list[float]
    first: int

    def cut(self, width: int) -> Window:
        """The first `width` tokens; pending ones are never cut off."""
        width = max(width, self.first + 1)
        if len(self.ids) <= width:
            return self
        return Window(self.ids[:width], self.places[:width], self.states[:width], self.gains[:width], self.first)


@dataclass(slots=True, eq=False)
class Tally:
    """What decoding did for one row: blocks, guarded positions, and [fed drafts judged, right] per stage."""

    forwards: int = 0
    guarded: int = 0
    reused: int = 0
    guesses: dict[Stage, list[int]] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """As `Decision.counts` names them."""
        found = {"forwards": self.forwards, "guarded": self.guarded}
        if self.reused:
            found["reused.depth"] = self.reused
        for stage, (drafted, accepted) in self.guesses.items():
            found |= {f"drafted.{stage.value}": drafted, f"accepted.{stage.value}": accepted}
        return found
