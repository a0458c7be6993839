"""Bootstrap intervals (Koehn, 2004) of scores that are functions of sums.

Every score of the benchmark is a function of sums of counts: an item (an utterance, a segment, a
sentence) contributes one row of k additive counts, and a score maps sums (..., k) to scores (...).
F1, corpus BLEU, chrF++ and accuracies all have this form, so a resample costs one row of a matrix
product, and no item is scored twice.

The draws depend only on the number of items and the seed. Test sets of equal size, such as those of
MASSIVE's languages, are parallel and are therefore resampled jointly: replicate r draws the same
utterances in every language and for every system. Sets of different sizes get independent draws.

percent            the score of accuracies and rates
total              sums of counts over items
resample_sums      sums of counts over resampled items
resample_together  the same for many counts, in less time
interval           a score with its interval
mean_interval      the mean of a score over languages with its interval
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[Any]
"""Additive counts, one row for each item: (n, k), integer or floating point."""

Floats = NDArray[np.float64]

Score = Callable[[Floats], Floats]
"""Sums (..., k) to scores (...)."""

Resample = Callable[[Counts], Floats]
"""Counts (n, k) to their sums over resampled items, (replicates, k)."""

SEED = 20250220
N_RESAMPLES = 1000
_CELLS = 100_000  # of the index and the weight matrix of a chunk, 8 bytes each: a CPU's cache
_KEPT_CELLS = 4_000_000  # of the draws that are cached, a byte each
_KEPT_SIZES = 40  # numbers of items whose draws are cached; the ranked tasks have 28
_EXACT = 2**24  # float32 has all integers up to this


@dataclass(frozen=True)
class Interval:
    """A score on the items themselves, and the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


def percent(sums: Floats) -> Floats:
    """Compute the per cent of items that have a property: accuracies and failure rates.

    Args:
        sums: (..., 2): sums of hits and items.

    Returns:
        (...): 0 to 100; 0 if there are no items.
    """
    hits, items = sums[..., 0], sums[..., 1]
    return np.divide(100.0 * hits, items, out=np.zeros(np.shape(hits)), where=items != 0)


def total(counts: Counts) -> Floats:
    """Sum counts over items.

    Args:
        counts: (n, k).

    Returns:
        (k,); sums of integers are exact.
    """
    if counts.dtype.kind in "biu":  # numpy adds rows of few columns much more slowly
        return np.ones(len(counts)) @ counts.astype(np.float64)
    found: Floats = counts.sum(axis=0, dtype=np.float64)
    return found


def resample_sums(counts: Counts, n_resamples: int = N_RESAMPLES, seed: int = SEED) -> Floats:
    """Sum counts over resampled items.

    Each replicate draws n items with replacement; the draws depend on n and the seed alone. Those
    of up to 40 sizes are cached, in 160 MB at most and 50 MB for the ranked tasks.

    Args:
        counts: (n, k).
        n_resamples: Number of replicates.
        seed: Seed of the draws.

    Returns:
        (n_resamples, k); sums of integers are exact.

    Raises:
        ValueError: If `counts` is not a matrix or has no rows.
    """
    matrix = _for_product(counts)
    draw = _kept_draws if len(matrix) * n_resamples <= _KEPT_CELLS else _draws
    parts = [
        drawn.astype(matrix.dtype).T @ matrix for drawn in draw(len(matrix), n_resamples, seed)
    ]
    return np.concatenate(parts).astype(np.float64)


def resample_sums_of(
    rows: NDArray[np.bool_], counts: Counts, n_resamples: int = N_RESAMPLES, seed: int = SEED
) -> Floats:
    """Sum the counts of some items over resamples of all items.

    Args:
        rows: (n,): which items count.
        counts: (n, k).
        n_resamples: Number of replicates.
        seed: Seed of the draws.

    Returns:
        What `resample_sums` returns if the other items have no counts; the fewer items count, the
        faster.
    """
    matrix = _for_product(counts)[rows]
    draws = _draws(len(rows), n_resamples, seed)
    parts = [drawn[rows].astype(matrix.dtype).T @ matrix for drawn in draws]
    return np.concatenate(parts).astype(np.float64)


def _for_product(counts: Counts) -> NDArray[Any]:
    """Counts in float32, in which products are twice as fast, if no sum can be rounded."""
    matrix = np.asarray(counts)
    is_integer = matrix.ndim == 2 and len(matrix) and matrix.dtype.kind in "biu"
    if is_integer and len(matrix) * int(np.abs(matrix).max(initial=0)) < _EXACT:
        return matrix.astype(np.float32)
    return _matrix(matrix)


def resample_together(
    all_counts: Iterable[Counts], n_resamples: int = N_RESAMPLES, seed: int = SEED
) -> Resample:
    """Sum many counts over resampled items, in one product for each number of items.

    Args:
        all_counts: Matrices (n, k), each with n and k of its own.
        n_resamples: Number of replicates.
        seed: Seed of the draws.

    Returns:
        What `resample_sums` returns for each of the matrices, looked up by the object.
    """
    by_size: dict[int, list[Counts]] = {}
    for counts in {id(counts): counts for counts in all_counts}.values():
        by_size.setdefault(len(counts), []).append(counts)
    # With the objects, since the id of one that is gone is given to another.
    found: dict[int, tuple[Counts, Floats]] = {}
    for same in by_size.values():
        matrices = [_matrix(counts) for counts in same]
        sums = resample_sums(np.hstack(matrices), n_resamples, seed)
        ends = np.cumsum([matrix.shape[1] for matrix in matrices])[:-1]
        parts = np.split(sums, ends, axis=1)
        found |= {id(one): (one, part) for one, part in zip(same, parts, strict=True)}
    return lambda counts: found[id(counts)][1]


def _draws(n: int, n_resamples: int, seed: int) -> Iterable[NDArray[Any]]:
    """How often each of n items is drawn: chunks (n, columns) with a column for each replicate."""
    draw = _kept_draws if n * n_resamples <= _KEPT_CELLS else _drawn
    return draw(n, n_resamples, seed)


def _drawn(n: int, n_resamples: int, seed: int) -> Iterator[NDArray[Any]]:
    """How often each of n items is drawn: chunks, as `_draws` returns them."""
    # n is part of the seed, so that sets of different sizes do not share a stream of draws.
    generator = np.random.default_rng([seed, n])
    most = max(1, _CELLS // n)
    for start in range(0, n_resamples, most):
        columns = min(most, n_resamples - start)
        drawn = generator.integers(0, n, size=(columns, n))
        drawn *= columns
        drawn += np.arange(columns)[:, None]
        yield np.bincount(drawn.ravel(), minlength=n * columns).reshape(n, columns)


@lru_cache(maxsize=_KEPT_SIZES)
def _kept_draws(n: int, n_resamples: int, seed: int) -> list[NDArray[Any]]:
    """The same in one chunk, cached: languages, metrics and systems share the draws."""
    # A byte each: an item that is drawn 256 times in n draws has a probability below 1e-500.
    found = np.empty((n, n_resamples), dtype=np.uint8)
    column = 0
    for drawn in _drawn(n, n_resamples, seed):
        found[:, column : column + drawn.shape[1]] = drawn
        column += drawn.shape[1]
    return [found]


def _matrix(counts: Counts) -> Floats:
    matrix = np.asarray(counts, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"counts must have shape (items, k), got {matrix.shape}")
    if not len(matrix):
        raise ValueError("counts must have at least one item")
    return matrix


def interval(
    counts: Counts,
    score: Score,
    level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """Compute a score and its percentile interval.

    Args:
        counts: (n, k).
        score: The score, as a function of summed counts.
        level: The confidence level.
        n_resamples: Number of replicates.
        seed: Seed of the draws.

    Returns:
        The score and the ends of its interval.

    Raises:
        ValueError: If there are no items, or `level` is not between 0 and 1.
    """
    return mean_interval({"": counts}, score, level, n_resamples, seed)


def mean_interval(
    counts_by_language: Mapping[str, Counts],
    score: Score,
    level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
    resample: Resample | None = None,
) -> Interval:
    """Compute the unweighted mean of a score over languages, and its percentile interval.

    Each replicate scores every language and averages. Languages with equally many items are
    resampled jointly, others independently; the set of languages is not resampled.

    Args:
        counts_by_language: Counts (n, k) of each language.
        score: The score, as a function of summed counts.
        level: The confidence level.
        n_resamples: Number of replicates.
        seed: Seed of the draws.
        resample: What `resample_together` returned for the same replicates of these counts.

    Returns:
        The mean and the ends of its interval.

    Raises:
        ValueError: If there are no languages, a language has no items, or `level` is not between 0
            and 1.
    """
    if not counts_by_language:
        raise ValueError("a mean needs at least one language")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    resample = resample or partial(resample_sums, n_resamples=n_resamples, seed=seed)
    values = [score(_matrix(counts).sum(axis=0)) for counts in counts_by_language.values()]
    replicates = np.mean(
        [score(resample(counts)) for counts in counts_by_language.values()], axis=0
    )
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean(values)), float(low), float(high))
