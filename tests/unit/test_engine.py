"""The decoding engine says what the model's own teacher-forced argmax says, row by row, and never leaves the grammar."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from model_core.engine.answer import NotFiniteError
from model_core.engine.automaton import REFUSED, CompactGrammar, forced_id
from model_core.engine.decode import Decoded, DecodingEngine
from model_core.engine.decode_request import DecodeRequest
from model_core.engine.resources import EngineOptions
from model_core.engine.rounds.round import AnswerRound
from model_core.spec.errors import GrammarError, SpecError
from model_core.spec.types import DepthTokens, Trace
from model_core.tokenization.compact.layout import Field, ReasoningMode
from model_core.training import hidden_states
from tests.tiny_arm_data import INSTRUCTIONS, make_samples, make_small_contract, make_small_model

CONTRACT = make_small_contract()
MODEL, LAYOUT = make_small_model(CONTRACT)
# an untrained head is nearly flat; louder logits make every argmax clear, so that rounding can't decide
with torch.no_grad():
    MODEL.lm_head.weight.mul_(20)
SAMPLES = make_samples(6, seed=3)


@cache
def the_engine() -> DecodingEngine:
    return DecodingEngine(MODEL, LAYOUT)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def ask(row: int, mode: ReasoningMode = ReasoningMode.FULL, **given) -> DecodeRequest:
    return DecodeRequest(
        images_VHW3=SAMPLES["images_NVHW3"][row],
        words_W=LAYOUT.instruction_ids(INSTRUCTIONS[row % 2]),
        proprio_bins_P=np.array([10, 80, 150, 220]) + row,
        mode=mode,
        **given,
    )


def slots_of(ids_L: np.ndarray, mode: ReasoningMode) -> np.ndarray:
    slots = [LAYOUT.first_slot(mode)]
    for token in ids_L[:-1]:
        slots.append(int(LAYOUT.next_slots(np.array(slots[-1:]), np.array([token]))[0]))
    return np.array(slots)


@pytest.mark.parametrize("mode", [ReasoningMode.FULL, ReasoningMode.TRACE_ACTION, ReasoningMode.ACTION])
def test_cached_decode_equals_teacher_forced_argmax(mode):
    question = ask(0, mode)
    ids_L = the_engine().decode([question]).answers[0].ids_L
    prompt = LAYOUT.prompts(question.words_W[None], question.proprio_bins_P[None], mode)[0]
    slots = slots_of(ids_L, mode)
    row = torch.from_numpy(np.concatenate([prompt, ids_L]))[None]
    places = torch.from_numpy(np.concatenate([np.arange(len(prompt)), slots]))[None]
    with torch.inference_mode():
        hidden = hidden_states(MODEL, torch.from_numpy(question.images_VHW3[None]), row[:, :-1], places[:, :-1], LAYOUT)
        logits = MODEL.logits(hidden)[0, len(prompt) - 1 :].numpy()
    for position, (slot, token) in enumerate(zip(slots, ids_L, strict=True)):
        allowed = LAYOUT.allowed(int(slot))
        assert allowed.start + int(logits[position, allowed.start : allowed.stop].argmax()) == token, f"position {position}"


def test_a_row_does_not_depend_on_its_neighbours():
    modes = [ReasoningMode.FULL, ReasoningMode.TRACE_ACTION, ReasoningMode.ACTION, ReasoningMode.FULL]
    together = the_engine().decode([ask(row, mode) for row, mode in enumerate(modes)]).answers
    for row, mode in enumerate(modes):
        alone = the_engine().decode([ask(row, mode)]).answers[0].ids_L
        assert np.array_equal(together[row].ids_L, alone)


def test_answers_differ_with_the_picture():
    first, second = (the_engine().decode([ask(row)]).answers[0] for row in (0, 2))
    assert not np.array_equal(first.ids_L, second.ids_L)


def test_grammar_stays_in_the_language_whatever_is_chosen():
    grammar, rng = CompactGrammar(LAYOUT), np.random.default_rng(0)
    for mode in (ReasoningMode.FULL, ReasoningMode.TRACE_ACTION, ReasoningMode.ACTION) * 10:
        state, said = LAYOUT.first_slot(mode), []
        while state != grammar.done:
            said.append(int(rng.choice(grammar.groups[grammar.group(state)])))
            state = grammar.after(state, said[-1])
        assert LAYOUT.parse(np.array(said), mode).bins_KA.shape == (4, 4)  # parse refuses anything else


def test_end_of_trace_leads_to_the_action():
    grammar, trace = CompactGrammar(LAYOUT), LAYOUT.slots[Field.TRACE]
    end, start = LAYOUT.vocabulary.trace_end, LAYOUT.vocabulary.trace.start
    assert grammar.after(trace.start + 2, end) == LAYOUT.slots[Field.ACTION].start
    assert grammar.after(trace.start + 1, end) == REFUSED  # a point has two coordinates
    assert grammar.after(trace.start + 3, start) == trace.start + 4
    assert grammar.after(LAYOUT.num_slots - 1, LAYOUT.vocabulary.action.start) == grammar.done
    assert forced_id(grammar, trace.stop - 1) == end
    assert forced_id(grammar, trace.start) == REFUSED


def test_a_given_trace_is_kept_and_steers():
    traces = [Trace(points_N2=np.array([[10, 20], [30, 40]])), Trace(points_N2=np.array([[200, 180], [90, 90], [1, 2]]))]
    answers = the_engine().decode([ask(0, ReasoningMode.STEERED, trace=trace) for trace in traces]).answers
    for trace, answer in zip(traces, answers, strict=True):
        assert answer.reasoning.trace is not None
        assert np.array_equal(answer.reasoning.trace.points_N2, trace.points_N2)
        alone = the_engine().decode([ask(0, ReasoningMode.STEERED, trace=trace)]).answers[0]
        assert np.array_equal(alone.reasoning.bins_KA, answer.reasoning.bins_KA)
    assert not np.array_equal(answers[0].reasoning.bins_KA, answers[1].reasoning.bins_KA)


def test_edit_depth_and_continue():
    own = the_engine().decode([ask(0)]).answers[0].reasoning
    assert own.depth is not None
    same = the_engine().decode([ask(0, depth=own.depth)]).answers[0].reasoning
    assert np.array_equal(same.bins_KA, own.bins_KA)
    edited = DepthTokens(codes_G=(own.depth.codes_G + 37) % 128)
    changed = the_engine().decode([ask(0, depth=edited), ask(1)]).answers
    assert np.array_equal(changed[0].reasoning.depth.codes_G, edited.codes_G)
    assert not np.array_equal(changed[0].reasoning.trace.points_N2[0], own.trace.points_N2[0]) or not np.array_equal(
        changed[0].reasoning.bins_KA, own.bins_KA
    )
    assert np.array_equal(changed[1].ids_L, the_engine().decode([ask(1)]).answers[0].ids_L)


def test_own_trace_given_back_gives_the_same_actions():
    own = the_engine().decode([ask(4)]).answers[0].reasoning
    again = the_engine().decode([ask(4, depth=own.depth, trace=own.trace)]).answers[0].reasoning
    assert np.array_equal(again.bins_KA, own.bins_KA)


def test_what_a_mode_does_not_take_is_refused():
    with pytest.raises(GrammarError, match="steered needs the trace"):
        the_engine().decode([ask(0, ReasoningMode.STEERED)])
    with pytest.raises(GrammarError, match="has no depth"):
        the_engine().decode([ask(0, ReasoningMode.ACTION, depth=DepthTokens(codes_G=np.zeros(100, np.int64)))])
    with pytest.raises(SpecError, match="nothing to decode"):
        the_engine().decode([])


def test_timing_names_every_stage():
    decoded: Decoded = the_engine().decode([ask(0)])
    assert set(decoded.timing_ms) == {"vision", "prefill", "depth", "trace", "action"}
    assert min(decoded.timing_ms[stage] for stage in ("vision", "prefill")) > 0
    assert "depth" not in the_engine().decode([ask(0, ReasoningMode.TRACE_ACTION)]).timing_ms


def test_bfloat16_answers_are_in_the_grammar():
    answers = DecodingEngine(MODEL, LAYOUT, EngineOptions(dtype=torch.bfloat16)).decode([ask(0), ask(1)]).answers
    assert all(answer.reasoning.depth is not None for answer in answers)


def test_nan_is_an_error_of_its_row_and_leaves_nothing_behind():
    model, layout = make_small_model(CONTRACT, seed=1)
    engine = DecodingEngine(model, layout)
    expected = engine.decode([ask(1)]).answers[0].ids_L
    began = engine.open_round(2)
    broken, fine = ask(0), ask(1)
    poisoned = engine.language.prompt(broken)
    keys = began.join(broken), began.join(fine)
    began._waiting[0][1].prompt = replace(poisoned, images=torch.full(poisoned.images.shape, torch.nan))
    outcomes = dict(run_out(began))
    assert isinstance(outcomes[keys[0]], NotFiniteError)
    assert np.array_equal(outcomes[keys[1]].ids_L, expected)
    began.join(fine)
    began.join(fine)
    assert all(np.array_equal(answer.ids_L, expected) for _, answer in run_out(began))
    with torch.no_grad():
        model.lm_head.weight[LAYOUT.vocabulary.depth.start + 5] = torch.nan
    with pytest.raises(NotFiniteError):
        DecodingEngine(model, layout).decode([ask(0)])


def run_out(began: AnswerRound) -> list[tuple[int, object]]:
    found = []
    while began.active:
        found += began.step()
    return found
