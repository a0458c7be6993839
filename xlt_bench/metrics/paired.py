"""Tests the gain of one system over another on the same items, corrected over languages.

The test is a paired bootstrap: each replicate draws items once and scores both systems on them, so
the difficulty of items cancels out. `significance.resample_sums` draws by the number of items and
the seed alone, so replicates of two systems are paired even if computed separately. A p value that
too few replicates measure is taken from the normal distribution, which is what lets a correction
over 204 languages reach any level. Where few items differ, the test is exact.

replicates  a system's resampled scores
gain        the gain in one unit, with its interval and p value
mean_gain   the gain in the mean over units
mean_gains  several of them at once
mean_p      its p value alone
holm        Holm's correction of p values
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from xlt_bench.metrics.significance import (
    N_RESAMPLES,
    Counts,
    Floats,
    Score,
    resample_sums,
    total,
)

LEVEL = 0.95
ALPHA = 0.05
"""A gain is significant if its corrected p value is below this."""
POWER = 0.8
FEW = 12
"""Up to this many items that differ, all ways to swap them are counted: 4,096."""
_FIRST = 256  # items of a unit that are compared before all are
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
        sums: The summed counts of each replicate, (n_resamples, k); None for a mean.
    """

    value: float
    drawn: Floats
    n: int
    counts: Counts | None = None
    score: Score | None = None
    sums: Floats | None = None


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
            value = score(total(matrices[place]))
            own = sums[:, column : column + width]
            found[place] = Replicates(float(value), score(own), length, matrices[place], score, own)
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


Units = Mapping[str, Replicates]
"""A system's replicates by unit."""


def mean_gain(systems: Units, baselines: Units) -> Gain:
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
    return mean_gains([(systems, baselines)])[0]


def mean_gains(pairs: Sequence[tuple[Units, Units]]) -> list[Gain]:
    """Compute several gains as `mean_gain` does, several times as fast as one by one.

    Args:
        pairs: The replicates of a system and of its baseline, all with equally many replicates.
    """
    if not pairs:
        return []
    for systems, baselines in pairs:
        _check_paired(systems, baselines)
    values = [_mean_value(a, b) for a, b in pairs]
    drawn = np.stack([_mean_difference(a, b) for a, b in pairs])
    ends = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    errors = np.std(drawn, axis=1, ddof=1)
    far = _far(drawn, np.array(values))
    factor = float(ndtri((1 + LEVEL) / 2) + ndtri(POWER))
    found = []
    for place, ((systems, baselines), value) in enumerate(zip(pairs, values, strict=True)):
        error = float(errors[place])
        p = _bootstrap_p(int(far[place]), drawn.shape[1], value, error)
        found.append(
            Gain(
                value,
                float(ends[0, place]),
                float(ends[1, place]),
                _p(systems, baselines, p),
                factor * error if error else None,
            )
        )
    return found


def mean_p(systems: Units, baselines: Units) -> float:
    """Compute the p value of `mean_gain`, in a third of the time."""
    _check_paired(systems, baselines)
    value, drawn = _mean_value(systems, baselines), _mean_difference(systems, baselines)[None]
    far, error = int(_far(drawn, np.array([value]))[0]), float(np.std(drawn, axis=1, ddof=1)[0])
    return _p(systems, baselines, _bootstrap_p(far, drawn.shape[1], value, error))


def _check_paired(systems: Units, baselines: Units) -> None:
    if not systems or systems.keys() != baselines.keys():
        raise ValueError(f"units differ: {sorted(systems)} and {sorted(baselines)}")
    for unit, one in systems.items():
        if one.n != baselines[unit].n:
            raise ValueError(f"{unit}: {one.n} items against {baselines[unit].n}: not paired")


def _mean_value(systems: Units, baselines: Units) -> float:
    values = [one.value - baselines[unit].value for unit, one in systems.items()]
    return values[0] if len(values) == 1 else float(np.mean(values))


def _mean_difference(systems: Units, baselines: Units) -> Floats:
    """The replicates of a mean gain, (n_resamples,)."""
    summed = np.zeros(len(next(iter(systems.values())).drawn))
    for unit, one in systems.items():
        summed += one.drawn - baselines[unit].drawn
    return summed / len(systems)


def _far(drawn: Floats, values: Floats) -> NDArray[np.int64]:
    """How many replicates (rows, n_resamples) are as far from their mean as the value from zero."""
    # The tolerance lets differences count as equal that differ by rounding alone.
    apart = np.abs(drawn - drawn.mean(axis=1, keepdims=True))
    found: NDArray[np.int64] = (apart >= np.abs(values)[:, None] - 1e-9).sum(axis=1)
    return found


def _p(systems: Units, baselines: Units, bootstrap: float) -> float:
    """The p value of the exact test where few items differ, else that of the bootstrap."""
    ours, theirs = (
        {unit: one.counts for unit, one in method.items() if one.counts is not None}
        for method in (systems, baselines)
    )
    score = next(iter(systems.values())).score
    if score is None or not ours.keys() == theirs.keys() == systems.keys():
        return bootstrap
    if _many_differ(ours, theirs, bootstrap):
        return bootstrap
    n, differing = _differing(ours, theirs)
    if differing is not None:
        return _exact_p(ours, theirs, score, differing)
    return max(bootstrap, 2.0 ** (1 - n))


def _many_differ(
    ours: Mapping[str, Counts], theirs: Mapping[str, Counts], bootstrap: float
) -> bool:
    """Whether more than `FEW` items differ, and so many that they allow the bootstrap's p.

    In most comparisons the first items of one unit show it, so that the others need not be read.
    """
    for unit, counts in ours.items():
        n = int((counts[:_FIRST] != theirs[unit][:_FIRST]).any(axis=1).sum())
        if n > FEW and 2.0 ** (1 - n) <= bootstrap:
            return True
    return False


def _bootstrap_p(far: int, n_resamples: int, value: float, error: float) -> float:
    if far >= _MEASURED or not error:
        return (far + 1) / (n_resamples + 1)
    return float(2 * ndtr(-abs(value) / error))


def exact_p(ours: Mapping[str, Counts], theirs: Mapping[str, Counts], score: Score) -> float | None:
    """Test the difference in the mean over units exactly, where up to 12 items differ.

    Args:
        ours: Counts (n, k) of one system by unit.
        theirs: Those of the other, for the same units and items.
        score: The score, as a function of summed counts.

    Returns:
        The share of all ways to swap the answers of the two systems to these items whose difference
        is at least as far from zero; None if more items differ.
    """
    _, differing = _differing(ours, theirs)
    return None if differing is None else _exact_p(ours, theirs, score, differing)


Place = tuple[int, int]
"""An item: how many its unit has, and its number. Units of one size are parallel, as for the
bootstrap, so that an item of theirs counts once and is swapped in all of them."""


def _differing(
    ours: Mapping[str, Counts], theirs: Mapping[str, Counts]
) -> tuple[int, list[Place] | None]:
    """The number of items that differ, and which, unless they are more than `FEW`."""
    flags: dict[int, NDArray[np.bool_]] = {}
    for unit, counts in ours.items():
        differ = (counts != theirs[unit]).any(axis=1)
        flags[len(counts)] = flags.get(len(counts), False) | differ
    n = sum(int(flag.sum()) for flag in flags.values())
    if n > FEW:
        return n, None
    places = [(size, i) for size, flag in flags.items() for i in np.flatnonzero(flag).tolist()]
    return n, sorted(places)


def _exact_p(
    ours: Mapping[str, Counts],
    theirs: Mapping[str, Counts],
    score: Score,
    differing: Sequence[Place],
) -> float:
    swapped = _subsets(len(differing))
    differences = np.zeros(len(swapped))
    for unit, counts in ours.items():
        other = theirs[unit]
        change = np.zeros((len(differing), counts.shape[1]))
        for row, (n, number) in enumerate(differing):
            if n == len(counts):
                change[row] = other[number].astype(float) - counts[number]
        sums = [total(one) for one in (counts, other)]
        moved = swapped @ change
        differences += score(sums[0] + moved) - score(sums[1] - moved)
    # The first subset is empty: nothing is swapped.
    return float((np.abs(differences) >= abs(differences[0]) - 1e-9).mean())


@cache
def _subsets(n: int) -> Floats:
    """All subsets of n places, the empty one first: (2^n, n) of 0 and 1."""
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
