"""Intervals against published values and their own promises."""

import math
import random

import pytest

from components.evaluation.intervals import wilson
from model_core.spec.errors import SpecError
from model_core.statistics.intervals import clopper_pearson
from model_core.statistics.intervals import newcombe as difference


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_published_values(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # the same table, method 5 (Clopper-Pearson)
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_clopper_pearson_equals_published_values(successes, trials, low, high):
    assert clopper_pearson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("a", "m", "b", "n", "low", "high"),
    [  # Newcombe (1998), Statistics in Medicine 17:873-890, table II, method 10
        (56, 70, 48, 80, 0.0524, 0.3339),
        (9, 10, 3, 10, 0.1705, 0.8090),
        (10, 10, 0, 20, 0.6791, 1.0),
        (10, 10, 0, 10, 0.6075, 1.0),
    ],
)
def test_difference_equals_published_values(a, m, b, n, low, high):
    assert difference(a, m, b, n) == pytest.approx((low, high), abs=5e-5)


def test_no_trials_mean_no_knowledge():
    assert wilson(0, 0) == clopper_pearson(0, 0) == (0.0, 1.0)
    assert difference(0, 0, 5, 5) == (-1.0, 1.0)


def test_all_and_none_mirror_each_other():
    for interval in (wilson, clopper_pearson):
        low, high = interval(20, 20)
        assert high == 1.0
        assert (1 - high, 1 - low) == pytest.approx(interval(0, 20))


def test_difference_changes_sign_when_sides_are_swapped():
    low, high = difference(17, 20, 12, 25)
    assert (-high, -low) == pytest.approx(difference(12, 25, 17, 20))


def test_wilson_covers_about_as_often_as_promised():
    rng = random.Random(3)
    hits = sum(low <= 0.8 <= high for low, high in (wilson(sum(rng.random() < 0.8 for _ in range(40)), 40) for _ in range(600)))
    assert 0.92 <= hits / 600 <= 0.98


def test_clopper_pearson_is_never_narrower_than_its_promise():
    for p in (0.05, 0.5, 0.93):
        covered = math.fsum(
            math.comb(25, k) * p**k * (1 - p) ** (25 - k) for k in range(26) if clopper_pearson(k, 25)[0] <= p <= clopper_pearson(k, 25)[1]
        )
        assert covered >= 0.95


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (1, 0)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(SpecError, match="successes"):
        wilson(successes, trials)
