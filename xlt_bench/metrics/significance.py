"""Bootstrap intervals (Koehn, 2004) of scores that are functions of sums.

Every score of the benchmark is a function of SUMS of per-item counts: an item (an utterance, a
segment, a sentence) contributes one row of k additive counts, and `score` maps sums of shape
(..., k) to scores of shape (...). F1, corpus BLEU, chrF++ and accuracies all have this form, so a
resample costs one row of a matrix product and never scores an item twice.

Items are resampled with indices that depend on nothing but the number of items and the seed. Test
sets of equal size, as MASSIVE's languages are, are parallel and are therefore resampled jointly:
replicate r draws the same utterances in every language, and in every system. Sets of different
sizes get independent draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[Any]
"""Additive counts, one row an item: (n, k), integer or floating."""

Floats = NDArray[np.float64]

Score = Callable[[Floats], Floats]
"""Sums (..., k) to scores (...)."""

SEED = 20250220
N_RESAMPLES = 1000
_CELLS = 2_000_000  # of one chunk's index and weight matrices, 8 bytes a cell and matrix
_KEPT_CELLS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A score on the items themselves and the ends of its bootstrap interval, in its unit."""

    value: float
    low: float
    high: float


def percent(sums: Floats) -> Floats:
    """The share of items that have a property, 0 to 100: (..., 2) sums of (hits, items) to (...).

    0 where there are no items. The score of accuracies and of failure rates.
    """
    hits, items = sums[..., 0], sums[..., 1]
    return np.divide(100.0 * hits, items, out=np.zeros(np.shape(hits)), where=items != 0)


def resample_sums(counts: Counts, n_resamples: int = N_RESAMPLES, seed: int = SEED) -> Floats:
    """Sums of the counts (n, k) over resampled items: (n_resamples, k).

    Each replicate draws n items with replacement. The draws depend on n and seed alone, so calls
    on parallel sets resample the same items. Sums of integers are exact. Peak memory stays near
    50 MB up to a million items, and 64 MB are kept for the next sets of the same size. Raises
    ValueError if counts is not a matrix or has no items.
    """
    matrix = _matrix(counts)
    n = len(matrix)
    draw = _kept_weights if n * n_resamples <= _KEPT_CELLS else _weights
    return np.concatenate([weights @ matrix for weights in draw(n, n_resamples, seed)])


def _weights(n: int, n_resamples: int, seed: int) -> Iterator[Floats]:
    """How often each of n items is drawn in each replicate: (rows, n), all rows together."""
    # The size is part of the seed: sets of different sizes must not share a stream of draws.
    generator = np.random.default_rng([seed, n])
    most = max(1, _CELLS // n)
    for start in range(0, n_resamples, most):
        rows = min(most, n_resamples - start)
        drawn = generator.integers(0, n, size=(rows, n))
        drawn += np.arange(rows)[:, None] * n
        found = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        yield found.astype(np.float64)


@lru_cache(maxsize=2)
def _kept_weights(n: int, n_resamples: int, seed: int) -> list[Floats]:
    """The same, kept: MASSIVE's languages, metrics and systems are all resampled alike."""
    return list(_weights(n, n_resamples, seed))


def _matrix(counts: Counts) -> Floats:
    matrix = np.asarray(counts, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"counts must have shape (items, k), not {matrix.shape}")
    if not len(matrix):
        raise ValueError("no items: a score of nothing has no interval")
    return matrix


def interval(
    counts: Counts,
    score: Score,
    level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """The score of the counts (n, k) with its percentile interval.

    Raises ValueError if there are no items or level is not between 0 and 1.
    """
    return mean_interval({"": counts}, score, level, n_resamples, seed)


def mean_interval(
    counts_by_language: Mapping[str, Counts],
    score: Score,
    level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """The unweighted mean over languages of a score, with its percentile interval.

    Each replicate scores every language's counts (n, k) and then averages; languages with equally
    many items are resampled jointly, others independently. Languages are a fixed set and are not
    resampled. Raises ValueError if there is no language, a language has no items, or level is not
    between 0 and 1.
    """
    if not counts_by_language:
        raise ValueError("no languages: there is nothing to average")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    matrices = {language: _matrix(counts) for language, counts in counts_by_language.items()}
    values = [score(matrix.sum(axis=0)) for matrix in matrices.values()]
    replicates = np.mean(
        [score(resample_sums(matrix, n_resamples, seed)) for matrix in matrices.values()], axis=0
    )
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean(values)), float(low), float(high))
