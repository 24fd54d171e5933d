"""Exact bounds and intervals of the model core against scipy (2 s to import: only where used), published values and their own promises."""

import math

import numpy as np
import pytest

from components.evaluation.intervals import wilson as reported
from model_core.spec.errors import SpecError
from model_core.statistics.betting import log_evidence_of_rate
from model_core.statistics.binomial import lower_bound, upper_bound, upper_tail
from model_core.statistics.intervals import PairCounts, clopper_pearson, mcnemar, newcombe, tango, tango_score, wilson
from model_core.statistics.multiplicity import adjusted_e_values, holm
from model_core.statistics.safety import exceeds_at_any_look, safety_finding, trials_without_event


def tables(count, most, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        n = int(rng.integers(1, most))
        yield int(rng.integers(0, n + 1)), n


def test_rates_have_the_intervals_that_scipy_computes():
    from scipy.stats import binomtest

    for k, n in [(0, 1), (1, 1), (0, 20), (20, 20), *tables(20, 300)]:
        for confidence in (0.8, 0.95, 0.99):
            for ours, method in ((clopper_pearson, "exact"), (wilson, "wilson")):
                theirs = binomtest(k, n).proportion_ci(confidence, method)
                assert ours(k, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert clopper_pearson(0, 0) == wilson(0, 0) == (0.0, 1.0)


def test_tails_are_those_of_scipy():
    from scipy.stats import binom

    for k, n in tables(60, 400, seed=1):
        for rate in (0.0, 0.03, 0.5, 0.97, 1.0):
            assert upper_tail(k, n, rate) == pytest.approx(binom.sf(k - 1, n, rate), rel=1e-9, abs=1e-13)


def test_a_bound_is_where_the_tail_has_its_probability_and_mirrors():
    for k, n in tables(40, 200, seed=2):
        assert lower_bound(k, n, 0.95) == pytest.approx(1.0 - upper_bound(n - k, n, 0.95), abs=1e-12)
        if k:
            assert upper_tail(k, n, lower_bound(k, n, 0.95)) == pytest.approx(0.05, abs=1e-10)


def test_newcombe_is_of_the_intervals_of_reports():
    for (a, m), (b, n) in zip(tables(30, 80, seed=3), tables(30, 80, seed=4), strict=True):
        (low_a, high_a), (low_b, high_b) = reported(a, m), reported(b, n)
        below, above = math.hypot(a / m - low_a, high_b - b / n), math.hypot(high_a - a / m, b / n - low_b)
        assert newcombe(a, m, b, n) == pytest.approx((a / m - b / n - below, a / m - b / n + above), abs=1e-9)


def test_tango_bounds_are_where_its_score_is_the_quantile():
    rng = np.random.default_rng(5)
    for _ in range(60):
        counts = PairCounts(**dict(zip(("both", "wins", "losses", "neither"), map(int, rng.integers(0, 25, 4)), strict=True)))
        if not counts.pairs:
            continue
        low, high = tango(counts)
        assert -1.0 <= low <= counts.difference <= high <= 1.0
        for bound, z in ((low, 1.959963984540054), (high, -1.959963984540054)):
            if abs(bound) < 1.0 - 1e-9:
                assert tango_score(counts, bound) == pytest.approx(z, abs=1e-6)
        swapped = tango(PairCounts(both=counts.both, wins=counts.losses, losses=counts.wins, neither=counts.neither))
        assert swapped == pytest.approx((-high, -low), abs=1e-9)


def test_tango_at_its_score_of_no_difference_is_mcnemars_statistic():
    assert tango_score(PairCounts(both=40, wins=12, losses=4, neither=4), 0.0) == pytest.approx((12 - 4) / math.sqrt(16))


def test_tango_covers_about_as_often_as_promised():
    rng = np.random.default_rng(6)
    hits = 0
    for both, wins, losses, neither in rng.multinomial(50, (0.6, 0.2, 0.1, 0.1), size=400).tolist():
        low, high = tango(PairCounts(both=both, wins=wins, losses=losses, neither=neither))
        hits += low <= 0.1 <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_mcnemar_is_the_exact_sign_test():
    from scipy.stats import binomtest

    assert mcnemar(PairCounts(both=3, wins=9, losses=2, neither=1)) == pytest.approx(binomtest(9, 11, 0.5, alternative="greater").pvalue)
    assert mcnemar(PairCounts(both=5, wins=0, losses=0, neither=0)) == 1.0


def test_closed_testing_with_e_values_is_what_every_set_says():
    import itertools

    rng = np.random.default_rng(7)
    for _ in range(20):
        values = {f"t{i}": float(v) for i, v in enumerate(np.exp(rng.normal(1.0, 2.0, 5)))}
        found = adjusted_e_values(values)
        for name in values:
            sets = [s for size in range(1, 6) for s in itertools.combinations(values, size) if name in s]
            assert found[name] == pytest.approx(min(sum(values[i] for i in s) / len(s) for s in sets))
    assert adjusted_e_values({"one": 20.0}) == {"one": 20.0}


def test_holm_steps_down():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({}) == {}


def ever_said(exceeds, rate, trials):
    """The exact probability that a rule says of a rate, in a look after each trial, that it is above itself."""
    still, said = np.array([1.0]), 0.0
    for n in range(1, trials + 1):
        still = np.append(still * (1 - rate), 0.0) + np.append(0.0, still * rate)
        over = np.array([exceeds(k, n) for k in range(n + 1)])
        said += float(still[over].sum())
        still = np.where(over, 0.0, still)
    return said


@pytest.mark.parametrize("limit", [0.1, 0.3])
def test_a_counter_that_is_looked_at_after_each_trial_is_seldom_said_to_be_above_its_limit(limit):
    from scipy.stats import binom

    assert ever_said(lambda k, n: exceeds_at_any_look(k, n, limit), limit, 60) <= 0.05
    assert ever_said(lambda k, n: safety_finding("drops", k, n, limit).exceeds, limit, 60) > 0.1  # of one look, used at each
    n = 40
    assert sum(binom.pmf(k, n, limit) * math.exp(log_evidence_of_rate(k, n, limit)) for k in range(n + 1)) == pytest.approx(1.0)


def test_a_counter_far_above_its_limit_is_soon_said_to_be():
    assert [exceeds_at_any_look(k, 20, 0.1) for k in (2, 4, 8)] == [False, False, True]
    assert (exceeds_at_any_look(1, 500, 0.0), exceeds_at_any_look(0, 500, 0.0), exceeds_at_any_look(9, 9, 1.0)) == (True, False, False)
    assert not exceeds_at_any_look(0, 0, 0.1)


def test_safety_counters_are_shown_above_below_or_neither():
    assert safety_finding("drops", 9, 20, 0.1).exceeds
    assert not safety_finding("drops", 3, 20, 0.1).exceeds
    assert not safety_finding("drops", 3, 20, 0.1).holds
    assert safety_finding("drops", 0, 60, 0.05).holds
    assert not safety_finding("drops", 0, 0, 0.05).holds


def test_trials_without_event_are_as_many_as_the_formula_says():
    for limit in (0.5, 0.1, 0.05, 0.01):
        assert trials_without_event(limit) == math.ceil(math.log(0.05) / math.log(1 - limit) - 1e-9)
    with pytest.raises(SpecError, match="no number of trials"):
        trials_without_event(0.0)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (1, 0)])
def test_impossible_counts_are_refused(successes, trials):
    for interval in (clopper_pearson, wilson):
        with pytest.raises(SpecError, match="successes"):
            interval(successes, trials)
