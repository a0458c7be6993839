"""Intervals of the difference between two methods, which cover their seeds and the test items.

The systems of a method differ in their seed alone. The difference D of the means of two methods has
two independent sources of error:

seeds   If the systems are paired by seed, s/sqrt(S): s is the standard deviation of the differences
        of S pairs, with S - 1 degrees of freedom. Two trainings with one seed see the same data in
        the same order, so that much of what a seed does cancels out. A bare model, which has no
        seed, is paired with every system. Unpaired, sqrt(s²/S + t²/T) with the standard deviations
        of each method; Welch's degrees of freedom if S = T, else the smaller of S and T less one
        (Mickey and Brown, 1966), as Welch's fall short there.
items   The standard deviation of D over resampled items, with the systems as they are.

The half-width of the interval is the root of the sum of the squares of the two half-widths,
Student's for the seeds and the normal one for the items (Howe, 1974): an estimate from two seeds
gets the wide quantile that it needs, and the items do not. Item noise that differs from system to
system is part of both terms, so the interval is too wide rather than too narrow. p is the level at
which the interval ends at zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from xlt_bench.metrics.paired import LEVEL, POWER, Gain, Replicates
from xlt_bench.metrics.significance import Floats

_HALVINGS = 60


@dataclass(frozen=True)
class Difference:
    """The difference between two methods.

    Attributes:
        value: The difference of their means.
        spread: The standard deviation over seeds of the difference of two systems.
        of_seeds: The standard error that is due to seeds.
        df: Its degrees of freedom.
        of_items: The standard error that is due to items.
    """

    value: float
    spread: float
    of_seeds: float
    df: float
    of_items: float


def difference(
    systems: Sequence[Replicates], baselines: Sequence[Replicates], *, paired: bool
) -> Difference:
    """Subtract the mean of a method's systems from that of another's.

    Args:
        systems: The score of each system of the method, with replicates from the same draws.
        baselines: The same for the other method.
        paired: Whether each baseline has the seed of the system in the same place.

    Raises:
        ValueError: A method has fewer than two systems, or pairs are incomplete.
    """
    if min(len(systems), len(baselines)) < 2:
        raise ValueError("the spread over seeds needs at least two systems of each method")
    samples = [[one.value for one in method] for method in (systems, baselines)]
    value = float(np.mean(samples[0]) - np.mean(samples[1]))
    if paired:
        samples = [[a - b for a, b in zip(*samples, strict=True)]]
    variances = [float(np.var(sample, ddof=1)) for sample in samples]
    parts = [one / len(sample) for one, sample in zip(variances, samples, strict=True)]
    df = float(min(map(len, samples)) - 1)
    if len(set(map(len, samples))) == 1 and any(parts):
        df *= sum(parts) ** 2 / sum(part**2 for part in parts)
    drawn = _mean_drawn(systems) - _mean_drawn(baselines)
    return Difference(
        value=value,
        spread=sum(variances) ** 0.5,
        of_seeds=sum(parts) ** 0.5,
        df=df,
        of_items=float(np.std(drawn, ddof=1)),
    )


def _mean_drawn(method: Sequence[Replicates]) -> Floats:
    drawn: Floats = np.mean([one.drawn for one in method], axis=0)
    return drawn


def gains(differences: Sequence[Difference], level: float = LEVEL) -> list[Gain]:
    """Compute the interval and the two-sided p value of each difference.

    Args:
        differences: The differences.
        level: The confidence level.
    """
    if not differences:
        return []
    columns = [(one.value, one.of_seeds, one.df, one.of_items) for one in differences]
    value, of_seeds, df, of_items = np.array(columns).T
    half = _half_width(np.full(len(value), 1 - level), of_seeds, df, of_items)
    # The half-width falls with p, so halving the range finds where it is the difference.
    low, high = np.zeros(len(value)), np.ones(len(value))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        wide = _half_width(middle, of_seeds, df, of_items) > np.abs(value)
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    p = np.where(value == 0, 1.0, high)
    resolvable = half + _half_width(np.full(len(value), 2 * (1 - POWER)), of_seeds, df, of_items)
    rows = zip(value, value - half, value + half, p, resolvable, strict=True)
    return [Gain(*map(float, row)) for row in rows]


def _half_width(p: Floats, of_seeds: Floats, df: Floats, of_items: Floats) -> Floats:
    # Where p is 0 or too small for its quantile, the half-width has no bound.
    with np.errstate(invalid="ignore"):
        student, normal = -stdtrit(df, p / 2) * of_seeds, -ndtri(p / 2) * of_items
    half: Floats = np.hypot(
        np.where(of_seeds > 0, student, 0.0), np.where(of_items > 0, normal, 0.0)
    )
    return half
