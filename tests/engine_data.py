"""Engines over the small untrained network, whose measurements are given so that nothing depends on the machine."""

from __future__ import annotations

import numpy as np
import torch

from model_core.engine.answer import DecodeResult
from model_core.engine.automaton import CompactGrammar
from model_core.engine.decode import DecodingEngine
from model_core.engine.decode_request import DecodeRequest
from model_core.engine.numerics import Numerics
from model_core.engine.resources import EngineOptions
from model_core.engine.rounds.round import AnswerRound
from model_core.engine.rounds.window import CostCurve
from model_core.network.model import MolmoAct
from model_core.spec.types import Trace
from model_core.tokenization.compact.layout import Field, ReasoningMode
from tests.tiny_arm_data import INSTRUCTIONS, make_samples, make_small_contract, make_small_model

CONTRACT = make_small_contract()
MODEL, LAYOUT = make_small_model(CONTRACT)
# an untrained head is nearly flat; louder logits make every argmax clear, so that rounding can't decide
with torch.no_grad():
    MODEL.lm_head.weight.mul_(20)
SAMPLES = make_samples(16, seed=3)
GRAMMAR = CompactGrammar(LAYOUT)
ONE_ROW = Numerics(tile=1, bound=0.0)


def flat_costs(*widths: int) -> CostCurve:
    """Every block costs the same: the widest window always pays."""
    return CostCurve(lambda rows, width: 1.0, widths=widths or (1, 256), most_tokens=10_000, passes=1)


def make_engine(model: MolmoAct = MODEL, **options) -> DecodingEngine:
    options.setdefault("costs", flat_costs())
    options.setdefault("numerics", Numerics(tile=4, bound=0.0))
    return DecodingEngine(model, LAYOUT, EngineOptions(**options))


def ask(row: int, mode: ReasoningMode = ReasoningMode.FULL, **given) -> DecodeRequest:
    if mode is ReasoningMode.STEERED and "trace" not in given:
        given["trace"] = Trace(points_N2=np.array([[row, 20], [200 - row, 40]]))
    return DecodeRequest(
        images_VHW3=SAMPLES["images_NVHW3"][row],
        words_W=LAYOUT.instruction_ids(INSTRUCTIONS[row % 2]),
        proprio_bins_P=np.array([10, 80, 150, 220]) + row,
        mode=mode,
        **given,
    )


def by_state(answer: DecodeResult, mode: ReasoningMode = ReasoningMode.FULL) -> dict[int, int]:
    """{state: id} of an answer."""
    state, said = LAYOUT.first_slot(mode), {}
    for token in answer.ids_L.tolist():
        said[state] = token
        state = GRAMMAR.after(state, token)
    return said


def other_id(state: int, token: int) -> int:
    """Another id that may stand there and leads to the same state; the end of a trace is left alone."""
    ids = GRAMMAR.groups[GRAMMAR.group(state)]
    if len(ids) == 1 or GRAMMAR.after(state, token) != state + 1:
        return token
    return int(ids[(np.searchsorted(ids, token) + 1) % min(len(ids), 128)])


def random_drafts(rng: np.random.Generator) -> dict[int, int]:
    """Something for most places of an answer; what may stand there and what may not."""
    first = LAYOUT.slots[Field.DEPTH].start
    states = [state for state in range(first, LAYOUT.num_slots) if rng.random() < 0.9]
    wild = rng.random() < 0.3
    return {
        state: int(rng.integers(LAYOUT.vocabulary.base_size) if wild else rng.choice(GRAMMAR.groups[GRAMMAR.group(state)]))
        for state in states
    }


def run_out(began: AnswerRound) -> dict[int, object]:
    """{key: outcome} of everything in a round."""
    found: dict[int, object] = {}
    while began.active:
        found.update(began.step())
    return found
