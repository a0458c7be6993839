"""Paired bootstrap against scipy and sacreBLEU, Holm against a case worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlt_bench.metrics.paired import gain, holm, mean_gain, mean_p, replicates
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
    assert (same.value, same.low, same.high, same.p, same.resolvable) == (0, 0, 0, 1, None)


@pytest.mark.parametrize(("better", "worse"), [(5, 0), (6, 0), (7, 1), (4, 4), (10, 2), (0, 3)])
def test_where_few_items_differ_the_test_is_mcnemars_exact_one(better, worse):
    from scipy import stats

    base = np.arange(300) % 3 == 0
    system = base.copy()
    system[np.flatnonzero(~base)[:better]] = True
    system[np.flatnonzero(base)[:worse]] = False
    found = gain(*replicates([hits(system), hits(base)], percent))
    wanted = stats.binomtest(better, better + worse).pvalue
    assert found.p == pytest.approx(wanted)


def test_the_exact_test_of_a_corpus_score_is_scipys():
    from scipy import stats

    lines = [*REFERENCES]
    for i in range(0, 96, 12):
        lines[i] = lines[i].replace("old", "new")
    counts = [segment_counts("bleu", "en", hyp, REFERENCES) for hyp in (REFERENCES, lines)]
    found = gain(*replicates(counts, bleu, 100))

    def statistic(x, y, axis):
        return bleu(counts_of(x).sum(axis=-2)) - bleu(counts_of(y).sum(axis=-2))

    both = np.stack(counts)

    def counts_of(which):
        """The counts of items that are given as number + 1,000 for the second system."""
        which = which.astype(int)
        return both[which // 1000, which % 1000].astype(float)

    differ = np.flatnonzero((counts[0] != counts[1]).any(axis=1))
    assert len(differ) == 8
    rest = np.setdiff1d(np.arange(96), differ)

    def on_all(x, y, axis):
        shape = (*x.shape[:-1], len(rest))
        fill = np.broadcast_to(rest, shape)
        return statistic(np.concatenate([x, fill], -1), np.concatenate([y, fill], -1), axis)

    theirs = stats.permutation_test(
        (differ.astype(float), differ + 1000.0),
        on_all,
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert found.p == pytest.approx(theirs.pvalue)


def test_p_values_beyond_the_replicates_follow_the_normal_distribution():
    from scipy import stats

    found = []
    for lift in (0.06, 0.1, 0.14):
        a, b = two_systems(2974, lift=lift, seed=5)
        ours = gain(*replicates([a, b], percent, 1000))
        right = [one[:, 0].astype(float) for one in (a, b)]
        found.append((ours.p, stats.ttest_rel(*right).pvalue))
    assert found[0][0] < 1 / 1001
    for ours, theirs in found:
        assert np.log10(ours) == pytest.approx(np.log10(theirs), rel=0.15)


def test_a_correction_over_all_languages_can_reach_any_level():
    a, b = two_systems(997, lift=0.12)
    one = gain(*replicates([a, b], percent))
    for languages in (52, 204):
        assert max(holm([one.p] * languages)) < 0.05


def test_the_normal_tail_agrees_with_two_million_replicates():
    generator = np.random.default_rng(3)
    for lift in (0.03, 0.04, 0.05):
        a, b = two_systems(997, lift=lift, seed=11)
        ours = gain(*replicates([a, b], percent, 1000))
        signs = a[:, 0] - b[:, 0]
        shares = [(signs == sign).mean() for sign in (-1, 1)]
        # A resample of signs is a draw of how many are -1, 1 and 0.
        drawn = generator.multinomial(997, [*shares, 1 - sum(shares)], size=2_000_000)
        differences = (drawn[:, 1] - drawn[:, 0]) / 9.97
        far = (np.abs(differences - differences.mean()) >= abs(ours.value) - 1e-9).mean()
        assert far > 0
        assert 0.5 < ours.p / far < 2


def test_what_a_unit_can_resolve_is_what_a_test_of_that_power_finds():
    """A gain of `resolvable` is significant in 80 of 100 draws of test sets."""
    from scipy import stats

    generator = np.random.default_rng(2)
    n, share = 1000, 0.1  # a tenth of the items differ
    found = []
    for _ in range(20):
        draws = generator.random(n)
        a, b = draws < share / 2, (share / 2 <= draws) & (draws < share)
        found.append(gain(*replicates([hits(a), hits(b)], percent, 400)).resolvable)
    # The power of a z test of the difference, whose variance is that of n signs.
    error = 100 * np.sqrt(share / n)
    power = stats.norm.sf(1.96 - np.mean(found) / error)
    assert power == pytest.approx(0.8, abs=0.02)
    a, _ = two_systems()
    assert gain(*replicates([a, a], percent)).resolvable is None


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


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("worse", [0, 3, 12, 13, 40])
def test_the_p_value_alone_is_that_of_the_gain(worse, last):
    """Also where the items that differ are not among the first that are compared."""
    from scipy import stats

    n, right = 900, np.ones(900, dtype=bool)
    differ = np.arange(n) >= n - worse if last else np.arange(n) < worse
    a, b, c = replicates([hits(right), hits(right & ~differ), hits(right)], percent)
    p = mean_p({"de": a, "sw": c}, {"de": b, "sw": c})
    assert p == mean_gain({"de": a, "sw": c}, {"de": b, "sw": c}).p
    if worse <= 12:
        assert p == pytest.approx(stats.binomtest(worse, max(worse, 1), 0.5).pvalue if worse else 1)
    else:
        assert 2.0 ** (1 - worse) <= p < 0.001


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
