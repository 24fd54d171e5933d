"""Rows of many episodes are measured at once: each episode's numbers are those that it has alone, and those of the plain formulas."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.inspection.checks.numbers import changes
from components.data.inspection.measurements import statistics
from components.data.inspection.measurements.episode import measure_rows
from components.data.inspection.measurements.median import median
from components.data.inspection.measurements.raw_episode import RawEpisode
from components.data.inspection.measurements.rows import block, coupling
from components.data.inspection.measurements.rows.numbers import measure_vector
from components.data.lerobot import layout
from model_core.spec.documents import to_document
from tests.plain_measurements import plain_coupling, plain_numbers


def raw(number: int, length: int, width: int = 3, *, damage: bool = False) -> RawEpisode:
    """An arm whose state follows its action by two frames; a gripper that closes once."""
    rng = np.random.default_rng([7, number, length])
    path = np.cumsum(rng.normal(size=(length + 2, width)), axis=0)
    path[:, -1] = np.arange(length + 2) > length // 2
    state, action = path[:-2].copy(), path[2:] + rng.normal(0, 0.01, (length, width))
    if damage and length > 8:
        state[3, 0], action[5, 1], state[:, 1] = np.nan, np.inf, 1.0
    times = np.arange(length) / 10 + (rng.uniform(0, 1e-3, length) if number % 2 else 0.0)
    vectors = {layout.STATE: state, layout.ACTION: action}
    return RawEpisode(episode_id=f"e{number}", number=number, fps=10.0, times_T=times, stamps_T=np.arange(length) / 10, vectors=vectors)


EPISODES = [raw(number, length, damage=number == 4) for number, length in enumerate((40, 1, 2, 61, 33, 7, 4, 90, 3))]


def near(one: Any, other: Any, where: str = "") -> None:
    """Equal, numbers to the last digits: sums of one episode may be added in another order."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            near(one[name], other[name], f"{where}.{name}")
    else:
        assert np.array_equal(one, other) or np.allclose(one, other, rtol=1e-9, atol=1e-12), (where, one, other)


def test_an_episode_has_the_numbers_that_it_has_alone(monkeypatch):
    together = list(measure_rows(EPISODES))
    assert [one.episode_id for one in together] == [one.episode_id for one in EPISODES]
    alone = [next(measure_rows([one])) for one in EPISODES]
    monkeypatch.setattr(block, "MOST_NUMBERS", 150)
    in_blocks = list(measure_rows([*EPISODES[:4], raw(9, 20, width=5), *EPISODES[4:]]))  # another width ends a block too
    for one, other in zip(together + [found for found in in_blocks if found.number != 9], alone * 2, strict=True):
        near(to_document(one), to_document(other), one.episode_id)


def test_the_numbers_are_those_of_the_plain_formulas():
    columns = [one.vectors[layout.STATE] for one in EPISODES]
    turns = np.linspace(0, 900, 50)[:, None] % 360 - 180
    for values in [*columns, turns, np.round(columns[0] * 4) / 4, np.full((9, 2), np.nan)]:
        found, plain = measure_vector(values), plain_numbers(values)
        for name, expected in plain.items():
            assert np.allclose(getattr(found, name), expected, rtol=1e-12, atol=1e-12), (name, getattr(found, name), expected)


@pytest.mark.parametrize("multiplications", [coupling.ONE_THREAD, 2000, 1])
@pytest.mark.parametrize("number", [0, 3, 5, 7])
def test_the_state_follows_as_the_plain_formulas_say(number, multiplications, monkeypatch):
    monkeypatch.setattr(coupling, "ONE_THREAD", multiplications)  # few: the rows are multiplied in parts
    one = EPISODES[number]
    ahead_state, ahead_action = (np.diff(one.vectors[name], axis=0) for name in (layout.STATE, layout.ACTION))
    measured = next(measure_rows([one])).time
    for found, first in ((measured.position, ahead_action), (measured.change, one.vectors[layout.ACTION][:-1])):
        lag, peak, at_zero, peaks = plain_coupling(first, ahead_state)
        assert (found.lag, found.peak, found.at_zero) == (lag, pytest.approx(peak), pytest.approx(at_zero))
        assert np.allclose(found.peak_D, peaks)
    assert number == 5 or measured.position.lag == 2


def test_an_episode_without_a_row_is_refused():
    empty = RawEpisode(episode_id="none", number=0, fps=10.0, times_T=np.zeros(0), stamps_T=np.zeros(0), vectors={})
    with pytest.raises(ValueError, match=r"none has no row.*Fix: leave it out"):
        list(measure_rows([empty]))


_TABLES = arrays.arrays(
    np.float64, arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=9), elements=st.floats(-1e9, 1e9) | st.just(np.nan)
)


@given(values=_TABLES)
def test_the_median_is_numpys(values):
    for axis in range(values.ndim):
        found, expected = median(values, axis=axis), np.median(values, axis=axis)
        assert np.array_equal(found, expected, equal_nan=True)
        assert np.shape(found) == np.shape(expected)
    assert np.isnan(median([]))


_PLACES = arrays.arrays(
    np.float64, st.tuples(st.just(3), st.integers(6, 9), st.just(2)), elements=st.integers(0, 3).map(float) | st.just(np.nan)
)


@given(places=_PLACES, jump=st.integers(0, 6), by=st.sampled_from([0.0, 5.0, -5.0]))
def test_no_place_where_a_part_may_begin_is_left_out(places, jump, by):
    places[:, jump:, 0] += by
    count = places.shape[1]
    firsts = range(changes.LEAST, count - changes.LEAST + 1)
    moved = [first for first in firsts if changes._moved_as_a_whole(places, first, np.full(2, 1e-9), 0.2).any()]
    may = changes._apart(places)
    assert set(moved) <= set(may) <= set(firsts)
    if by == 5.0 and not np.isnan(places).any() and changes.LEAST <= jump <= count - changes.LEAST:
        assert jump in may


def test_statistics_of_episodes_are_those_of_each_alone():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(40, 3)) * [1, 1e3, 1e-3]
    values[7, 1] = np.nan
    parts = [np.arange(0, 5), np.arange(20, 40), np.array([6, 9, 7])]
    found = statistics._of_parts(values, parts)
    for name in ("min", "max", "mean", "std"):
        alone = np.stack([getattr(values[part], name)(axis=0) for part in parts])
        assert np.allclose(found[name], alone, rtol=1e-12, atol=1e-15, equal_nan=True), name


@pytest.mark.parametrize("width", [1, 2])
def test_what_episodes_state_may_have_any_form(width):
    same = [[float(n)] * width for n in range(3)]
    assert np.array_equal(statistics._stacked(same, width), same)
    odd = [[1.0] * width, None, [1.0] * (width + 1), [[2.0]] * width, "text", []]
    expected = np.full((6, width), np.nan)
    expected[0], expected[3] = 1.0, 2.0
    assert np.array_equal(statistics._stacked(odd, width), expected, equal_nan=True)


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.bool_])
def test_exact_statistics_are_the_plain_ones_and_leave_the_rows_as_they_are(kind):
    values = (np.random.default_rng(4).normal(size=(101, 1)) * 5).astype(kind)
    before, found, plain = values.copy(), statistics.exact_statistics(values), statistics.vector_statistics(values)
    assert np.array_equal(values, before)
    assert {name: found[name].tolist() for name in ("min", "max")} == {name: list(plain[name]) for name in ("min", "max")}
    for name in found:
        assert np.allclose(found[name], plain[name], rtol=1e-12, atol=1e-12), name
