import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlt_bench.metrics import significance
from xlt_bench.metrics.significance import (
    Interval,
    interval,
    mean_interval,
    percent,
    resample_sums,
    resample_sums_of,
    resample_together,
)


def hits(n, share, seed=0):
    """Counts (n, 2) of a property that about `share` of the items have."""
    drawn = np.random.default_rng(seed).random(n) < share
    return np.stack([drawn, np.ones(n)], axis=1).astype(np.int64)


def test_each_replicate_draws_n_items_with_replacement():
    # The identity as counts shows how often each item was drawn.
    drawn = resample_sums(np.eye(50), n_resamples=2000)
    assert drawn.shape == (2000, 50)
    assert (drawn.sum(axis=1) == 50).all()
    assert (drawn == np.round(drawn)).all()
    # Binomial(50, 1/50): mean 1, variance 0.98, P(0) = 0.364, over 100,000 (dependent) draws.
    assert drawn.mean(axis=0) == pytest.approx(np.ones(50), abs=0.12)
    assert drawn.var() == pytest.approx(0.98, abs=0.03)
    assert (drawn == 0).mean() == pytest.approx(0.364, abs=0.01)
    assert len({row.tobytes() for row in drawn}) == 2000


def test_sums_are_of_the_drawn_rows():
    counts = np.random.default_rng(0).integers(0, 100, size=(30, 3))
    assert np.array_equal(resample_sums(counts, 500), resample_sums(np.eye(30), 500) @ counts)


@pytest.mark.parametrize("largest", [3, 2**20, 2**40])
def test_sums_of_integers_are_exact(largest):
    # Those of the second and third are beyond what float32 can hold.
    counts = np.random.default_rng(1).integers(0, largest, size=(60, 2))
    drawn = resample_sums(np.eye(60), 50).astype(np.int64)
    assert np.array_equal(resample_sums(counts, 50), drawn @ counts)


@pytest.mark.parametrize("dtype", [bool, np.int32, np.int64, np.float32, float])
@pytest.mark.parametrize("n", [0, 1, 2974])
def test_a_total_is_the_sum_of_each_column(dtype, n):
    counts = np.random.default_rng(n).integers(0, 2**20, size=(n, 3)).astype(dtype)
    found = significance.total(counts)
    assert found.dtype == float
    assert found.tolist() == [sum(column) for column in counts.T.tolist()]


def test_sums_of_some_items_are_those_without_the_counts_of_the_others():
    counts = np.random.default_rng(2).integers(0, 9, size=(80, 3))
    rows = np.random.default_rng(3).random(80) < 0.3
    others_without = np.where(rows[:, None], counts, 0)
    assert np.array_equal(resample_sums_of(rows, counts, 50), resample_sums(others_without, 50))


def test_counts_resampled_together_get_the_sums_that_each_gets():
    each = [hits(n, 0.4, seed)[:, :k] for seed, (n, k) in enumerate([(20, 2), (30, 1), (20, 1)])]
    each.append(each[0])
    together = resample_together(each, 100)
    for counts in each:
        assert np.array_equal(together(counts), resample_sums(counts, 100))


def test_counts_that_are_gone_are_not_taken_for_others():
    together = resample_together((hits(20, 0.4, seed) for seed in range(30)), 100)
    for seed in range(30):
        with pytest.raises(KeyError):
            together(hits(20, 0.4, seed))


def test_draws_depend_on_size_and_seed_alone():
    a, b = hits(200, 0.3, seed=1), hits(200, 0.8, seed=2)
    jointly = resample_sums(np.hstack([a, b]))
    assert np.array_equal(jointly, np.hstack([resample_sums(a), resample_sums(b)]))
    assert not np.array_equal(resample_sums(a), resample_sums(a, seed=1))
    # More replicates only append.
    assert np.array_equal(resample_sums(a, 300), resample_sums(a, 1000)[:300])


def test_chunks_do_not_show(monkeypatch):
    counts = hits(101, 0.5)
    whole = resample_sums(counts, 97)
    monkeypatch.setattr(significance, "_CELLS", 1000)
    assert np.array_equal(resample_sums(counts, 97), whole)


def test_the_draws_are_pinned():
    # A published interval must be recomputable: this fails when the stream of draws changes.
    assert resample_sums(np.arange(1, 11)[:, None], 5).ravel().tolist() == PINNED


PINNED = [61.0, 66.0, 66.0, 41.0, 59.0]


def test_interval_of_a_share_is_the_binomial_one():
    counts = hits(1000, 0.3)
    found = interval(counts, percent)
    p = counts[:, 0].mean()
    half = 100 * 1.96 * np.sqrt(p * (1 - p) / 1000)
    assert found.value == pytest.approx(100 * p)
    assert found.value - found.low == pytest.approx(half, rel=0.12)
    assert found.high - found.value == pytest.approx(half, rel=0.12)
    narrower = interval(counts, percent, level=0.5)
    assert found.low < narrower.low < narrower.value < narrower.high < found.high


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = 0
    for seed in range(200):
        found = interval(hits(300, 0.4, seed), percent, n_resamples=300)
        covered += found.low <= 40 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_mean_of_one_language_is_its_interval():
    counts = hits(100, 0.5)
    assert mean_interval({"sv": counts}, percent) == interval(counts, percent)


def test_the_mean_is_not_weighted_by_size():
    all_right, all_wrong = np.array([[1, 1]] * 90), np.array([[0, 1]] * 10)
    assert mean_interval({"a": all_right, "b": all_wrong}, percent) == Interval(50.0, 50.0, 50.0)


def test_parallel_sets_are_resampled_jointly():
    counts = hits(400, 0.5)
    mirrored = np.stack([1 - counts[:, 0], counts[:, 1]], axis=1)
    # One language gains what the other loses in a replicate: zero width needs joint draws.
    opposed = mean_interval({"a": counts, "b": mirrored}, percent)
    assert opposed == Interval(50.0, 50.0, 50.0)
    # And copies of a language are not more certain than the language alone.
    one = interval(counts, percent)
    copies = mean_interval({"a": counts, "b": counts, "c": counts}, percent)
    assert (copies.low, copies.high) == pytest.approx((one.low, one.high))


def test_sets_of_other_sizes_are_resampled_independently():
    a, b = hits(400, 0.5), hits(399, 0.5)
    width = [found.high - found.low for found in (interval(a, percent), interval(b, percent))]
    both = mean_interval({"a": a, "b": b}, percent)
    assert both.high - both.low == pytest.approx(np.hypot(*width) / 2, rel=0.15)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.just(True)), min_size=1, max_size=60))
def test_interval_is_ordered_and_within_the_scale(rows):
    found = interval(np.array(rows, dtype=np.int64), percent, n_resamples=50)
    assert 0 <= found.low <= found.high <= 100
    assert 0 <= found.value <= 100


def test_percent():
    assert percent(np.array([[1, 4], [0, 0], [3, 3]])).tolist() == [25.0, 0.0, 100.0]


def test_errors():
    with pytest.raises(ValueError, match="at least one item"):
        interval(np.empty((0, 2)), percent)
    with pytest.raises(ValueError, match="at least one item"):
        resample_sums(np.empty((0, 2)))
    with pytest.raises(ValueError, match=r"shape \(items, k\), got \(3,\)"):
        resample_sums(np.ones(3))
    with pytest.raises(ValueError, match="at least one language"):
        mean_interval({}, percent)
    with pytest.raises(ValueError, match="level"):
        interval(np.ones((2, 2)), percent, level=95)
