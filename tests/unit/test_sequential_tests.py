"""The sequential tests of paired scores and of two streams: their formulas, their errors, their power."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betainc, betaln

from model_core.spec.errors import SpecError
from model_core.statistics.betting import BettingDesign, betting_test, log_evidence, log_evidence_of_counts
from model_core.statistics.binomial import upper_tail
from model_core.statistics.decision import Outcome
from model_core.statistics.group_sequential import GroupSequentialDesign, group_sequential_test, looks
from model_core.statistics.planning import expected, group_stopping, minimum_detectable, paired_outcomes
from model_core.statistics.two_streams import TrialBlock, stream_evidence, stream_test

PAIRS = st.lists(st.sampled_from((-1, 0, 1)), min_size=1, max_size=80)
SCORES = st.lists(st.integers(-4, 4).map(lambda n: n / 4), min_size=1, max_size=60)
SETTINGS = settings(max_examples=40, deadline=None)


@SETTINGS
@given(PAIRS)
def test_evidence_of_binary_pairs_is_the_integral_in_closed_form(pairs):
    wins, losses = pairs.count(1), pairs.count(-1)
    n = wins + losses
    expected_log = (n + 1) * math.log(2) + betaln(wins + 1, losses + 1) + math.log1p(-betainc(wins + 1, losses + 1, 0.5))
    assert log_evidence(pairs)[-1] == pytest.approx(expected_log, abs=1e-6)
    assert log_evidence_of_counts(wins, losses, pairs.count(0)) == pytest.approx(log_evidence(pairs)[-1])


@SETTINGS
@given(SCORES, st.sampled_from((-0.15, 0.0, 0.2)))
def test_evidence_is_a_fair_game_at_the_threshold(scores, threshold):
    """The mean of E after one more pair, whose mean difference is the threshold, is E before it."""
    before = math.exp(log_evidence(scores, threshold)[-1])
    up, down = 1.0, -1.0
    share = (threshold - down) / (up - down)
    after = share * math.exp(log_evidence([*scores, up], threshold)[-1]) + (1 - share) * math.exp(
        log_evidence([*scores, down], threshold)[-1]
    )
    assert after == pytest.approx(before, rel=1e-9)


@SETTINGS
@given(PAIRS)
def test_what_favours_one_side_refutes_for_the_other(pairs):
    design = BettingDesign(maximum=80)
    ours, theirs = betting_test(pairs, design), betting_test([-d for d in pairs], design)
    swap = {Outcome.SHOWN: Outcome.REFUTED, Outcome.REFUTED: Outcome.SHOWN}
    assert theirs.outcome == swap.get(ours.outcome, ours.outcome)
    assert (theirs.p_value, theirs.refuting, theirs.pairs) == pytest.approx((ours.refuting, ours.p_value, ours.pairs))


def test_seven_wins_without_a_loss_show_it_and_later_pairs_change_nothing():
    design = BettingDesign(maximum=40)
    assert betting_test([1] * 6, design).outcome is Outcome.OPEN
    decided = betting_test([1] * 7, design)
    assert (decided.outcome, decided.pairs) == (Outcome.SHOWN, 7)
    assert betting_test([1] * 7 + [-1] * 20, design) == decided
    assert betting_test([1] * 7, BettingDesign(maximum=40, block=5)).outcome is Outcome.OPEN


def test_a_test_that_no_rest_of_its_pairs_can_decide_ends():
    assert betting_test([1, -1] * 8, BettingDesign(maximum=18)).outcome is Outcome.NOT_ENOUGH
    assert betting_test([1, -1] * 8, BettingDesign(maximum=60)).outcome is Outcome.OPEN


def test_equal_policies_are_not_worse_by_a_margin_and_never_better():
    ties = [0] * 60
    assert betting_test(ties, BettingDesign(margin=0.15, maximum=60)).outcome is Outcome.SHOWN
    assert betting_test(ties, BettingDesign(maximum=60)).outcome is Outcome.NOT_ENOUGH
    assert betting_test([-1] * 10 + ties, BettingDesign(margin=0.15, maximum=70)).outcome is Outcome.REFUTED


def test_one_look_is_mcnemars_exact_test():
    rng = np.random.default_rng(0)
    for _ in range(60):
        pairs = rng.choice((-1, 0, 1), size=40, p=(0.15, 0.5, 0.35))
        wins, discordant = int((pairs == 1).sum()), int((pairs != 0).sum())
        found = group_sequential_test(pairs, GroupSequentialDesign(looks=(40,)))
        assert (found.outcome is Outcome.SHOWN) == (upper_tail(wins, discordant, 0.5) <= 0.05)


def test_looks_spend_no_more_than_planned_and_their_probability_is_exact():
    rng = np.random.default_rng(1)
    design = GroupSequentialDesign(looks=(10, 20, 30), shape=0.6, steps=2)
    sizes = rng.choice((0, 0.5, 1.0), size=30)
    found = list(looks(sizes, design))
    assert all(look.spent <= 0.05 * (look.pairs / 30) ** 0.6 + 1e-12 for look in found)
    signs = rng.choice((-1, 1), size=(40_000, 30))
    totals = np.cumsum(signs * sizes * 2, axis=1)
    stopped = np.zeros(40_000, dtype=bool)
    for look in found:
        if look.boundary is not None:
            stopped |= totals[:, look.pairs - 1] >= look.boundary
        assert stopped.mean() == pytest.approx(look.spent, abs=4 * math.sqrt(0.05 / 40_000))


@pytest.mark.parametrize("spending", ["power", "gamma"])
def test_many_studies_at_once_end_as_each_would_alone(spending):
    design = GroupSequentialDesign(looks=(1, 2, 5, *range(10, 61, 10)), shape=1.5, spending=spending)
    studies = np.random.default_rng(3).choice((-1, 0, 1), size=(40, 60), p=(0.15, 0.5, 0.35)).astype(np.int8)
    outcome, pairs = group_stopping(studies, design)
    alone = [group_sequential_test(study, design) for study in studies]
    sign = {Outcome.SHOWN: 1, Outcome.REFUTED: -1, Outcome.NOT_ENOUGH: 0}
    assert outcome.tolist() == [sign[one.outcome] for one in alone]
    assert pairs.tolist() == [one.pairs for one in alone]
    assert set(outcome) == {0, 1}


def test_spending_reaches_alpha_at_the_end_and_a_greater_gamma_spends_more_early():
    slow, fast = (GroupSequentialDesign(looks=(50, 100), shape=shape, spending="gamma") for shape in (1.0, 3.0))
    assert slow.spendable(100) == fast.spendable(100) == 0.05
    assert fast.spendable(20) > slow.spendable(20) > 0.05 * 0.2


def test_scores_that_are_no_stages_are_refused():
    with pytest.raises(SpecError, match="multiples of 1/2"):
        group_sequential_test([0.25], GroupSequentialDesign(looks=(1,), steps=2))
    with pytest.raises(SpecError, match=r"-1\.\.1"):
        betting_test([2.0], BettingDesign())
    with pytest.raises(SpecError, match="rising"):
        GroupSequentialDesign(looks=(20, 10))


@pytest.mark.parametrize(("rate", "correlation"), [(0.1, 0.0), (0.5, 0.5), (0.7, 0.8), (0.95, 0.0)])
def test_looking_after_every_pair_makes_no_more_wrong_claims_than_alpha(rate, correlation):
    found = expected(BettingDesign(maximum=100), rate, rate, correlation=correlation, studies=1_500)
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1_500)
    assert found.shown <= most
    assert found.refuted <= most
    worse = expected(BettingDesign(margin=0.1, maximum=100), max(rate, 0.1), max(rate, 0.1) - 0.1, correlation=correlation, studies=1_500)
    assert worse.shown <= most


def test_group_sequential_looks_make_no_more_wrong_claims_than_alpha():
    design = GroupSequentialDesign(looks=tuple(range(10, 101, 10)), shape=0.5)
    found = expected(design, 0.7, 0.7, studies=500)
    assert found.shown <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 500)


def test_pairs_have_the_rates_and_the_correlation_that_were_asked():
    rng = np.random.default_rng(2)
    found = paired_outcomes(0.8, 0.7, 0.5, (200_000,), rng)
    both = 0.56 + 0.5 * math.sqrt(0.7 * 0.3 * 0.8 * 0.2)
    assert (found == 1).mean() == pytest.approx(0.8 - both, abs=0.004)
    assert (found == -1).mean() == pytest.approx(0.7 - both, abs=0.004)


def test_the_minimum_detectable_difference_has_the_power_that_was_asked():
    design = BettingDesign(maximum=120, block=10)
    least = minimum_detectable(design, 0.6, correlation=0.5, studies=400)
    assert least is not None
    assert expected(design, 0.6, 0.6 + least, correlation=0.5, studies=400).shown >= 0.8
    assert expected(design, 0.6, 0.6 + least - 0.02, correlation=0.5, studies=400).shown < 0.8
    assert minimum_detectable(BettingDesign(maximum=6), 0.6, studies=200) is None


def blocks(candidate, champion, count, seed, strata=("a", "b")):
    rng = np.random.default_rng(seed)
    for i in range(count):
        task = i % len(strata)
        mine = tuple(float(x) for x in rng.random(2) < candidate[task])
        yield TrialBlock(stratum=strata[task], candidate=mine, champion=(float(rng.random() < champion[task]),))


def test_streams_of_equal_policies_are_seldom_told_apart_and_unequal_ones_are():
    wrong = sum(stream_test(blocks((0.9, 0.3), (0.9, 0.3), 80, seed)).outcome is not Outcome.OPEN for seed in range(80))
    assert wrong / 80 <= 0.1 + 3 * math.sqrt(0.09 / 80)  # either side at 0.05
    right = [stream_test(blocks((0.9, 0.8), (0.6, 0.4), 120, seed)) for seed in range(12)]
    assert sum(one.outcome is Outcome.SHOWN for one in right) >= 10
    worse = [stream_test(blocks((0.6, 0.4), (0.9, 0.8), 160, seed)) for seed in range(12)]
    assert sum(one.outcome is Outcome.REFUTED for one in worse) >= 10


@SETTINGS
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1), st.integers(0, 1)), max_size=20), st.floats(0.02, 0.98))
def test_stream_evidence_loses_in_the_mean_where_both_sides_are_alike(past, rate):
    """The exact mean of E after one more block of two and one trials, all with the same rate, is at most E before it."""
    done = [TrialBlock(stratum=s, candidate=(float(y),), champion=(float(z),)) for s, y, z in past]
    before = math.exp([0.0, *stream_evidence(done)][-1])
    after = 0.0
    for y in (0, 1):
        for z in (0, 1):
            for x in (0, 1):
                probability = math.prod(rate if one else 1 - rate for one in (x, y, z))
                block = TrialBlock(stratum="a", candidate=(float(x), float(y)), champion=(float(z),))
                after += probability * math.exp(list(stream_evidence([*done, block]))[-1])
    assert after <= before * (1 + 1e-9)


@pytest.mark.soak
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5, 0.7, 0.9, 0.97])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_twenty_thousand_studies_make_no_more_wrong_claims_than_alpha(rate, correlation):
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 20_000)
    for block in (1, 10):
        assert expected(BettingDesign(maximum=300, block=block), rate, rate, correlation=correlation, studies=20_000).shown <= most
