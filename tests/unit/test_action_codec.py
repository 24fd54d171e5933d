import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.spec.errors import GrammarError, SpecError
from model_core.spec.stats import UnnormStats
from model_core.tokenization.action_codec import (
    ActionCodec,
    bin_of_symbol,
    bins_of,
    published_symbols,
    symbols_of,
    values_of,
)
from tests import strategies

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen_tokenizer_golden.json"


def test_symbols_agree_with_the_tokenizer_table():
    surface = json.loads(GOLDEN.read_text(encoding="utf-8"))["last_257_surface"]
    assert [surface[str(151643 - d)] for d in range(1, 257)] == list(published_symbols())
    assert published_symbols()[127] == "Ý¥"
    assert published_symbols()[255] == "ðŁİĳ"


def test_edges_and_centres_of_the_release():
    assert bins_of(np.array([-1.0, 1.0, 0.0, -7.0, 7.0])).tolist() == [1, 256, 128, 1, 256]
    assert values_of(np.array([128]))[0] == 0.0
    assert values_of(np.array([255]))[0] == values_of(np.array([256]))[0] == pytest.approx(0.99608, abs=1e-5)
    assert values_of(np.array([1]))[0] == pytest.approx(-0.99608, abs=1e-5)


@pytest.mark.parametrize("bad", [[0], [257], [-1]])
def test_no_bin_outside_is_ever_clipped(bad):
    with pytest.raises(SpecError, match=r"1\.\.256"):
        values_of(np.array(bad))
    with pytest.raises(SpecError):
        symbols_of(np.array([bad]))


def test_nan_is_refused():
    codec = ActionCodec(stats=UnnormStats(q01=(0.0,), q99=(1.0,), mask=(True,)))
    with pytest.raises(SpecError, match="NaN"):
        codec.encode(np.array([[np.nan]]))
    with pytest.raises(SpecError):
        codec.encode(np.zeros((3, 2)))


def test_what_was_said_is_recalled_in_the_bins_that_it_was_said_with():
    codec = ActionCodec(stats=UnnormStats(q01=(-3.0, 0.0), q99=(5.0, 1.0), mask=(True, False)))
    said_KA = np.array([[256, 255], [255, 256], [1, 128], [254, 2]])
    rows_KA = codec.decode(said_KA)
    assert np.array_equal(codec.recall(rows_KA, said_KA), said_KA)
    assert np.array_equal(codec.recall(rows_KA, said_KA[:1]), [[256, 255], [256, 256], [1, 128], [254, 2]])
    assert np.array_equal(codec.recall(rows_KA), np.where(said_KA == 255, 256, said_KA))
    assert np.array_equal(codec.recall(rows_KA[2:], said_KA), said_KA[2:])  # what was said elsewhere is not believed
    assert np.array_equal(codec.recall(rows_KA, np.empty((0, 2), np.int64)), codec.recall(rows_KA))


@given(st.integers(1, 255))
def test_bins_are_stable(action_bin):
    assert bins_of(values_of(np.array([action_bin])))[0] == action_bin


@settings(max_examples=50)
@given(strategies.unnorm_stats(), st.lists(strategies.unit_floats, min_size=4, max_size=4))
def test_encode_decode_within_half_a_bin(stats, normalized):
    codec = ActionCodec(stats=stats)
    actions = stats.unnormalize(np.array([normalized]))
    error = np.abs(codec.decode(codec.encode(actions)) - actions)
    half_bin = np.where(stats.mask, (np.array(stats.q99) - stats.q01) / 2, 1.0) / 255
    assert (error <= half_bin * 1.001 + 1e-6).all()


def test_symbols_and_bins_are_inverse_over_all_bins():
    bins = np.arange(1, 257).reshape(64, 4)
    assert [[bin_of_symbol(symbol) for symbol in row] for row in symbols_of(bins)] == bins.tolist()


@given(st.text(max_size=5))
def test_foreign_symbols_raise(symbol):
    if symbol not in published_symbols():
        with pytest.raises(GrammarError, match="one of the 256 action symbols"):
            bin_of_symbol(symbol)


@pytest.mark.parametrize("bins", [np.ones((0, 4), int), np.ones(4, int), np.ones((2, 2, 2), int)])
def test_what_is_no_chunk_has_no_symbols(bins):
    with pytest.raises(SpecError, match=r"\(K, A\)"):
        symbols_of(bins)
