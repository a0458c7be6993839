"""Tests the gain of one system over another on the same items, corrected over languages.

The test is a paired bootstrap: each replicate draws items once and scores both systems on them, so
the difficulty of items cancels out. `significance.resample_sums` draws by the number of items and
the seed alone, so replicates of two systems are paired even if computed separately. A p value that
too few replicates measure is taken from the normal distribution, which is what lets a correction
over 204 languages reach any level. Where few items differ, the test is exact.

replicates  a system's resampled scores
gain        the gain in one unit, with its interval and p value
mean_gain   the gain in the mean over units
holm        Holm's correction of p values
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import ndtr, ndtri

from xlt_bench.metrics.significance import (
    N_RESAMPLES,
    Counts,
    Floats,
    Score,
    resample_sums,
)

LEVEL = 0.95
ALPHA = 0.05
"""A gain is significant if its corrected p value is below this."""
POWER = 0.8
_FEW = 12  # up to this many items that differ, all ways to swap them are counted: 4,096
_MEASURED = 10  # replicates that a p value needs; with fewer, the normal distribution is used


@dataclass(frozen=True)
class Replicates:
    """A score on a unit of a task, and the scores of its resamples.

    Attributes:
        value: The score.
        drawn: The score of each replicate, (n_resamples,).
        n: Number of items.
        counts: (n, k); None for a mean over units or systems.
        score: The score, as a function of summed counts; None for a mean.
    """

    value: float
    drawn: Floats
    n: int
    counts: Counts | None = None
    score: Score | None = None


@dataclass(frozen=True)
class Gain:
    """System minus baseline.

    Attributes:
        value: The difference.
        low: The lower end of its 95 % interval.
        high: The upper end.
        p: The two-sided p value.
        resolvable: The smallest true gain that these items (and seeds) would show as significant in
            80 of 100 cases; None if no item differs.
    """

    value: float
    low: float
    high: float
    p: float
    resolvable: float | None


def replicates(
    matrices: Sequence[Counts], score: Score, n_resamples: int = N_RESAMPLES
) -> list[Replicates]:
    """Resample scores.

    Matrices of equal length share a matrix product, which is much faster than one by one, with the
    same results.

    Args:
        matrices: Counts (n, k), one matrix for each unit or system.
        score: The score, as a function of summed counts.
        n_resamples: Number of replicates.

    Returns:
        The score of each matrix and those of its resamples.

    Raises:
        ValueError: If a matrix is empty.
    """
    by_length: dict[int, list[int]] = {}
    for place, matrix in enumerate(matrices):
        by_length.setdefault(len(matrix), []).append(place)
    found: dict[int, Replicates] = {}
    for length, places in by_length.items():
        sums = resample_sums(np.hstack([matrices[place] for place in places]), n_resamples)
        column = 0
        for place in places:
            width = matrices[place].shape[1]
            value = score(np.asarray(matrices[place], dtype=np.float64).sum(axis=0))
            drawn = score(sums[:, column : column + width])
            found[place] = Replicates(float(value), drawn, length, matrices[place], score)
            column += width
    return [found[place] for place in range(len(matrices))]


def gain(system: Replicates, baseline: Replicates) -> Gain:
    """Compute the gain in one unit.

    p is the share of replicates whose difference is at least as far from the mean of the replicates
    as the observed difference is from zero, in either direction, with one added to both counts
    (Koehn, 2004, with the shift and the correction of sacreBLEU's paired bootstrap, which is
    one-sided). If fewer than 10 replicates are that far, p is the normal distribution's, with the
    standard deviation of the replicates. If up to 12 items differ, p is the share of all ways to
    swap the two systems' answers to these items whose difference is at least as far from zero
    (Fisher's exact permutation test; for accuracies, McNemar's exact test). No p is below what m
    differing items allow, 2 / 2^m.

    Args:
        system: The system's replicates.
        baseline: The baseline's, on the same items.

    Returns:
        The gain.

    Raises:
        ValueError: If the numbers of items or replicates differ.
    """
    return mean_gain({"": system}, {"": baseline})


def mean_gain(systems: Mapping[str, Replicates], baselines: Mapping[str, Replicates]) -> Gain:
    """Compute the gain in the unweighted mean over units, which are not resampled.

    Args:
        systems: The system's replicates by unit.
        baselines: The baseline's, for the same units.

    Returns:
        The gain.

    Raises:
        ValueError: If the units differ or there are none, or if the numbers of items or replicates
            differ.
    """
    if not systems or systems.keys() != baselines.keys():
        raise ValueError(f"units differ: {sorted(systems)} and {sorted(baselines)}")
    for unit, one in systems.items():
        if one.n != baselines[unit].n:
            raise ValueError(f"{unit}: {one.n} items against {baselines[unit].n}: not paired")
    value = float(np.mean([one.value - baselines[unit].value for unit, one in systems.items()]))
    drawn = np.mean([one.drawn - baselines[unit].drawn for unit, one in systems.items()], axis=0)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    pairs = [(one, baselines[unit]) for unit, one in systems.items()]
    places = _differing(pairs)
    if places is not None and len(places) <= _FEW:
        p = _exact_p(pairs, places, value)
    else:
        p = _bootstrap_p(drawn, value)
        if places is not None:
            p = max(p, 2.0 ** (1 - len(places)))
    error = float(np.std(drawn, ddof=1))
    resolvable = float(ndtri((1 + LEVEL) / 2) + ndtri(POWER)) * error if error else None
    return Gain(value, float(low), float(high), p, resolvable)


def _bootstrap_p(drawn: Floats, value: float) -> float:
    # The tolerance lets differences count as equal that differ by rounding alone.
    far = int((np.abs(drawn - drawn.mean()) >= abs(value) - 1e-9).sum())
    error = float(np.std(drawn, ddof=1))
    if far >= _MEASURED or not error:
        return (far + 1) / (len(drawn) + 1)
    return float(2 * ndtr(-abs(value) / error))


Pair = tuple[Replicates, Replicates]


def _differing(pairs: Sequence[Pair]) -> list[tuple[int, int]] | None:
    """The items to which two systems have different counts, as (number of items, place).

    Units with equally many items are parallel, as for the bootstrap: an item of theirs counts once.
    None if a pair has no counts.
    """
    found: set[tuple[int, int]] = set()
    for one, other in pairs:
        if one.counts is None or other.counts is None:
            return None
        differ = np.flatnonzero((one.counts != other.counts).any(axis=1))
        found |= {(one.n, place) for place in differ.tolist()}
    return sorted(found)


def _exact_p(pairs: Sequence[Pair], places: Sequence[tuple[int, int]], value: float) -> float:
    """The share of all ways to swap the answers to the items in `places` that are as far from zero.

    Swaps are of an item in all units of one size at once, since these are parallel.
    """
    swapped = _subsets(len(places))
    total = np.zeros(len(swapped))
    for one, other in pairs:
        assert one.counts is not None
        assert other.counts is not None
        assert one.score is not None
        change = np.zeros((len(places), one.counts.shape[1]))
        for row, (n, place) in enumerate(places):
            if n == one.n:
                change[row] = other.counts[place].astype(float) - one.counts[place]
        moved = swapped @ change
        ours, theirs = (x.counts.sum(axis=0, dtype=np.float64) for x in (one, other))  # type: ignore[union-attr]
        total += one.score(ours + moved) - one.score(theirs - moved)
    return float((np.abs(total / len(pairs)) >= abs(value) - 1e-9).mean())


@cache
def _subsets(n: int) -> Floats:
    """All subsets of n places: (2^n, n) of 0 and 1."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for multiple tests by Holm's step-down method (Holm, 1979).

    Args:
        p_values: The p values.

    Returns:
        The corrected ones, in the same order; at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected
