"""Jeffreys' interval: its coverage, and scipy's where items are single questions."""

import numpy as np
import pytest

from xlt_bench.metrics.accuracy import accuracy_interval, never_certain
from xlt_bench.metrics.significance import interval, mean_interval, percent


def hits(right, n):
    return np.stack([np.arange(n) < right, np.ones(n)], axis=1)


def coverage(n, p, found):
    """The exact coverage of intervals at n questions and accuracy p, from all numbers of hits."""
    from scipy import stats

    numbers = np.arange(n + 1)
    likely = numbers[stats.binom.pmf(numbers, n, p) > 1e-9]
    inside = [found(hits(k, n)).low <= 100 * p <= found(hits(k, n)).high for k in likely]
    return float(stats.binom.pmf(likely, n, p) @ np.array(inside))


def test_it_covers_rare_hits_and_the_bootstrap_does_not():
    assert coverage(997, 0.001, accuracy_interval) > 0.95
    assert coverage(997, 0.001, lambda counts: interval(counts, percent)) < 0.65


@pytest.mark.parametrize("n", [50, 997])
def test_it_covers_on_average(n):
    """Coverage swings with p, as that of every interval of a proportion without excess does."""
    found = [coverage(n, p, accuracy_interval) for p in np.linspace(0.002, 0.998, 60)]
    assert 0.94 < np.mean(found) < 0.965
    assert min(found) > 0.87


def test_it_is_the_quantiles_of_jeffreys_posterior():
    from scipy import stats

    found = accuracy_interval(hits(30, 200))
    wanted = stats.beta(30.5, 170.5).ppf([0.025, 0.975])
    assert (found.value, found.low, found.high) == pytest.approx((15, *(100 * wanted)))


def test_nothing_right_and_nothing_wrong_claim_no_certainty():
    none, every = accuracy_interval(hits(0, 997)), accuracy_interval(hits(997, 997))
    assert (none.value, none.low) == (0, 0)
    assert 0.2 < none.high < 0.4
    assert (every.value, every.high) == (100, 100)
    assert every.low == pytest.approx(100 - none.high)


def test_questions_of_one_item_are_not_independent():
    """Sentences that are always right or always wrong are worth one question each."""
    many = hits(300, 997) * 68
    one = accuracy_interval(hits(300, 997))
    found = accuracy_interval(many)
    assert (found.low, found.high) == pytest.approx((one.low, one.high))
    # If all sentences are alike, each question counts.
    generator = np.random.default_rng(0)
    alike = np.stack([generator.binomial(68, 0.3, 997), np.full(997, 68)], axis=1)
    narrow = accuracy_interval(alike)
    assert narrow.high - narrow.low == pytest.approx((one.high - one.low) / 68**0.5, rel=0.1)


def test_clustered_intervals_cover():
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        ease = generator.beta(0.5, 4.5, 300)
        counts = np.stack([generator.binomial(20, ease), np.full(300, 20)], axis=1)
        found = accuracy_interval(counts)
        inside += found.low <= 10 <= found.high
    assert inside / 400 > 0.92


def test_no_questions_and_no_items():
    assert accuracy_interval(np.zeros((3, 2))).high == 0
    with pytest.raises(ValueError, match="at least one item"):
        accuracy_interval(np.zeros((0, 2)))


@pytest.mark.parametrize("sizes", [(120, 120, 120), (10, 10_000)])
def test_a_mean_over_units_claims_no_certainty_either(sizes):
    """The open end is the mean of the open ends of scipy's posteriors."""
    from scipy import stats

    wanted = 100 * np.mean([stats.beta.ppf(0.975, 0.5, n + 0.5) for n in sizes])
    for right in (0, 100):
        units = {str(place): hits(n * (right > 0), n) for place, n in enumerate(sizes)}
        before = mean_interval(units, percent)
        assert before.low == before.high == right
        found = never_certain(before, units.values())
        ends = (found.value, 0, wanted) if not right else (found.value, 100 - wanted, 100)
        assert (found.value, found.low, found.high) == pytest.approx(ends)


def test_a_mean_of_units_that_are_wrong_and_right_is_not_certain():
    units = {"a": hits(0, 50), "b": hits(50, 50)}
    found = never_certain(mean_interval(units, percent), units.values())
    assert 0 < found.low < found.value == 50 < found.high < 100


def test_one_hit_in_one_unit_leaves_the_bootstrap():
    units = {"a": hits(1, 50), "b": hits(0, 50)}
    before = mean_interval(units, percent)
    assert never_certain(before, units.values()) is before


def test_the_mean_of_rare_hits_is_covered():
    """Most draws have no hit: the bootstrap of those misses, and this does not."""
    generator = np.random.default_rng(2)
    inside = {"bootstrap": 0, "ours": 0}
    for _ in range(200):
        units = {str(i): hits(generator.binomial(100, 0.002), 100) for i in range(3)}
        before = mean_interval(units, percent, n_resamples=200)
        ours = never_certain(before, units.values())
        inside["bootstrap"] += before.low <= 0.2 <= before.high
        inside["ours"] += ours.low <= 0.2 <= ours.high
    assert inside["bootstrap"] < 110 < 180 < inside["ours"]
