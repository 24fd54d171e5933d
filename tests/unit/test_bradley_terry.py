"""Bradley-Terry strengths: known cases by hand, known strengths recovered, order of players, and what has no estimate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model_core.spec.errors import SpecError
from model_core.statistics.bradley_terry import elo_ratings, has_finite_maximum, log_strengths, outcomes_of_scores, strengths_with_intervals


def test_two_players_by_hand() -> None:
    found = log_strengths([[0, 30], [10, 0]])
    assert found == pytest.approx([math.log(3) / 2, -math.log(3) / 2], abs=1e-10)
    ratings = elo_ratings(found)
    assert ratings[0] - ratings[1] == pytest.approx(400 * math.log10(3))
    assert ratings.mean() == pytest.approx(1000)


def test_three_players_by_hand() -> None:
    # A and B: 1 to 1, B and C: 1 to 1, A and C: 2 to 0. B is 1, A is t and C is 1/t by symmetry; A's wins are expected where
    # 2t/(t+1) + 2t^2/(t^2+1) = 3, that is t^3 - t^2 - t - 3 = 0
    found = np.exp(log_strengths([[0, 1, 2], [1, 0, 1], [0, 1, 0]]))
    t = found[0] / found[1]
    assert t**3 - t**2 - t - 3 == pytest.approx(0, abs=1e-8)
    assert found[1] / found[2] == pytest.approx(t)


strengths_of_players = st.integers(2, 6).flatmap(lambda n: hnp.arrays(np.float64, n, elements=st.floats(-3, 3)))


@given(truth=strengths_of_players, data=st.data())
@settings(max_examples=40, deadline=None)
def test_known_strengths_are_recovered_whatever_the_order(truth: np.ndarray, data: st.DataObject) -> None:
    expected = 50 / (1 + np.exp(truth[None, :] - truth[:, None]))
    found = log_strengths(expected)
    assert found == pytest.approx(truth - truth.mean(), abs=1e-7)
    order = np.array(data.draw(st.permutations(range(len(truth)))))
    assert log_strengths(expected[np.ix_(order, order)]) == pytest.approx(found[order], abs=1e-8)


@given(counts=hnp.arrays(np.int64, (4, 4), elements=st.integers(0, 30)))
@settings(max_examples=60, deadline=None)
def test_at_the_maximum_every_player_wins_as_often_as_expected(counts: np.ndarray) -> None:
    np.fill_diagonal(counts, 0)
    if not has_finite_maximum(counts):
        with pytest.raises(SpecError, match=r"never (lost to|compared with)"):
            log_strengths(counts)
        return
    s = log_strengths(counts)
    chances = 1 / (1 + np.exp(s[None, :] - s[:, None]))
    assert ((counts + counts.T) * chances * (1 - np.eye(4))).sum(axis=1) == pytest.approx(counts.sum(axis=1), abs=1e-6)


def test_many_at_once_are_as_each_alone() -> None:
    wins = np.random.default_rng(1).integers(1, 20, size=(5, 3, 3))
    assert log_strengths(wins) == pytest.approx(np.array([log_strengths(one) for one in wins]), abs=1e-9)


def test_players_who_never_met_and_players_who_never_lost_are_told() -> None:
    with pytest.raises(SpecError, match=r"players \[2, 3\] were never compared with player 0.*Fix: compare them in common cases"):
        log_strengths([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    with pytest.raises(SpecError, match=r"never lost to the others"):
        log_strengths([[0, 3, 3], [0, 0, 1], [0, 1, 0]])
    with pytest.raises(SpecError, match=r"square matrix"):
        log_strengths([[0, 1]])


def test_outcomes_count_ties_as_halves_and_no_trial_as_nothing() -> None:
    assert outcomes_of_scores([[1.0, 0.0, math.nan], [0.5, 0.5, 1.0]]).tolist() == [
        [[0, 1, 0], [0, 0, 0], [0, 0, 0]],
        [[0, 0.5, 0], [0.5, 0, 0], [1, 1, 0]],
    ]


def test_intervals_cover_about_as_often_as_they_say() -> None:
    rng, rates, tasks = np.random.default_rng(7), np.array([0.3, 0.5, 0.7]), ["easy"] * 60 + ["hard"] * 60
    shift = np.array([0.15] * 60 + [-0.15] * 60)[:, None]
    # with independent successes, the share of i against j is known, and so is what the strengths settle at
    chances = np.array([[rates[0] + d, rates[1] + d, rates[2] + d] for d in (0.15, -0.15)])
    share = np.mean(
        [p[:, None] * (1 - p[None, :]) + 0.5 * (p[:, None] * p[None, :] + (1 - p[:, None]) * (1 - p[None, :])) for p in chances], 0
    )
    truth, covered = log_strengths(share), 0
    for number in range(60):
        outcomes = outcomes_of_scores(rng.random((120, 3)) < rates + shift)
        found = strengths_with_intervals(outcomes, tasks, resamples=200, seed=number)
        covered += int(np.sum((found.low <= truth) & (truth <= found.high)))
    assert 0.90 <= covered / 180 <= 0.99


def test_intervals_repeat_with_their_seed() -> None:
    outcomes = outcomes_of_scores(np.random.default_rng(1).random((40, 3)) < 0.5)
    found, again, other = (strengths_with_intervals(outcomes, ["t"] * 40, resamples=100, seed=seed) for seed in (4, 4, 5))
    assert np.array_equal(again.low, found.low)
    assert not np.array_equal(other.low, found.low)
    assert found.added_ties == 0


def test_one_who_never_lost_gets_a_finite_strength_from_one_added_tie() -> None:
    outcomes = outcomes_of_scores([[1.0, 0.0]] * 19)
    found = strengths_with_intervals(outcomes, ["t"] * 19, resamples=100)
    assert found.added_ties == 1
    assert found.log_strengths == pytest.approx([math.log(39) / 2, -math.log(39) / 2])  # 19.5 wins to 0.5
