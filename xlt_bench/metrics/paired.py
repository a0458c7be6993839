"""Tests the gain of one system over another by a paired bootstrap, corrected over languages.

Both systems answered the same items. Each replicate draws items once and scores both systems on
them, so the difficulty of items cancels out. `significance.resample_sums` draws by the number of
items and the seed alone, so replicates of two systems are paired even if computed separately.

replicates  a system's resampled scores
gain        the gain in one unit, with its interval and p value
mean_gain   the gain in the mean over units
holm        Holm's correction of p values
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True)
class Replicates:
    """A score on a unit of a task, and the scores of its resamples."""

    value: float
    drawn: Floats
    """(n_resamples,)"""
    n: int
    """Number of items."""


@dataclass(frozen=True)
class Gain:
    """System minus baseline: the difference, its percentile interval and two-sided p value."""

    value: float
    low: float
    high: float
    p: float


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
            found[place] = Replicates(float(value), drawn, length)
            column += width
    return [found[place] for place in range(len(matrices))]


def gain(system: Replicates, baseline: Replicates) -> Gain:
    """Compute the gain in one unit.

    p is the share of replicates whose difference is at least as far from the mean of the replicates
    as the observed difference is from zero, in either direction, with one added to both counts
    (Koehn, 2004, with the shift and the correction of sacreBLEU's paired bootstrap, which is
    one-sided).

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
    # The tolerance lets differences count as equal that differ by rounding alone.
    far = np.abs(drawn - drawn.mean()) >= abs(value) - 1e-9
    return Gain(value, float(low), float(high), float((far.sum() + 1) / (len(drawn) + 1)))


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
