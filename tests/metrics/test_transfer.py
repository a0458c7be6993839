"""Measures of transfer against cases worked by hand, brute force over orders, pandas and a grid."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlt_bench.metrics.entities import f1
from xlt_bench.metrics.paired import Replicates, replicates
from xlt_bench.metrics.significance import percent
from xlt_bench.metrics.transfer import PARTS, consistency, gain_parts, gap_closed, relative


def hits(right):
    return np.stack([right, np.ones(len(right))], axis=1).astype(np.int64)


@st.composite
def answers(draw):
    """Counts of correct, predicted and gold spans of two systems, and which answers are formed."""
    n = draw(st.integers(1, 12))
    few = st.integers(0, 3)
    gold = draw(st.lists(few, min_size=n, max_size=n))
    systems = []
    for _ in range(2):
        predicted = draw(st.lists(few, min_size=n, max_size=n))
        correct = [draw(st.integers(0, min(pair))) for pair in zip(predicted, gold, strict=True)]
        systems.append(np.array([correct, predicted, gold]).T)
    formed = [np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n))) for _ in range(2)]
    return systems, formed


@settings(max_examples=150, deadline=None)
@given(answers())
def test_the_parts_add_up_to_the_gain_in_the_data_and_in_every_replicate(given_):
    counts, formed = given_
    system, baseline = replicates(counts, f1, 20)
    parts = gain_parts(system, baseline, *formed)
    total = sum(one.value for one in parts.values())
    assert total == pytest.approx(system.value - baseline.value, abs=1e-9)
    drawn = np.sum([one.drawn for one in parts.values()], axis=0)
    assert drawn == pytest.approx(system.drawn - baseline.drawn, abs=1e-9)
    swapped = gain_parts(baseline, system, *formed[::-1])
    for part in PARTS:
        assert swapped[part].value == pytest.approx(-parts[part].value, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(answers())
def test_a_part_is_the_mean_over_all_orders_in_which_answers_are_exchanged(given_):
    (ours, theirs), (formed, other) = given_
    found = gain_parts(*replicates([ours, theirs], f1, 5), formed, other)
    group = np.where(formed & other, 0, np.where(formed | other, 1, 2))
    totals = np.zeros(3)
    for order in permutations(range(3)):
        mixed = theirs.copy()
        for place in order:
            before = f1(mixed.sum(axis=0).astype(float))
            mixed[group == place] = ours[group == place]
            totals[place] += f1(mixed.sum(axis=0).astype(float)) - before
    assert [found[part].value for part in PARTS] == pytest.approx(list(totals / 6), abs=1e-9)


def test_the_parts_of_an_accuracy_by_hand():
    """Ten items. Two become right where both are well-formed and one becomes wrong; the system
    writes three in the form that the baseline missed, of which two are right."""
    theirs = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    other = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
    ours = np.array([0, 1, 1, 1, 1, 0, 1, 1, 0, 0])
    formed = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 0], dtype=bool)
    parts = gain_parts(*replicates([hits(ours), hits(theirs)], percent), formed, other)
    assert {part: one.value for part, one in parts.items()} == pytest.approx(
        {"content": 10.0, "format": 20.0, "neither": 0.0}
    )


def test_parts_of_other_items_are_refused():
    one, other = replicates([hits(np.ones(3)), hits(np.ones(4))], percent)
    three, four = np.ones(3, dtype=bool), np.ones(4, dtype=bool)
    with pytest.raises(ValueError, match="not the same items"):
        gain_parts(one, other, three, four)
    with pytest.raises(ValueError, match="not the same items"):
        gain_parts(one, one, three, four)
    with pytest.raises(ValueError, match="need counts"):
        gain_parts(Replicates(1.0, one.drawn, 3), one, three, three)


def test_consistency_is_the_conditional_frequency_of_a_cross_table():
    generator = np.random.default_rng(3)
    frame = pd.DataFrame(generator.random((200, 2)) < 0.6, columns=["en", "sw"])
    counts = consistency(frame.sw.to_numpy(), frame.en.to_numpy())
    table = pd.crosstab(frame.en, frame.sw, normalize="index")
    assert percent(counts.sum(axis=0).astype(float)) == pytest.approx(100 * table.loc[True, True])
    assert len(counts) == frame.en.sum()
    with pytest.raises(ValueError, match="items differ"):
        consistency(np.ones(2, dtype=bool), np.ones(3, dtype=bool))


def test_a_relative_score_and_its_replicates_are_ratios():
    generator = np.random.default_rng(1)
    sw, de, en = replicates([hits(generator.random(50) < p) for p in (0.3, 0.6, 0.8)], percent)
    scores = {"sw": sw, "de": de, "en": en}
    found = relative(scores, ["de", "en"])["sw"]
    assert found.value == pytest.approx(100 * sw.value / ((de.value + en.value) / 2))
    assert found.drawn[7] == pytest.approx(200 * sw.drawn[7] / (de.drawn[7] + en.drawn[7]))
    assert relative(scores, []) == {}
    (rarely_right,) = replicates([hits(np.arange(50) == 0)], percent)
    # A third of the replicates are zero.
    assert relative({**scores, "de": rarely_right}, ["de"]) == {}


def drawn(value, noise):
    return Replicates(value, value + noise, 100)


def normal(*, gap, n=4000, seed=0):
    """A system half way between SFT and oracle, whose scores share noise."""
    generator = np.random.default_rng(seed)
    shared, *own = generator.normal(0, 1, (4, n))
    scores = (40 + gap / 2, 40.0, 40.0 + gap)
    return [drawn(score, shared + one) for score, one in zip(scores, own, strict=True)]


def test_the_interval_of_the_gap_holds_the_ratios_that_a_test_does_not_reject():
    system, sft, oracle = normal(gap=10)
    found = gap_closed(system, sft, oracle)
    assert found.value == pytest.approx(50)
    ratios = np.linspace(-2, 3, 50_001)
    top, bottom = system.drawn - sft.drawn, oracle.drawn - sft.drawn
    # The variance of top - r bottom, from the sums themselves and not from a covariance matrix.
    parts = [np.var(one, ddof=1) for one in (top, bottom, top + bottom)]
    both = (parts[2] - parts[0] - parts[1]) / 2
    error = np.sqrt(parts[0] - 2 * ratios * both + ratios**2 * parts[1])
    kept = ratios[np.abs(5 - 10 * ratios) <= 1.959964 * error]
    assert [found.low, found.high] == pytest.approx([100 * kept[0], 100 * kept[-1]], abs=0.02)
    # Where the gap is far from zero, the percentiles of the ratio are near it.
    far = normal(gap=60)
    ends = np.quantile(
        (far[0].drawn - far[1].drawn) / (far[2].drawn - far[1].drawn), [0.025, 0.975]
    )
    wide = gap_closed(*far)
    assert [wide.low, wide.high] == pytest.approx(list(100 * ends), abs=0.5)


@pytest.mark.parametrize("gap", [1.0, -10.0])
def test_a_gap_that_is_not_shown_to_be_above_zero_bounds_nothing(gap):
    found = gap_closed(*normal(gap=gap))
    assert (found.value, found.low, found.high) == (pytest.approx(50), None, None)


def test_no_gap_has_no_share():
    system, sft, _ = normal(gap=10)
    assert gap_closed(system, sft, sft) is None
    with pytest.raises(ValueError, match="replicates"):
        gap_closed(system, sft, Replicates(50.0, np.zeros(3), 100))
