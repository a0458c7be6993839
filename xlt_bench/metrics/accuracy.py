"""Jeffreys' interval of an accuracy, which claims no certainty where nothing was right.

A bootstrap of items that were all wrong has the interval 0 to 0. Jeffreys' interval (Brown, Cai and
DasGupta, 2001) ends above it. In retrieval an item is a sentence with many questions, whose answers
are not independent: the interval is that of as many independent questions as give the variance
that the sentences have (Korn and Graubard, 1998).
"""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv

from xlt_bench.metrics.significance import Counts, Interval, percent


def accuracy_interval(counts: Counts, level: float = 0.95) -> Interval:
    """Compute the per cent of questions that were answered right, with Jeffreys' interval.

    Args:
        counts: (n, 2): the right answers and the questions of each item.
        level: The confidence level.

    Returns:
        The accuracy and the ends of its interval, 0 to 100; all 0 if there are no questions.

    Raises:
        ValueError: If there are no items.
    """
    right, asked = np.asarray(counts, dtype=np.float64).reshape(-1, 2).T
    if not len(right):
        raise ValueError("counts must have at least one item")
    total = asked.sum()
    if not total:
        return Interval(0.0, 0.0, 0.0)
    share = right.sum() / total
    variance = ((right - share * asked) ** 2).sum() / total**2
    # Where all answers are right or wrong, items show no variance: each counts as one question.
    independent = share * (1 - share) / variance if variance else np.count_nonzero(asked)
    hits, misses = share * independent, (1 - share) * independent
    tail = (1 - level) / 2
    low = betaincinv(hits + 0.5, misses + 0.5, tail) if share > 0 else 0.0
    high = betaincinv(hits + 0.5, misses + 0.5, 1 - tail) if share < 1 else 1.0
    # The value is that of the metric to the last bit.
    value = float(percent(np.array([right.sum(), total])))
    return Interval(value, 100 * float(low), 100 * float(high))
