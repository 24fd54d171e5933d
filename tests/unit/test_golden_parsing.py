"""Parts of an answer in a text: what the published parser returns for 100 texts, and what we refuse instead."""

from __future__ import annotations

import re

import numpy as np
import pytest

from model_core.spec.errors import ContractError, GrammarError
from model_core.tokenization.published.actions import PublishedStats
from model_core.tokenization.published.grammar import ACTION_SENTENCE
from model_core.tokenization.published.parts import parse_action, parse_depth, parse_trace
from tests.golden_road import document

PARSE = document("parse.json")
CASES = {case["id"]: case for case in PARSE["cases"]}
STATS = PARSE["norm_stats"]


def published(case):
    if case["function"] == "parse_action":
        return parse_action(case["text"], STATS[case["stats"]], case["unnorm_key"], published=True)
    return {"parse_depth": parse_depth, "parse_trace": parse_trace}[case["function"]](case["text"], published=True)


def sound(case):
    if case["function"] == "parse_action":
        return parse_action(case["text"], STATS[case["stats"]], case["unnorm_key"])
    return {"parse_depth": parse_depth, "parse_trace": parse_trace}[case["function"]](case["text"])


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: f"{case['id']}-{case['note']}")
def test_every_published_case(case):
    if "exception" in case:
        with pytest.raises(ValueError) as caught:
            published(case)
        assert case["exception"] in [kind.__name__ for kind in type(caught.value).__mro__]
        return
    made = published(case)
    if case["function"] == "parse_depth":
        assert made == case["result"]
        return
    assert [len(part) for part in made] == [len(part) for part in case["result"]]
    for part, expected in zip(made, case["result"], strict=True):
        np.testing.assert_allclose(np.array(part, float), np.array(expected, float), rtol=0, atol=1e-12)


# What is whole, stands once and where the published sentences place it is read; everything else is refused.
READ = {
    "parse_depth": ["000", "088", "091", "094", "097"],
    "parse_trace": ["013", "014", "015", "089", "092"],
    "parse_action": ["042", "043", "046", "047", "048", "049", "050", "085", "090", "093", "096"],
}


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: f"{case['id']}-{case['note']}")
def test_ours_reads_the_whole_ones_alike_and_refuses_the_others(case):
    if case["id"] in READ[case["function"]]:
        assert sound(case) == published(case) or np.abs(np.array(sound(case)) - np.array(published(case))).max() <= 1e-7
        return
    with pytest.raises((GrammarError, ContractError)) as caught:
        sound(case)
    if isinstance(caught.value, GrammarError):
        start, stop = caught.value.span
        assert 0 <= start <= stop <= len(case["text"])


def test_all_whole_cases_are_among_those_that_are_read():
    assert set(READ) == {case["function"] for case in CASES.values()}
    assert all(CASES[number]["result"] for numbers in READ.values() for number in numbers)


def told(case_id: str) -> str:
    with pytest.raises((GrammarError, ContractError)) as caught:
        sound(CASES[case_id])
    return str(caught.value)


STATES = " the action that the robot should take is "
GOOD = "[â¤¦, à°µ, ãĪ¼, ðŁĶ¤, ðŁĸ¶, ðĸ¥, à¬ī]"


@pytest.mark.parametrize("piece", ["zzéézz中", "<|endoftext|>", "<|im_end|>", "<DEPTH_3>", "", "à°µãĪ¼", "the", "5", "b", "ðŁįĺ"])
def test_quirk_1_a_piece_that_is_no_action_symbol_is_refused_and_never_an_extreme(piece):
    """As published: the first six become the lowest action, the last four the highest."""
    text = STATES + GOOD.replace("ãĪ¼", piece) + "."
    extreme = parse_action(text, STATS["multi"], "toy7", published=True)[0][2]
    q01, q99 = (STATS["multi"]["toy7"]["action"][name][2] for name in ("q01", "q99"))
    assert min(abs(extreme - q01), abs(extreme - q99)) < 0.01 * (q99 - q01)
    with pytest.raises(GrammarError, match=r"an action symbol|one of the 256 action symbols") as caught:
        parse_action(text, STATS["multi"], "toy7")
    assert text[slice(*caught.value.span)].startswith(piece[:1])


@pytest.mark.parametrize("key", ["nomask7", "alltrue7"])
def test_quirk_2_statistics_that_do_not_say_what_the_last_dimension_is_are_refused(key):
    with pytest.raises(ContractError, match="mask"):
        parse_action(STATES + GOOD + ".", STATS["multi"], key)
    with pytest.raises(ContractError, match="mask"):
        PublishedStats.of(STATS["multi"], key).sound()
    mixed = PublishedStats.of(STATS["multi"], "mixed7").sound()
    assert mixed.mask == (True, False, True, False, True, True, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[10, 20], [30, 40]. Based on", "', ' or ']' after a point"),
        ("[[10, 20], [30, 40], [50", "','|', '"),
        ("[23, 200].", r"'\[' of a point"),
        ("[[300, -5], [812, 127]].", "a coordinate 0..255"),
        ("[[1.5, 7]].", "a coordinate 0..255"),
        ("[[١٢, ３４]].", "a coordinate 0..255"),
        ("[[1e400, 2]].", "', '"),
        ("[[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12]].", "after 5 points"),
        ("[[1, 2, 3]].", "']' of a point"),
    ],
)
def test_quirk_5_a_trajectory_that_is_not_whole_is_refused(text, expected):
    with pytest.raises(GrammarError, match=expected):
        parse_trace("The trajectory of the end effector is " + text)


def test_quirk_5_a_pair_of_numbers_elsewhere_is_refused():
    text = CASES["038"]["text"]
    with pytest.raises(GrammarError, match="outside the trajectory") as caught:
        parse_trace(text)
    assert text[slice(*caught.value.span)] == "[3, 4]"
    with pytest.raises(GrammarError, match="does not occur"):
        parse_trace("the point is [23, 200].")
    with pytest.raises(GrammarError, match="left end effector"):
        parse_trace(CASES["039"]["text"])
    same = "The trajectory of the left end effector is [[1, 2]]. The trajectory of the right end effector is [[1, 2]]."
    assert parse_trace(same) == [[(1.0, 2.0)]]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("004", "only 99 came"),
        ("005", "after 100 depth tokens"),
        ("006", "a depth code 0..127"),
        ("008", "START.*once, it occurs 2"),
        ("001", "occurs 0"),
    ],
)
def test_quirk_6_a_depth_map_is_marked_once_and_has_a_hundred_codes(case, expected):
    assert re.search(expected, told(case))


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("077", "7 values an action, there are 6"),
        ("076", "an action symbol|','"),
        ("078", "another"),
    ],
)
def test_quirk_7_a_row_is_never_left_out(case, expected):
    assert re.search(expected, told(case))


@pytest.mark.parametrize("case", ["064", "071"])
def test_quirk_7_a_trailing_comma_and_doubled_quotes_are_refused(case):
    with pytest.raises(GrammarError, match="an action symbol"):
        parse_action(f"{STATES}{CASES[case]['text']}.", STATS["multi"], "toy7")


def test_quirk_7_a_chunk_has_as_many_steps_as_were_asked_for():
    text = CASES["048"]["text"]
    assert len(parse_action(text, STATS["multi"], "toy7", chunk_length=3)) == 3
    with pytest.raises(GrammarError, match="8 actions, there are 3"):
        parse_action(text, STATS["multi"], "toy7", chunk_length=8)
    with pytest.raises(GrammarError, match="occurs 2 times"):
        parse_action(text + " " + ACTION_SENTENCE, STATS["multi"], "toy7")
