"""Measures of transfer that a gain alone does not give, from stored answers.

relative      a language's score in per cent of the source languages'
consistency   whether items that are right in English are right in another language
gain_parts    a gain as the sum of parts: answers well-formed in both systems, in one, in neither
gap_closed    the share of the distance between SFT and oracle that a system covers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from xlt_bench.metrics.paired import LEVEL, Replicates, Units
from xlt_bench.metrics.significance import Counts, Floats, Score, resample_sums_of, total

Bools = NDArray[np.bool_]

PARTS = ("content", "format", "neither")
"""The parts of a gain: of items whose answers are well-formed in both systems, one or neither."""


def relative(scores: Units, sources: Sequence[str]) -> dict[str, Replicates]:
    """Divide the score of each language by the mean over the source languages.

    Args:
        scores: A system's scores by language, with the same number of replicates.
        sources: The source languages.

    Returns:
        The ratios in per cent, and those of each replicate; empty without sources, or if their mean
        is zero in the data or in a replicate.
    """
    if not sources:
        return {}
    value = float(np.mean([scores[source].value for source in sources]))
    drawn = np.mean([scores[source].drawn for source in sources], axis=0)
    if not (value > 0 and (drawn > 0).all()):
        return {}
    return {
        unit: Replicates(100 * one.value / value, 100 * one.drawn / drawn, one.n)
        for unit, one in scores.items()
    }


def consistency(right: Bools, condition: Bools) -> Counts:
    """Count the right answers among the items of a condition: P(right in L | right in English).

    To compare two systems, the condition is that all of them are right in English: the conditional
    probabilities of two systems are over different items, and their difference would be due to the
    choice of items as well.

    Args:
        right: (n,): whether each item is right in the language.
        condition: (n,): whether it is right in English.

    Returns:
        (m, 2) for `significance.percent`: the m items of the condition.

    Raises:
        ValueError: If the lengths differ.
    """
    if right.shape != condition.shape:
        raise ValueError(f"items differ: {right.shape} and {condition.shape}")
    kept = right[condition].astype(np.int64)
    return np.stack([kept, np.ones_like(kept)], axis=1)


def gain_parts(
    system: Replicates, baseline: Replicates, formed: Bools, baseline_formed: Bools
) -> dict[str, Replicates]:
    """Divide a gain among the items whose answers are well-formed in both systems, one or neither.

    The score of a mixture, with the system's answers to some of the three groups of items and the
    baseline's to the others, is defined for every subset of groups. A group's part is its Shapley
    value (Shapley, 1953): the mean, over all orders of the groups, of what changing its answers to
    the system's adds to the score. The parts therefore add up to the gain, and do not depend on an
    order. For scores that are means over items, a part is the difference on the group's items over
    all items.

    Args:
        system: The system's score, with its counts.
        baseline: The baseline's, on the same items.
        formed: (n,): whether each answer of the system is well-formed.
        baseline_formed: (n,): whether each answer of the baseline is.

    Returns:
        The part of each of `PARTS`, with replicates.

    Raises:
        ValueError: If the numbers of items or replicates differ, or a score has no counts.
    """
    score = system.score
    if system.counts is None or baseline.counts is None or score is None:
        raise ValueError("a gain is divided by items, so both scores need counts")
    lengths = {system.n, baseline.n, len(formed), len(baseline_formed)}
    if len(lengths) != 1 or system.drawn.shape != baseline.drawn.shape:
        raise ValueError(f"not the same items or replicates: {sorted(lengths)} items")
    groups = [formed & baseline_formed, formed ^ baseline_formed, ~(formed | baseline_formed)]
    drawn = _shapley(*_sums(system, baseline, groups), score)
    return {
        part: Replicates(float(values[-1]), values[:-1], system.n)
        for part, values in zip(PARTS, drawn, strict=True)
    }


def _sums(
    system: Replicates, baseline: Replicates, groups: Sequence[Bools]
) -> tuple[Floats, Floats]:
    """Summed counts by group, (groups, n_resamples + 1, k): of each replicate, and of the items.

    Those of the largest group are what the others leave of the whole, which is known: counts are
    integers, so the difference is exact.
    """
    assert system.counts is not None
    assert baseline.counts is not None
    assert system.sums is not None
    assert baseline.sums is not None
    n_resamples, k = system.sums.shape
    counts = np.hstack([system.counts, baseline.counts])
    found = np.zeros((len(groups), n_resamples + 1, counts.shape[1]))
    largest = max(range(len(groups)), key=lambda place: groups[place].sum())
    found[largest, :-1] = np.hstack([system.sums, baseline.sums])
    found[largest, -1] = total(counts)
    for place, group in enumerate(groups):
        if place != largest and group.any():
            found[place, :-1] = resample_sums_of(group, counts, n_resamples)
            found[place, -1] = total(counts[group])
            found[largest] -= found[place]
    return found[..., :k], found[..., k:]


def _shapley(ours: Floats, theirs: Floats, score: Score) -> list[Floats]:
    """The Shapley value of each group's change from the baseline's sums to the system's.

    Args:
        ours: The system's sums, (groups, ..., k).
        theirs: The baseline's.
        score: The score, as a function of summed counts.

    Returns:
        (...) of each group.
    """
    places = range(len(ours))
    subsets = [chosen for size in range(len(ours) + 1) for chosen in combinations(places, size)]
    mixed = np.zeros((len(subsets), *ours.shape[1:]))
    for one, chosen in zip(mixed, subsets, strict=True):
        for i in places:
            one += (ours if i in chosen else theirs)[i]
    scores = dict(zip(subsets, np.asarray(score(mixed)), strict=True))
    values = []
    for place in places:
        value = np.zeros_like(scores[()])
        for chosen in subsets:
            if place not in chosen:
                weight = factorial(len(chosen)) * factorial(len(ours) - 1 - len(chosen))
                larger = tuple(sorted((*chosen, place)))
                value = value + weight * (scores[larger] - scores[chosen])
        values.append(value / factorial(len(ours)))
    return values


@dataclass(frozen=True)
class Share:
    """A ratio of two differences, in per cent, with its 95 % interval.

    `low` and `high` are None if the denominator is not significantly above zero: the data then
    bound the ratio on no side.
    """

    value: float
    low: float | None
    high: float | None


def gap_closed(system: Replicates, sft: Replicates, oracle: Replicates) -> Share | None:
    """Compute (system - SFT) / (oracle - SFT), with Fieller's interval.

    Fieller's set (1954) is that of all ratios r for which (system - SFT) - r (oracle - SFT) is not
    significantly different from zero. Unlike percentiles of a resampled ratio, it stays right where
    the denominator may be near zero. Variances and the covariance are those of the replicates,
    which pair the three systems by item; the normal distribution is assumed.

    Args:
        system: The system's score, or its mean over languages.
        sft: The same of the training of the task in the supervised languages alone.
        oracle: The same of the training in all languages.

    Returns:
        The share in per cent; None if oracle and SFT have one score.

    Raises:
        ValueError: If the numbers of replicates differ.
    """
    if not system.drawn.shape == sft.drawn.shape == oracle.drawn.shape:
        raise ValueError("the numbers of replicates differ")
    top, bottom = system.value - sft.value, oracle.value - sft.value
    if bottom == 0:
        return None
    covariance = np.cov(system.drawn - sft.drawn, oracle.drawn - sft.drawn)
    (var_top, both), (_, var_bottom) = float(ndtri((1 + LEVEL) / 2)) ** 2 * covariance
    leading = bottom**2 - var_bottom
    if leading <= 0 or bottom < 0:
        return Share(100 * top / bottom, None, None)
    middle = top * bottom - both
    # Not negative where the leading coefficient is positive, but for rounding.
    root = max(0.0, middle**2 - leading * (top**2 - var_top)) ** 0.5
    ends = [100 * float((middle + sign * root) / leading) for sign in (-1, 1)]
    return Share(100 * top / bottom, ends[0], ends[1])
