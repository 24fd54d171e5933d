"""Rounds: rows that join and leave between blocks, stream their parts, are given up, and never see their neighbours."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch

from model_core.engine.answer import CancelledError, DecodeResult
from model_core.engine.automaton import Stage
from model_core.engine.decode import DecodingEngine
from model_core.engine.decode_request import Drafts
from model_core.engine.resources import EngineOptions
from model_core.network.model import MolmoAct
from model_core.spec.errors import GrammarError
from model_core.spec.types import DepthTokens
from model_core.tokenization.compact.layout import Field, ReasoningMode
from tests.engine_data import GRAMMAR, LAYOUT, MODEL, ONE_ROW, ask, by_state, flat_costs, make_engine, other_id, random_drafts, run_out

MODES = [ReasoningMode.FULL, ReasoningMode.TRACE_ACTION, ReasoningMode.ACTION, ReasoningMode.STEERED]


@cache
def plain_engine() -> DecodingEngine:
    return make_engine(speculate=False)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def alone(row: int, mode: ReasoningMode = ReasoningMode.FULL, **given) -> np.ndarray:
    return plain_engine().decode([ask(row, mode, **given)]).answers[0].ids_L


# ---- neighbours


# short of bfloat16: three questions in it, by the engine that measures this machine, in test_engine_blocks
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.soak)])
def test_sixteen_sessions_say_what_each_says_alone(dtype):
    engine, rng = DecodingEngine(MODEL, LAYOUT, EngineOptions(dtype=dtype)), np.random.default_rng(0)
    plain = DecodingEngine(MODEL, LAYOUT, EngineOptions(dtype=dtype, speculate=False, numerics=engine.numerics))
    questions = [ask(row, MODES[row % 4]) for row in range(16)]
    drafts = [Drafts(ids=random_drafts(rng)) if row % 3 else None for row in range(16)]
    for question, answer in zip(questions, engine.decode(questions, drafts).answers, strict=True):
        assert np.array_equal(answer.ids_L, plain.decode([question]).answers[0].ids_L)


def test_rows_join_and_leave_midway_without_a_trace():
    rng = np.random.default_rng(1)
    began = make_engine(costs=flat_costs(1, 6)).open_round(5)
    asked, outcomes, gone = {}, {}, set()
    for step in range(400):
        if len(asked) < 14 and step % 2 == 0:
            row, mode = int(rng.integers(16)), MODES[int(rng.integers(4))]
            asked[began.join(ask(row, mode), Drafts(ids=random_drafts(rng)))] = (row, mode)
        if step in (9, 15, 22):  # somebody in the middle of it gives up
            victim = next(key for key in asked if key not in outcomes and key not in gone)
            began.leave(victim)
            gone.add(victim)
        outcomes.update(began.step())
        if len(asked) == 14 and not began.active:
            break
    assert set(outcomes) == set(asked) - gone
    assert len(gone) == 3
    for key, answer in outcomes.items():
        row, mode = asked[key]
        assert np.array_equal(answer.ids_L, alone(row, mode)), f"row {row}, {mode}"


def test_more_questions_than_places_wait_for_one():
    engine = make_engine(capacity=3)
    questions = [ask(row, ReasoningMode.TRACE_ACTION) for row in range(8)]
    began = engine.open_round(3)
    keys = [began.join(question) for question in questions]
    assert began.active == 8
    found = run_out(began)
    assert all(np.array_equal(found[key].ids_L, alone(row, ReasoningMode.TRACE_ACTION)) for row, key in enumerate(keys))


def test_leaving_twice_or_never_having_joined_is_nothing():
    began = make_engine().open_round(2)
    key = began.join(ask(0))
    began.leave(key)
    began.leave(key)
    began.leave(99)
    assert began.active == 0
    assert began.step() == []


def test_memory_is_used_again():
    engine = make_engine()
    for _ in range(3):
        engine.decode([ask(0, ReasoningMode.ACTION), ask(1, ReasoningMode.ACTION)])
    assert len(engine._free_caches) == 1


# ---- parts and cancellation


def test_parts_are_told_in_order_and_before_the_actions():
    told = []
    began = make_engine(speculate=False).open_round(1)
    began.join(ask(3), on_part=lambda field, value: told.append((field, value, began.active)))
    answer = run_out(began)[0]
    assert [(field, active) for field, _, active in told] == [("depth", 1), ("trace", 1)]
    assert np.array_equal(told[0][1].codes_G, answer.reasoning.depth.codes_G)
    assert np.array_equal(told[1][1].points_N2, answer.reasoning.trace.points_N2)


def test_a_part_that_was_given_is_not_told():
    told: list[str] = []
    own = plain_engine().decode([ask(3)]).answers[0].reasoning
    began = make_engine().open_round(2)
    began.join(ask(3, depth=own.depth), on_part=lambda field, value: told.append(field))
    began.join(ask(3, ReasoningMode.STEERED), on_part=lambda field, value: told.append(field))
    run_out(began)
    assert told == ["trace"]


def test_a_cancelled_row_ends_at_the_next_block_and_the_others_go_on():
    blocks = []
    began = make_engine(speculate=False).open_round(3)
    key = began.join(ask(0), is_cancelled=lambda: len(blocks) >= 5)
    other = began.join(ask(1, ReasoningMode.ACTION))
    waiting = began.join(ask(2), is_cancelled=lambda: True)
    found = {}
    while began.active:
        found.update(began.step())
        blocks.append(began.active)
    assert isinstance(found[key], CancelledError)
    assert isinstance(found[waiting], CancelledError)
    assert np.array_equal(found[other].ids_L, alone(1, ReasoningMode.ACTION))
    assert blocks[0] == 2
    assert blocks[5] == 1  # asked again before the sixth block


# ---- facts: given values, committed rows


@pytest.mark.parametrize("speculate", [True, False])
def test_committed_rows_stand_and_the_rest_is_said_from_them(speculate):
    bins_DA = np.array([[1, 128, 256, 7], [3, 4, 5, 6]])
    answer = make_engine(speculate=speculate).decode([ask(0, committed_DA=bins_DA), ask(1)]).answers
    assert np.array_equal(answer[0].reasoning.bins_KA[:2], bins_DA)
    first = LAYOUT.slots[Field.DEPTH].start
    depth = LAYOUT.slots[Field.TRACE].start - first
    assert np.array_equal(answer[0].ids_L[:depth], alone(0)[:depth])  # what stands before them is not touched
    assert np.array_equal(answer[0].ids_L, alone(0, committed_DA=bins_DA))
    assert np.array_equal(answer[1].ids_L, alone(1))


def test_a_fully_committed_action_costs_no_forward_of_its_own():
    bins_KA = np.full((4, 4), 9)
    answer = make_engine().decode([ask(0, ReasoningMode.ACTION, committed_DA=bins_KA)]).answers[0]
    assert np.array_equal(answer.reasoning.bins_KA, bins_KA)
    assert answer.counts["forwards"] == 0


def test_committed_rows_of_another_robot_are_refused():
    with pytest.raises(GrammarError, match="at most 4 x 4"):
        make_engine().decode([ask(0, committed_DA=np.ones((2, 7), np.int64))])


# ---- reuse of the depth string


@pytest.mark.parametrize(("wrong", "kept"), [(0, True), (8, True), (40, False)])
def test_the_last_depth_string_stands_while_the_model_agrees_with_most_of_it(wrong, kept):
    said = by_state(plain_engine().decode([ask(0)]).answers[0])
    first = LAYOUT.slots[Field.DEPTH].start
    drafts = dict(said)
    for state in range(first + 100 - wrong, first + 100):  # at the end, so that few cells are read behind a wrong one
        drafts[state] = other_id(state, said[state])
    answer = make_engine().decode([ask(0)], [Drafts(ids=drafts, reuse_depth=0.9)]).answers[0]
    codes = np.array([drafts[state] for state in range(first, first + 100)]) - LAYOUT.vocabulary.depth.start
    assert np.array_equal(answer.reasoning.depth.codes_G, codes) == (kept or wrong == 0)
    assert ("reused.depth" in answer.counts) == kept
    if not kept:
        assert np.array_equal(answer.ids_L, alone(0))


# ---- faithful and constrained


def obedient_model() -> MolmoAct:
    """The small network with a head that knows its grammar: what comes next is written into the place before it."""
    model = deepcopy(MODEL)
    slots, vocabulary = LAYOUT.slots, LAYOUT.vocabulary
    directions = {Field.DEPTH: 0, Field.TRACE: 1, Field.ACTION: 2}
    with torch.no_grad():
        head, places = model.lm_head.weight, model.model.transformer.slot_embedding
        head[:, :4] = 0.0
        places[:, :4] = 0.0
        for field, direction in directions.items():
            ids, span = vocabulary.range_of(field), slots[field]
            head[ids.start : ids.stop, direction] = 50.0
            before = slice(span.start - 1, span.stop - 1)
            places[before, direction] = 300.0
        end = vocabulary.trace_end
        head[end, 1], head[end, 3] = -50.0, 50.0  # said only where nothing else may be
        places[slots[Field.TRACE].stop - 2, 1], places[slots[Field.TRACE].stop - 2, 3] = 0.0, 300.0
        places[slots[Field.TRACE].stop - 1] = 0.0
        places[slots[Field.TRACE].stop - 1, 2] = 300.0
        places[slots[Field.MODE].start, 0] = 300.0
    return model


def test_faithful_says_the_same_where_the_model_keeps_to_the_grammar():
    model, rng = obedient_model(), np.random.default_rng(0)
    questions = [ask(row) for row in range(4)]
    drafts = [Drafts(ids=random_drafts(rng)) for _ in questions]
    constrained = make_engine(model, speculate=False).decode(questions).answers
    plain = make_engine(model, constrained=False, speculate=False).decode(questions).answers
    drafted = make_engine(model, constrained=False).decode(questions, drafts).answers
    for one, two, three in zip(constrained, plain, drafted, strict=True):
        assert np.array_equal(one.ids_L, two.ids_L)
        assert np.array_equal(one.ids_L, three.ids_L)
    assert len({tuple(answer.ids_L) for answer in constrained}) > 1  # it still looks
    # text without an alternative is asked for in faithful decoding, and is only a guess there
    assert constrained[0].counts["forwards"] == plain[0].counts["forwards"] - 1


def test_faithful_ends_an_answer_outside_the_grammar_and_constrained_can_always_be_read():
    began = make_engine(constrained=False).open_round(2)
    key = began.join(ask(0))
    outcome = run_out(began)[key]
    assert isinstance(outcome, GrammarError)
    assert "not in its language" in str(outcome)
    assert isinstance(run_out_one(make_engine(), 0), DecodeResult)


def run_out_one(engine: DecodingEngine, row: int) -> object:
    began = engine.open_round(1)
    key = began.join(ask(row))
    return run_out(began)[key]


def test_an_edited_grid_is_read_in_one_forward_with_the_prompt():
    edited = DepthTokens(codes_G=np.arange(100) % 128)
    answer = make_engine(speculate=False, numerics=ONE_ROW).decode([ask(0, depth=edited)]).answers[0]
    trace_and_action = len(answer.ids_L) - 100
    forced = LAYOUT.slots[Field.TRACE].stop - 1 in by_state(answer)
    assert answer.counts["forwards"] == trace_and_action - forced
    assert GRAMMAR.stage(LAYOUT.slots[Field.TRACE].start) is Stage.TRACE
