"""Is the gain of one system over another real: paired bootstrap, corrected over languages.

Both systems answered the same items. A replicate draws items once and scores both on them, so what
makes an item hard cancels out. `significance.resample_sums` draws by the number of items and the
seed alone: two systems' replicates are paired without being computed together.
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
"""A gain is marked where its corrected p is below this."""


@dataclass(frozen=True)
class Replicates:
    """A unit's score, in its unit, and the scores of its resamples: (n_resamples,)."""

    value: float
    drawn: Floats
    n: int


@dataclass(frozen=True)
class Gain:
    """System minus baseline: the difference, its percentile interval, the two-sided p value."""

    value: float
    low: float
    high: float
    p: float


def replicates(
    matrices: Sequence[Counts], score: Score, n_resamples: int = N_RESAMPLES
) -> list[Replicates]:
    """The scores of each matrix of counts (n, k) and of its resamples.

    Matrices of equal length are multiplied with one draw: of many units or systems at once this is
    much faster than one by one, and gives the same. Raises ValueError for an empty matrix.
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
    """The gain in one unit.

    p is the share of replicates whose difference lies as far from the replicates' mean as the
    observed difference lies from zero, to either side, one added to both counts (Koehn, 2004, with
    the shift and the correction of sacreBLEU's paired bootstrap, which counts one side only).
    Raises ValueError where the two have other numbers of items or replicates.
    """
    return mean_gain({"": system}, {"": baseline})


def mean_gain(systems: Mapping[str, Replicates], baselines: Mapping[str, Replicates]) -> Gain:
    """The gain in the unweighted mean over units that both have; units are not resampled.

    Raises ValueError as `gain` does, or where the units differ or there are none.
    """
    if not systems or systems.keys() != baselines.keys():
        raise ValueError(f"units differ: {sorted(systems)} and {sorted(baselines)}")
    for unit, one in systems.items():
        if one.n != baselines[unit].n:
            raise ValueError(f"{unit}: {one.n} items against {baselines[unit].n}: not paired")
    value = float(np.mean([one.value - baselines[unit].value for unit, one in systems.items()]))
    drawn = np.mean([one.drawn - baselines[unit].drawn for unit, one in systems.items()], axis=0)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # Equal differences must count as equal whatever the last bit of a mean is.
    far = np.abs(drawn - drawn.mean()) >= abs(value) - 1e-9
    return Gain(value, float(low), float(high), float((far.sum() + 1) / (len(drawn) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm, 1979), in the order given; at most 1."""
    order = np.argsort(p_values, kind="stable")
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected
