"""Intervals of differences between methods: simulated coverage, and cases against scipy."""

import numpy as np
import pytest

from xlt_bench.metrics.methods import difference, gains
from xlt_bench.metrics.paired import Replicates, gain, replicates
from xlt_bench.metrics.significance import percent


def systems(values, item_error=0.0, seed=0):
    """Systems with these scores whose shared item noise has this standard error."""
    noise = np.random.default_rng(seed).normal(0, 1, 1000)
    noise *= item_error / noise.std(ddof=1) if item_error else 0
    return [Replicates(value, value + noise, 100) for value in values]


def test_without_item_noise_pairs_give_a_paired_t_test():
    from scipy import stats

    a, b = [71.0, 74.5, 72.2], [70.0, 72.0, 71.5]
    (found,) = gains([difference(systems(a), systems(b), paired=True)])
    theirs = stats.ttest_rel(a, b)
    interval = theirs.confidence_interval(0.95)
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_without_item_noise_unpaired_methods_give_welchs_t_test():
    from scipy import stats

    a, b = [71.0, 74.5, 72.2], [70.0, 70.4, 70.9]
    one = difference(systems(a), systems(b), paired=False)
    (found,) = gains([one])
    theirs = stats.ttest_ind(a, b, equal_var=False)
    assert one.df == pytest.approx(theirs.df)
    assert found.p == pytest.approx(theirs.pvalue)


def test_without_spread_over_seeds_items_give_a_z_test():
    from scipy import stats

    ours = systems([72.0, 72.0, 72.0], item_error=0.8)
    theirs = systems([70.0, 70.0, 70.0])
    (found,) = gains([difference(ours, theirs, paired=True)])
    assert found.p == pytest.approx(2 * stats.norm.sf(2 / 0.8))
    assert found.high - found.value == pytest.approx(1.959964 * 0.8)


def test_p_is_where_the_interval_ends_at_zero():
    ours, theirs = systems([72.0, 73.0, 71.2], 0.8), systems([70.5, 70.0, 70.9])
    one = difference(ours, theirs, paired=True)
    (found,) = gains([one])
    (same,) = gains([one], level=1 - found.p)
    assert same.low == pytest.approx(0, abs=1e-6)
    assert same.high == pytest.approx(2 * found.value)


def test_the_gain_is_that_of_the_means_and_signs_turn():
    ours, theirs = systems([72.0, 73.0], 0.8), systems([70.5, 70.0], 0.3, seed=1)
    for paired in (True, False):
        there, back = gains(
            [
                difference(ours, theirs, paired=paired),
                difference(theirs, ours, paired=paired),
            ]
        )
        assert there.value == pytest.approx(2.25)
        assert (back.value, back.low, back.high) == pytest.approx(
            (-there.value, -there.high, -there.low)
        )
        assert back.p == pytest.approx(there.p)


def test_equal_methods_gain_nothing_and_one_system_has_no_spread():
    same = systems([70.0, 70.0])
    (found,) = gains([difference(same, same, paired=True)])
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="at least two systems"):
        difference(same[:1], same, paired=False)
    with pytest.raises(ValueError, match="longer"):
        difference(same, [*same, *same], paired=True)


def simulated(rng, seeds, effect_of_seed, n_items=400, n_resamples=200):
    """Two methods without a difference: hits of `seeds` systems each on one draw of the items.

    An item has an ease of its own for each method (which seeds share), a seed moves all items of
    a system, and every system has its own luck with every item.
    """
    ease = rng.normal(0, 1, n_items)
    own = rng.normal(0, 0.5, (2, 1, n_items))
    moved = rng.normal(0, effect_of_seed, (2, seeds, 1))
    luck = rng.normal(0, 0.6, (2, seeds, n_items))
    right = ease + own + moved + luck > 0
    counts = [np.stack([one, np.ones(n_items)], axis=1) for one in right.reshape(-1, n_items)]
    found = replicates(counts, percent, n_resamples)
    return found[:seeds], found[seeds:]


def coverage(seeds, effect_of_seed, rounds, paired=True):
    rng = np.random.default_rng([seeds, int(100 * effect_of_seed)])
    pairs = [simulated(rng, seeds, effect_of_seed) for _ in range(rounds)]
    found = gains([difference(a, b, paired=paired) for a, b in pairs])
    items_alone = [gain(a[0], b[0]) for a, b in pairs]
    return tuple(
        np.mean([one.low <= 0 <= one.high for one in group]) for group in (found, items_alone)
    )


def test_intervals_cover_another_training():
    """With three seeds. An interval over items alone, from one seed each, does not cover it."""
    methods, items_alone = coverage(3, effect_of_seed=0.2, rounds=150)
    assert methods >= 0.93
    assert items_alone < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("effect_of_seed", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_covers_at_least_93_percent(seeds, effect_of_seed, paired):
    methods, _ = coverage(seeds, effect_of_seed, 1000, paired)
    # Three standard errors of a simulation of 1,000 rounds below 95 % are 92.9.
    assert methods >= 0.93
