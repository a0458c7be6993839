"""Paired bootstrap against scipy and sacreBLEU, Holm against a case worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlt_bench.metrics.paired import gain, holm, mean_gain, replicates
from xlt_bench.metrics.significance import percent
from xlt_bench.metrics.translation import bleu, segment_counts


def hits(right):
    return np.stack([right, np.ones(len(right))], axis=1).astype(np.int64)


def two_systems(n=600, share=0.5, lift=0.06, seed=0):
    """Correlated right and wrong answers: hard items are hard for both."""
    generator = np.random.default_rng(seed)
    ease = generator.random(n)
    noise = generator.normal(0, 0.15, size=(2, n))
    return [hits(ease + noise[0] + lift > 1 - share), hits(ease + noise[1] > 1 - share)]


def test_scipy_gives_the_same_interval_and_p():
    from scipy import stats

    a, b = two_systems()
    found = gain(*replicates([a, b], percent, 20_000))
    right = [a[:, 0].astype(float), b[:, 0].astype(float)]
    boot = stats.bootstrap(
        right,
        lambda x, y, axis: 100 * (x.mean(axis) - y.mean(axis)),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
        vectorized=True,
    )
    interval = boot.confidence_interval
    assert found.value == pytest.approx(100 * (right[0].mean() - right[1].mean()))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.2)
    assert found.p == pytest.approx(stats.ttest_rel(*right).pvalue, abs=0.01)
    # An unpaired test on the same answers has a much larger p.
    assert stats.ttest_ind(*right).pvalue > 3 * found.p


def test_p_is_uniform_where_there_is_no_gain():
    from scipy import stats

    p = [gain(*replicates(two_systems(200, lift=0, seed=s), percent, 400)).p for s in range(150)]
    # Hits are discrete, so p is not exactly uniform; only a strong departure fails.
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert 0 < np.mean(np.array(p) < 0.1) < 0.2


REFERENCES = [
    f"the {a} {b} sees the {c} near {d} old houses"
    for a in ("small", "large", "green")
    for b in ("dog", "cat", "bird")
    for c in ("boat", "river", "man", "tree")
    for d in ("two", "three", "nine", "no")
]


def worsened(share, seed):
    generator = np.random.default_rng(seed)
    return [
        " ".join(word if generator.random() > share else "thing" for word in line.split())
        for line in REFERENCES
    ]


def test_sacrebleu_gives_the_same_paired_bootstrap():
    from sacrebleu.metrics import BLEU
    from sacrebleu.significance import PairedTest, _compute_p_value

    baseline, system = worsened(0.16, 1), worsened(0.12, 2)
    _, results = PairedTest(
        [("baseline", baseline), ("system", system)],
        {"BLEU": BLEU(force=True)},
        references=[REFERENCES],
        test_type="bs",
        n_samples=2000,
    )()
    base, theirs = results["BLEU"]
    counts = [segment_counts("bleu", "en", lines, REFERENCES) for lines in (system, baseline)]
    ours = replicates(counts, bleu, 2000)
    assert ours[0].value == pytest.approx(theirs.score)
    assert ours[1].value == pytest.approx(base.score)
    found = gain(*ours)
    assert ours[0].drawn.mean() == pytest.approx(theirs.mean, abs=0.3)
    # sacreBLEU's own function for the p value, on our replicates.
    differences = np.abs(ours[0].drawn - ours[1].drawn)
    one_sided = _compute_p_value(differences - differences.mean(), abs(found.value))
    assert 0.005 < theirs.p_value < 0.3
    assert one_sided == pytest.approx(theirs.p_value, abs=0.02)
    # sacreBLEU's test is one-sided, ours two-sided.
    assert found.p == pytest.approx(2 * theirs.p_value, abs=0.04)


def test_equal_systems_gain_nothing():
    a, _ = two_systems()
    same = gain(*replicates([a, a], percent))
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_swapping_the_systems_turns_the_sign():
    one, other = replicates(two_systems(), percent)
    there, back = gain(one, other), gain(other, one)
    assert (back.value, back.p) == (-there.value, there.p)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))


def test_stacking_does_not_show():
    a, b = two_systems(100)
    c, d = two_systems(60)
    together = replicates([a, c, b, d], percent, 200)
    for matrix, found in zip((a, c, b, d), together, strict=True):
        (alone,) = replicates([matrix], percent, 200)
        assert alone.value == found.value
        assert np.array_equal(alone.drawn, found.drawn)


def test_the_mean_gain_is_that_of_both_languages():
    a, b = replicates(two_systems(100), percent)
    c, d = replicates(two_systems(60), percent)
    found = mean_gain({"de": a, "sw": c}, {"de": b, "sw": d})
    assert found.value == pytest.approx((a.value - b.value + c.value - d.value) / 2)
    width = np.hypot(*[g.high - g.low for g in (gain(a, b), gain(c, d))]) / 2
    assert found.high - found.low == pytest.approx(width, rel=0.2)


def test_what_is_not_paired_is_refused():
    a, b = replicates([*two_systems(100)[:1], *two_systems(60)[:1]], percent)
    with pytest.raises(ValueError, match="100 items against 60"):
        gain(a, b)
    with pytest.raises(ValueError, match="units differ"):
        mean_gain({"de": a}, {"sw": a})


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04, times 4 3 2 1, then the running maximum: .02 .03 .06 .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_holm_lies_between_raw_and_bonferroni(p_values):
    corrected = holm(p_values)
    for raw, p in zip(p_values, corrected, strict=True):
        assert raw <= p <= min(1, raw * len(p_values)) or p == max(corrected)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [corrected[i] for i in order] == sorted(corrected)
