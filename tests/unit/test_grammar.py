import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.spec.errors import GrammarError
from model_core.spec.types import ActionReasoning, DepthTokens, Trace
from model_core.tokenization.published.grammar import (
    Form,
    Style,
    given_prefix,
    render_answer,
    render_question,
)
from model_core.tokenization.published.parse import parse_answer
from tests import strategies

FORMS = list(Form)
SAMPLE = ActionReasoning(
    depth=DepthTokens(codes_G=np.arange(100) % 128),
    trace=Trace(points_N2=np.array([[242, 115], [140, 77]])),
    bins_KA=np.array([[128, 127, 130, 1, 256, 255, 2]]),
)


def read(text: str, form: Form = Form.FULL, dims: int = 7, length: int = 1) -> ActionReasoning:
    return parse_answer(form, text, action_dims=dims, chunk_length=length)


def test_questions_of_the_release():
    assert render_question(Form.FULL, "close the drawer.") == (
        "The task is close the drawer. What is the action that the robot should take. To figure out the action that the robot should "
        "take to close the drawer, let's think through it step by step. First, what is the depth map for this image? Second, what is the "
        "trajectory of the end effector? Based on the depth map of the image and the trajectory of the end effector, what is the action "
        "that the robot should take?"
    )
    assert "depth map for the first image" in render_question(Form.FULL, "x", views=2)
    assert render_question(Form.STEERED, "wipe", views=2) == (
        "The task is wipe. Notice that the trajectory of the end effector is annotated on the first image. Based on the trajectory "
        "annotated on the image, along with other images from different camera views as additional information, what is the action that "
        "the robot should take?"
    )


@pytest.mark.parametrize("task", ["", "  . ", "push <DEPTH_3> now", "x <im_patch>", "a Assistant: b", "<|endoftext|>"])
def test_instructions_with_tokens_of_the_language_are_refused(task):
    with pytest.raises(GrammarError):
        render_question(Form.FULL, task)


def test_answer_of_the_release_word_for_word():
    text = render_answer(Form.FULL, SAMPLE, views=2)
    assert text.startswith(" The depth map of the first image is <DEPTH_START><DEPTH_0><DEPTH_1>")
    assert (
        "<DEPTH_END>. The trajectory of the end effector in the first image is [[242, 115], [140, 77]]. Based on these information, "
        in text
    )
    assert text.endswith("the action that the robot should take is [Ý¥, à¤ĳ, Ôĳ, â½Ĺ, ðŁİĳ, ðŁİ¿, âºŁ].")


@settings(max_examples=30, deadline=None)
@given(strategies.reasonings(chunk_length=8, action_dims=7), st.sampled_from(FORMS), st.sampled_from([1, 2]), st.sampled_from(list(Style)))
def test_render_and_parse_are_inverse(reasoning, form, views, style):
    text = render_answer(form, reasoning, views=views, style=style)
    again = read(text, form, length=8)
    if form in (Form.FULL, Form.STEERED):
        assert np.array_equal(again.bins_KA, reasoning.bins_KA)
    if form in (Form.FULL, Form.DEPTH):
        assert np.array_equal(again.depth.codes_G, reasoning.depth.codes_G)
    if form in (Form.FULL, Form.TRACE):
        assert np.array_equal(again.trace.points_N2, reasoning.trace.points_N2)
    assert (again.depth is None) == (form in (Form.STEERED, Form.TRACE))


def test_end_of_text_quotes_and_surrounding_space_are_fine():
    text = render_answer(Form.FULL, SAMPLE)
    quoted = text.replace("[Ý¥, à¤ĳ", "['Ý¥', \"à¤ĳ\"")
    for variant in (text.strip(), text + "<|endoftext|>", quoted, text + "\n"):
        assert np.array_equal(read(variant).bins_KA, SAMPLE.bins_KA)


FULL = render_answer(Form.FULL, SAMPLE)
BROKEN = {
    "a foreign symbol": FULL.replace("Ý¥", "QQ"),
    "an ascii number": FULL.replace("Ý¥", "0.5"),
    "an empty symbol": FULL.replace("Ý¥", ""),
    "a value too few": FULL.replace("Ý¥, ", ""),
    "a value too many": FULL.replace("Ý¥, ", "Ý¥, Ý¥, "),
    "99 depth tokens": FULL.replace("<DEPTH_7>", ""),
    "101 depth tokens": FULL.replace("<DEPTH_7>", "<DEPTH_7><DEPTH_7>"),
    "depth code 128": FULL.replace("<DEPTH_7>", "<DEPTH_128>"),
    "a negative depth code": FULL.replace("<DEPTH_7>", "<DEPTH_-7>"),
    "no end tag": FULL.replace("<DEPTH_END>", ""),
    "a coordinate of 256": FULL.replace("242", "256"),
    "a negative coordinate": FULL.replace("242", "-2"),
    "a fractional coordinate": FULL.replace("242", "24.2"),
    "six points": FULL.replace("[242, 115]", "[1, 1], [1, 1], [1, 1], [1, 1], [242, 115]"),
    "no point": FULL.replace("[[242, 115], [140, 77]]", "[]"),
    "a flat point": FULL.replace("[[242, 115], [140, 77]]", "[242, 115]"),
    "a point of three": FULL.replace("[242, 115]", "[242, 115, 3]"),
    "no trace": FULL.replace(" The trajectory of the end effector is [[242, 115], [140, 77]].", ""),
    "cut in the action": FULL[:-12],
    "no final period": FULL[:-1],
    "text after it": FULL + " Thank you.",
    "two answers": FULL + FULL,
    "an empty text": "",
    "another language": "Das Tiefenbild ist unbekannt.",
    "steered answer": render_answer(Form.STEERED, SAMPLE),
    "a chunk for a step": render_answer(
        Form.FULL, ActionReasoning(depth=SAMPLE.depth, trace=SAMPLE.trace, bins_KA=np.tile(SAMPLE.bins_KA, (2, 1)))
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_malformed_answers_raise_with_place_expected_and_got(name):
    with pytest.raises(GrammarError, match=r"expected .* got ") as caught:
        read(BROKEN[name])
    start, stop = caught.value.span
    assert 0 <= start <= stop <= len(BROKEN[name])


def test_two_arms_that_differ_are_refused():
    text = render_answer(Form.FULL, SAMPLE, style=Style.FINETUNED)
    assert np.array_equal(read(text).trace.points_N2, SAMPLE.trace.points_N2)
    where = text.rindex("242")
    with pytest.raises(GrammarError, match="one-armed"):
        read(text[:where] + "241" + text[where + 3 :])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_fuzzed_answers_mean_the_same_or_raise(data):
    """Cut, doubled, exchanged or foreign characters: no mutation yields an action that was not written."""
    text = FULL
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(len(text) - 1, 0)))
        kind = data.draw(st.sampled_from(["drop", "double", "foreign", "cut"]))
        if kind == "drop":
            text = text[:at] + text[at + 1 :]
        elif kind == "double":
            text = text[:at] + text[at : at + 1] + text[at:]
        elif kind == "foreign":
            text = text[:at] + data.draw(st.text(min_size=1, max_size=3)) + text[at:]
        else:
            text = text[:at]
    said, refused = attempt(text)
    if said is None:
        assert 0 <= refused[0] <= refused[1] <= len(text)
    else:
        assert canonical(render_answer(Form.FULL, said)) == canonical(text)


def attempt(text: str) -> tuple[ActionReasoning | None, tuple[int, int]]:
    try:
        return read(text), (0, 0)
    except GrammarError as error:
        return None, error.span


def canonical(text: str) -> str:
    """Without what the language leaves free: blanks, quotes, end of text."""
    return "".join(text.replace("<|endoftext|>", "").translate({ord("'"): None, ord('"'): None}).split())


def test_edit_and_continue_prefixes():
    full = render_answer(Form.FULL, SAMPLE, views=2)
    depth_only = given_prefix(Form.FULL, depth=SAMPLE.depth, views=2)
    both = given_prefix(Form.FULL, depth=SAMPLE.depth, trace=SAMPLE.trace, views=2)
    assert full.startswith(both)
    assert both.startswith(depth_only)
    assert depth_only.endswith("<DEPTH_END>.")
    assert given_prefix(Form.FULL) == ""
    for form, given_parts in (
        (Form.STEERED, {"trace": SAMPLE.trace}),
        (Form.TRACE, {"depth": SAMPLE.depth}),
        (Form.FULL, {"trace": SAMPLE.trace}),
    ):
        with pytest.raises(GrammarError):
            given_prefix(form, **given_parts)


def test_missing_parts_are_named():
    with pytest.raises(GrammarError, match="missing"):
        render_answer(Form.FULL, ActionReasoning(depth=None, trace=SAMPLE.trace, bins_KA=SAMPLE.bins_KA))
