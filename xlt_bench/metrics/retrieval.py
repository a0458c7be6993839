"""Sentence retrieval between two languages, as LASER's xSIM does it with the ratio margin.

A query's candidates are its k nearest sentences of the other language by cosine. A candidate's
score is the cosine divided by the mean of two means: the query's cosines to its k nearest and the
candidate's to its own k nearest (Artetxe and Schwenk, 2019, "ratio" margin). The best candidate is
the answer; it is right where it stands at the query's position. The paper (Section 4) averages
this accuracy over ordered pairs of languages and over even-numbered layers.

Ties are decided by rule and not by the machine: candidates are ordered by falling cosine and then
by index, and the first of equal scores wins.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from xlt_bench.metrics.significance import Counts

K = 4


def normalise(states: Tensor) -> Tensor:
    """Sentence states (n, d) as unit-length float32 rows; a zero row stays zero.

    Raises ValueError where a state is not finite (an overflow of half precision, most often): a
    NaN has no nearest sentence.
    """
    states = states.to(torch.float32)
    # A row is finite where its length is: one pass over the states instead of three.
    lengths = torch.linalg.vector_norm(states, dim=1, keepdim=True)
    if not torch.isfinite(lengths).all():
        raise ValueError("hidden states hold values that are not finite")
    unit: Tensor = states / lengths.clamp_min(1e-12)
    return unit


def neighbours(x: Tensor, y: Tensor, k: int = K) -> tuple[Tensor, Tensor]:
    """The answers of both directions from one matrix product.

    x (n, d) and y (m, d) are unit-length float32 rows on one device. Returns `forward` (n,), the
    index in y of the answer to each x, and `backward` (m,), the index in x of the answer to each
    y: int16 where the index fits, int64 else. With fewer than k candidates all are taken. Raises
    ValueError if a side is empty or k is less than 1.
    """
    if not (len(x) and len(y)) or k < 1:
        raise ValueError(f"nothing to retrieve: {len(x)} and {len(y)} sentences, k = {k}")
    cosines = _cosines(x, y)
    near_x, index_x = _nearest(cosines, k)
    near_y, index_y = _nearest(cosines.T, k)
    return _best(near_x, index_x, near_y), _best(near_y, index_y, near_x)


def all_pairs(states: Mapping[str, Tensor]) -> dict[tuple[str, str], Tensor]:
    """The answers of every ordered pair of languages at one layer.

    `states` holds (n, d) per language, parallel by row; the result holds n indices per pair.
    """
    unit = {code: normalise(matrix) for code, matrix in states.items()}
    table: dict[tuple[str, str], Tensor] = {}
    for a, b in itertools.combinations(unit, 2):
        table[a, b], table[b, a] = neighbours(unit[a], unit[b])
    return table


def _cosines(x: Tensor, y: Tensor) -> Tensor:
    """The matrix (n, m) of cosines, equal wherever the sentences are equal.

    A matrix product rounds an element by its place (edges of a tile run other code), so that two
    copies of a sentence may differ in the last bit and the tie rule would not see them as ties.
    """
    cosines = x @ y.T
    first_x, first_y = _first_copies(x), _first_copies(y)
    if first_x is not None:
        cosines = cosines[first_x]
    if first_y is not None:
        cosines = cosines[:, first_y]
    return cosines


def _first_copies(rows: Tensor) -> Tensor | None:
    """For each row the index of the first row that equals it, or None if all differ."""
    # Rows that are equal agree in their first number; almost all others are told apart by it.
    _, group, size = torch.unique(rows[:, 0], return_inverse=True, return_counts=True)
    suspects: list[int] = (size[group] > 1).nonzero().flatten().tolist()
    first = torch.arange(len(rows), device=rows.device)
    seen: dict[bytes, int] = {}
    found = False
    for i in suspects:
        earlier = seen.setdefault(rows[i].cpu().numpy().tobytes(), i)
        found |= earlier != i
        first[i] = earlier
    return first if found else None


def _nearest(cosines: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and their columns, both (n, min(k, m)), ties by lower column.

    topk finds the values but promises no order among equals; rows in which two of the k + 1
    largest are equal (few, in real data) are therefore sorted stably.
    """
    columns = cosines.shape[1]
    values, index = cosines.topk(min(k + 1, columns), dim=1)
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1).nonzero().flatten()
    if len(tied):
        order = cosines[tied].sort(dim=1, descending=True, stable=True).indices
        index[tied] = order[:, : index.shape[1]]
    return values[:, :k], index[:, :k]


def _best(near: Tensor, index: Tensor, other: Tensor) -> Tensor:
    """The candidate of the best margin score in each row: (n,).

    near, index (n, k) are the queries' nearest, other (m, k') the cosines of the candidates' own.
    """
    # The mean of the two means, times 2 k k': one rounding (of the quotient, in double precision)
    # is all that remains, so that scores are equal exactly where their fractions are.
    near, other = near.double(), other.double()
    margin = (
        near.sum(dim=1, keepdim=True) * other.shape[1] + other.sum(dim=1)[index] * near.shape[1]
    )
    # 0/0 (nothing in common) counts as 0; c/0 stays infinite, with the sign of c.
    scores = (near / margin).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    chosen = index.gather(1, scores.argmax(dim=1, keepdim=True)).squeeze(1)
    small = len(other) <= torch.iinfo(torch.int16).max
    return chosen.to(torch.int16 if small else torch.int64)


def correct_counts(answers: Tensor) -> Counts:
    """Counts (n, 2) of (right, 1) for each query: the input of `significance.percent`.

    `answers` (n,) is one direction of `neighbours` on parallel sentences.
    """
    right = (answers.cpu().long() == torch.arange(len(answers))).numpy()
    return np.stack([right, np.ones_like(right)], axis=1).astype(np.int64)


def accuracy(answers: Tensor) -> float:
    """Retrieval accuracy of one ordered pair, 0 to 100. Raises ValueError without answers."""
    if not len(answers):
        raise ValueError("no answers: accuracy is undefined")
    return 100.0 * float(correct_counts(answers)[:, 0].mean())


def even_layers(n_layers: int) -> list[int]:
    """The layers that the aggregate averages over: 2, 4, ... up to n_layers (decoder blocks)."""
    return list(range(2, n_layers + 1, 2))
