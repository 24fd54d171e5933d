"""The parallel action block at run time: one forward over placeholders predicts, or drafts, every action of an answer.

Where a model was trained with placeholders (`network.queries`), a row whose depth and trace are decoded is shown one placeholder
for each action value. For a *parallel* policy their choices are the answer, and nothing of it is verified. For a
*causal* policy the same choices are drafts: the engine reads them causally and keeps what the model itself would have chosen.

Placeholders see all of the row but its decoded actions, and each other. Their keys and values are never counted into the cache.
Shape letters: W tokens of a block, D width, n tokens that are asked.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import torch
from torch import Tensor

from model_core.engine.automaton import Stage
from model_core.engine.cache import RowCache, RowPart
from model_core.engine.decode_request import CompactLanguage, Language
from model_core.engine.forward import BlockForward
from model_core.engine.rounds.blocks import Choices
from model_core.engine.rounds.row import AnswerRow
from model_core.engine.rounds.row_state import Window
from model_core.engine.rounds.window import Acceptance, CostCurve, Source
from model_core.network.queries import ActionHead
from model_core.spec.errors import require
from model_core.tokenization.compact.layout import CompactLayout, Field

# What was never seen cannot get better: a draft that seemed not worth its price is tried at the first answers, and then now and again.
_FIRST_LOOKS, _LOOK_AGAIN = 4, 32
# Fewer actions than this are decoded sooner than drafted.
_FEW = 3


class BlockUse(enum.StrEnum):
    """What an engine does with placeholders."""

    NONE = "none"
    PREDICT = "predict"  # a parallel policy: their choices are the answer
    DRAFT = "draft"  # a causal policy: their choices are drafts

    @staticmethod
    def of(head: ActionHead) -> BlockUse:
        """What a model of this head was trained for."""
        return {ActionHead.CAUSAL: BlockUse.NONE, ActionHead.PARALLEL: BlockUse.PREDICT, ActionHead.BOTH: BlockUse.DRAFT}[head]


def placeholders_of(language: Language) -> int:
    """How many placeholders a block has: one for each action value. Raises `SpecError` for a language that has none."""
    return len(_layout_of(language).slots[Field.ACTION])


class ActionBlock:
    """The placeholders of a language, read by one engine's forward pass. always: draft even where it seems not worth its price."""

    always = False

    def __init__(self, forward: BlockForward, language: Language, use: BlockUse) -> None:
        layout = _layout_of(language)
        slots = layout.slots[Field.ACTION]
        self.forward, self.use, self.states = forward, use, tuple(range(slots.start, slots.stop))
        self._ids = [layout.vocabulary.query_id] * len(slots)
        self._groups = [language.grammar.group(state) for state in self.states]
        self._answers = 0

    def __len__(self) -> int:
        return len(self.states)

    def predicts(self, row: AnswerRow) -> bool:
        """Whether the rest of `row` is for the placeholders to predict."""
        return self.use is BlockUse.PREDICT and not row.done and row.grammar.stage(row.state) is Stage.ACTION

    def drafts(self, row: AnswerRow, costs: CostCurve, rows: int) -> bool:
        """Whether placeholders should draft the rest of `row` now; `rows` are decoded together. Asked once an answer."""
        if self.use is not BlockUse.DRAFT or not row.options.speculate or row.done or row.block:
            return False
        if row.grammar.stage(row.state) is not Stage.ACTION:
            return False
        row.block = {-1: -1}  # decided: no state has this name
        left = sum(state >= row.state for state in self.states)
        return left > _FEW and self._worth(left, row.acceptance, costs.at(rows))

    @torch.inference_mode()
    def read(
        self, row: AnswerRow, window: Window, cache: RowCache, place: int, prompt: tuple[Tensor, Tensor] | None = None, *, margins: bool
    ) -> Choices:
        """One forward: the tokens of `window` (after `prompt`, its embedded start, where that is not cached), then the placeholders.

        Returned are the model's ordinary choices after the window's tokens, as of any block; what the placeholders chose becomes
        `row.block`. A window of a parallel policy holds what is pending and no guesses. margins: as the engine's other blocks do, since
        which of two equal logits is chosen depends on how they are searched.
        """
        forward, count = self.forward, len(self)
        ids, places = torch.tensor([window.ids + self._ids, window.places + list(self.states)], device=forward.device)
        x_WD, start = forward.embed(ids), row.cached
        if prompt is not None:
            x_WD, places, start = torch.cat([prompt[0], x_WD]), torch.cat([prompt[1], places]), start - len(prompt[0])
        # actions, decoded or guessed, stand last
        unseen = len(row.ids_by_stage.get(Stage.ACTION, ())) + len(window.ids) - len(row.pending)
        part = RowPart(row=place, start=start, real=len(x_WD), queries=count, unseen=unseen)
        hidden_WD = forward.row_block(x_WD, places, cache, part)
        asked = [0 if state is None else row.grammar.group(state) for state in window.states] + self._groups
        groups_n = torch.tensor(asked, device=forward.device)
        logits_n, rows_n, *margin_n = (forward.choose_with_margin if margins else forward.choose)(hidden_WD[-len(asked) :], groups_n)
        logits, chosen = logits_n.tolist(), [forward.head_ids[head_row] for head_row in rows_n.tolist()]
        row.block = dict(zip(self.states, chosen[-count:], strict=True))
        behind = margin_n[0].tolist()[:-count] if margin_n else None
        return Choices(ids=chosen[:-count], logits=logits[window.first :], margins=behind)

    def _worth(self, left: int, acceptance: Acceptance, curve: Mapping[int, float]) -> bool:
        """Whether a block saves more than it costs, by what a block costs here ({width: ms}) and how often its drafts were right."""
        self._answers += 1
        if self.always or self._answers <= _FIRST_LOOKS or self._answers % _LOOK_AGAIN == 0:
            return True
        others = max(acceptance.rate(Stage.ACTION, source) for source in Source if source is not Source.BLOCK)
        own = max(others, acceptance.rate(Stage.ACTION, Source.BLOCK))
        price = _cost(curve, len(self) + left) - _cost(curve, left)  # it is read along with a block of guesses
        return milliseconds_to_decode(left, own, curve) + price < milliseconds_to_decode(left, others, curve)


def _layout_of(language: Language) -> CompactLayout:
    require(isinstance(language, CompactLanguage), "placeholders of actions are known in the compact language only", got=language)
    assert isinstance(language, CompactLanguage)
    return language.layout


def milliseconds_to_decode(count: int, likely: float, curve: Mapping[int, float]) -> float:
    """Expected time to decode `count` ids whose guesses are right with chance `likely`, at the best width of {width: ms}."""
    best = float("inf")
    for width, cost in curve.items():
        fed = min(width, count)
        decoded = fed if likely >= 1.0 else (1.0 - likely**fed) / (1.0 - likely)
        best = min(best, count / decoded * cost)
    return best


def _cost(curve: Mapping[int, float], width: int) -> float:
    """Milliseconds of a block of `width` tokens: of the next wider one that was measured, else of the widest."""
    return curve[min((entry for entry in curve if entry >= width), default=max(curve))]
