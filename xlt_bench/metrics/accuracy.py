"""Jeffreys' interval of an accuracy, which claims no certainty where nothing was right.

A bootstrap of items that were all wrong has the interval 0 to 0. Jeffreys' interval (Brown, Cai and
DasGupta, 2001) ends above it. In retrieval an item is a sentence with many questions, whose answers
are not independent: the interval is that of as many independent questions as give the variance
that the sentences have (Korn and Graubard, 1998).

accuracy_interval  an accuracy with Jeffreys' interval
never_certain      the interval of a mean of accuracies, also where nothing was right
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from scipy.special import betaincinv

from xlt_bench.metrics.significance import Counts, Interval, total


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
    right, asked = np.ascontiguousarray(np.reshape(counts, (-1, 2)).T, dtype=np.float64)
    if not len(right):
        raise ValueError("counts must have at least one item")
    hits, questions = right.sum(), asked.sum()
    if not questions:
        return Interval(0.0, 0.0, 0.0)
    share = hits / questions
    variance = ((right - share * asked) ** 2).sum() / questions**2
    # Where all answers are right or wrong, items show no variance: each counts as one question.
    independent = share * (1 - share) / variance if variance else np.count_nonzero(asked)
    a, b = share * independent + 0.5, (1 - share) * independent + 0.5
    tail = (1 - level) / 2
    low = betaincinv(a, b, tail) if share > 0 else 0.0
    high = betaincinv(a, b, 1 - tail) if share < 1 else 1.0
    # The value is that of the metric, `percent`, to the last bit.
    return Interval(float(100.0 * hits / questions), 100 * float(low), 100 * float(high))


def never_certain(found: Interval, units: Collection[Counts]) -> Interval:
    """Widen the bootstrap interval of a mean over units if all of them are wholly wrong or right.

    No resample of such units differs from another. The ends are then the means of the ends of the
    units' Jeffreys intervals, as if all units erred to the same side: too wide rather than too
    narrow, whether their items are translations of each other or not.

    Args:
        found: The mean with its bootstrap interval.
        units: (n, 2) each: the right answers and the questions of each item of a unit.

    Returns:
        The mean with its interval.
    """
    sums = (total(np.asarray(one)) for one in units)
    if not all(right in (0, asked) for right, asked in sums):
        return found
    each = [accuracy_interval(one) for one in units]
    low, high = (float(np.mean([getattr(one, end) for one in each])) for end in ("low", "high"))
    return Interval(found.value, low, high)
