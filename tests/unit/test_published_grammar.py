"""The published spelling as a state machine: it says exactly what the renderer writes, and whatever it says is read back."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.engine.automaton import REFUSED, Stage, walk
from model_core.engine.published.grammar import PublishedGrammar
from model_core.spec.errors import GrammarError
from model_core.spec.types import ActionReasoning, DepthTokens, Trace
from model_core.tokenization.published.grammar import Form, Style, render_answer
from model_core.tokenization.published.tokenizer import PromptTokenizer
from tests import strategies

# the quick start's answer about one image is the released one about several, which the other tests walk too
STYLES = [Style.RELEASED, Style.FINETUNED]
FORMS = [*((form, style) for form in Form for style in STYLES), (Form.FULL, Style.QUICK_START)]
_MADE: dict[tuple, PublishedGrammar] = {}


def grammar_of(form=Form.FULL, style=Style.RELEASED, views=1, length=8, dims=7, spelling="published") -> PublishedGrammar:
    key = (form, style, views, length, dims, spelling)
    if key not in _MADE:
        _MADE[key] = PublishedGrammar(
            PromptTokenizer.load(), form=form, style=style, views=views, chunk_length=length, action_dims=dims, spelling=spelling
        )
    return _MADE[key]


def same(one, other, form) -> None:
    if form in (Form.FULL, Form.DEPTH):
        assert np.array_equal(one.depth.codes_G, other.depth.codes_G)
    if form in (Form.FULL, Form.TRACE):
        assert np.array_equal(one.trace.points_N2, other.trace.points_N2)
    if form in (Form.FULL, Form.STEERED):
        assert np.array_equal(one.bins_KA, other.bins_KA)


@settings(max_examples=15, deadline=None)
@given(strategies.reasonings(chunk_length=8, action_dims=7), st.sampled_from(FORMS), st.sampled_from([1, 2]))
@pytest.mark.parametrize("spelling", ["published", "single"])
def test_every_rendered_answer_is_a_walk(spelling, reasoning, form_style, views):
    form, style = form_style
    grammar = grammar_of(form, style, views, spelling=spelling)
    ids = grammar.answer_ids(reasoning)
    assert grammar.state_after(ids) == grammar.done
    assert len(ids) <= grammar.max_length
    assert grammar.text_of(ids).strip() == render_answer(form, reasoning, views=views, style=style).strip()
    same(grammar.parse(ids), reasoning, form)


@pytest.mark.parametrize("spelling", ["published", "single"])
@pytest.mark.parametrize(("form", "style"), FORMS)
@pytest.mark.parametrize(("length", "dims"), [(8, 7), (1, 1)])
def test_every_walk_parses_and_is_what_the_tokenizer_writes(form, style, length, dims, spelling):
    grammar = grammar_of(form, style, 2, length, dims, spelling)
    draw = random.Random(f"{form}{style}{length}{spelling}")
    for _ in range(2):
        state, ids = grammar.start, []
        while state != grammar.done:
            ids.append(int(draw.choice(grammar.allowed(state))))
            state = grammar.after(state, ids[-1])
            assert state != REFUSED
        assert len(grammar.allowed(state)) == 0
        said = grammar.parse(ids)
        assert grammar.answer_ids(said).tolist() == ids


def test_forced_spans_are_the_prose_and_end_where_a_choice_begins():
    grammar = grammar_of()
    tokenizer = grammar.tokenizer
    opening = grammar.forced(grammar.start)
    assert tokenizer.decode(opening) == " The depth map of the image is <DEPTH_START>"
    state = grammar.state_after([*opening, *[tokenizer.special.depth_first] * 100])
    assert tokenizer.decode(grammar.forced(state)) == "<DEPTH_END>. The trajectory of the end effector is [["
    assert grammar.stage(state) is Stage.PROSE
    state = grammar.state_after(grammar.forced(state), state)
    assert grammar.stage(state) is Stage.TRACE
    assert len(grammar.allowed(state)) == 10
    state = grammar.state_after(tokenizer.encode("7, 9]]."), state)
    assert tokenizer.decode(grammar.forced(state)).startswith(" Based on these information, the action that the robot should take is")


def test_exactly_a_hundred_depth_tags():
    grammar = grammar_of()
    special = grammar.tokenizer.special
    state = grammar.state_after([*grammar.forced(grammar.start), *[special.depth_first + 5] * 99])
    assert len(grammar.allowed(state)) == 128
    assert grammar.stage(state) is Stage.DEPTH
    assert grammar.after(state, special.depth_end) == REFUSED
    with pytest.raises(GrammarError, match="one of 128 ids"):
        grammar.state_after([special.depth_end], state)
    assert grammar.allowed(grammar.after(state, special.depth_first)).tolist() == [special.depth_end]


def test_a_sixth_point_and_a_number_above_255_are_not_offered():
    grammar = grammar_of(Form.TRACE)
    encode = grammar.tokenizer.encode
    with pytest.raises(GrammarError):
        grammar.state_after(encode(" The trajectory of the end effector is [[256"))
    five = "[1, 2], [1, 2], [1, 2], [1, 2], [1, 2"
    state = grammar.state_after(encode(f" The trajectory of the end effector is [{five}"))
    closing = encode("]].")
    assert closing[0] in grammar.allowed(state)
    assert encode("],")[0] not in grammar.allowed(state)
    with pytest.raises(GrammarError, match="position"):
        grammar.state_after(encode(f" The trajectory of the end effector is [{five}], [3"))


def test_the_right_trajectory_repeats_the_left():
    grammar = grammar_of(Form.FULL, Style.FINETUNED)
    encode, first = grammar.tokenizer.encode, grammar.tokenizer.special.depth_first
    state = grammar.state_after([*grammar.forced(grammar.start), *[first] * 100])
    state = grammar.state_after(grammar.forced(state), state)
    state = grammar.state_after(encode("12, 34], [5, 6]]."), state)
    assert " The trajectory of the right end effector is [[12, 34], [5, 6]]. Based on" in grammar.tokenizer.decode(grammar.forced(state))


@pytest.mark.parametrize("spelling", ["published", "single"])
@pytest.mark.parametrize("style", STYLES)
def test_drafts_keep_their_place_behind_a_wrong_value(style, spelling):
    """A draft kept by state goes on after a value of another spelling length: what differs is one word, and no more."""
    grammar = grammar_of(style=style, spelling=spelling)
    rng = np.random.default_rng(1)
    depth, trace = DepthTokens(codes_G=rng.integers(0, 128, 100)), Trace(points_N2=np.array([[7, 200], [30, 4]]))
    bins_KA = rng.integers(1, 257, (8, 7))
    other_KA = bins_KA.copy()
    other_KA[3, 2] = bins_KA[3, 2] % 256 + 1
    draft, said = (
        walk(grammar, grammar.start, grammar.answer_ids(ActionReasoning(depth=depth, trace=trace, bins_KA=bins)).tolist())
        for bins in (bins_KA, other_KA)
    )
    wrong = [state for state, token in said.items() if draft.get(state) != token]
    assert 1 <= len(wrong) <= 6
    assert all(grammar.stage(state) is Stage.ACTION for state in wrong)


def test_echoes_name_the_same_piece_one_cell_point_or_row_before():
    grammar = grammar_of()
    depth = DepthTokens(codes_G=np.arange(100))
    said = ActionReasoning(depth=depth, trace=Trace(points_N2=np.array([[12, 34]] * 5)), bins_KA=np.full((8, 7), 77))
    ids = walk(grammar, grammar.start, grammar.answer_ids(said).tolist())
    told = {stage: [] for stage in Stage}
    for state, token in ids.items():
        echoed = grammar.echo(state)
        if echoed != REFUSED:
            told[grammar.stage(state)].append((ids[echoed], token))
    assert [first - second for first, second in told[Stage.DEPTH]] == [-1] * 99
    assert len(told[Stage.TRACE]) > 20
    assert all(first == second for stage in (Stage.TRACE, Stage.ACTION) for first, second in told[stage])
    assert not told[Stage.PROSE]


def test_token_counts_are_those_of_the_release():
    """A K=8 x 7 chunk costs 250..285 ids in the published spelling, 171 with one id a value: what a faster spelling saves."""
    rng = np.random.default_rng(0)
    bins_KA = rng.integers(1, 257, (8, 7))
    said = ActionReasoning(depth=None, trace=None, bins_KA=bins_KA)
    published = len(grammar_of(Form.STEERED).answer_ids(said))
    single = len(grammar_of(Form.STEERED, spelling="single").answer_ids(said))
    assert 245 < published - 17 < 290
    assert single < 0.75 * published
