"""Retrieval accuracy between two languages, by the ratio margin, as LASER's xSIM computes it.

The candidates of a query are its k nearest sentences in the other language by cosine. The score of
a candidate is its cosine divided by the mean of two means: of the query's cosines to its k nearest,
and of the candidate's to its own k nearest (the ratio margin of Artetxe and Schwenk, 2019). The
best candidate is retrieved, and correct if its index is the query's. The paper (section 4) averages
this accuracy over ordered pairs of languages and over even-numbered layers.

Ties do not depend on the machine: candidates are ordered by descending cosine, then by index, and
the first of equal scores wins.

normalise       hidden states to unit length
neighbours      the retrieved sentences of both directions
correct_counts  counts for `significance.percent`
accuracy        the accuracy of one ordered pair
even_layers     the layers of the aggregate
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
    """Scale sentence states to unit length.

    Args:
        states: (n, d), of any dtype.

    Returns:
        (n, d), float32; a row of zeros stays zero.

    Raises:
        ValueError: If a value is not finite (mostly an overflow in half precision).
    """
    states = states.to(torch.float32)
    # A row is finite if its length is; this takes one pass over the states instead of three.
    lengths = torch.linalg.vector_norm(states, dim=1, keepdim=True)
    if not torch.isfinite(lengths).all():
        raise ValueError("hidden states have values that are not finite")
    unit: Tensor = states / lengths.clamp_min(1e-12)
    return unit


def neighbours(x: Tensor, y: Tensor, k: int = K) -> tuple[Tensor, Tensor]:
    """Retrieve in both directions, from one matrix product.

    Args:
        x: (n, d), rows of unit length, float32.
        y: (m, d), rows of unit length, float32, on the same device.
        k: Number of candidates; all if there are fewer.

    Returns:
        For each row of x the index in y that it retrieves, (n,), and for each row of y the index in
        x, (m,); int16 if the indices fit, else int64.

    Raises:
        ValueError: If x or y is empty, or k is less than 1.
    """
    if not (len(x) and len(y)) or k < 1:
        raise ValueError(
            f"retrieval needs sentences on both sides and k of at least 1, got {len(x)} and "
            f"{len(y)} sentences, k {k}"
        )
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
    """Cosines (n, m), which are equal if the sentences are equal.

    A matrix product may round copies of a sentence differently (the edges of a tile run other
    code), and the tie rule would not apply to them.
    """
    cosines = x @ y.T
    first_x, first_y = _first_copies(x), _first_copies(y)
    if first_x is not None:
        cosines = cosines[first_x]
    if first_y is not None:
        cosines = cosines[:, first_y]
    return cosines


def _first_copies(rows: Tensor) -> Tensor | None:
    """For each row the index of the first row that is equal to it; None if all differ."""
    # Equal rows agree in their first number, and almost all other rows differ in it.
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
    """The k largest of each row and their columns, both (n, min(k, m)); of ties the lower column.

    topk does not define the order of equal values, so rows in which two of the k + 1 largest are
    equal (few, in real data) are sorted stably.
    """
    columns = cosines.shape[1]
    values, index = cosines.topk(min(k + 1, columns), dim=1)
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1).nonzero().flatten()
    if len(tied):
        order = cosines[tied].sort(dim=1, descending=True, stable=True).indices
        index[tied] = order[:, : index.shape[1]]
    return values[:, :k], index[:, :k]


def _best(near: Tensor, index: Tensor, other: Tensor) -> Tensor:
    """The candidate with the best margin score in each row: (n,).

    near and index (n, k) are the cosines and indices of the queries' nearest, other (m, k') the
    cosines of the candidates' own nearest.
    """
    # The mean of the two means, times 2 k k'. Only the quotient is rounded, in double precision, so
    # scores are equal exactly if the fractions are.
    near, other = near.double(), other.double()
    margin = (
        near.sum(dim=1, keepdim=True) * other.shape[1] + other.sum(dim=1)[index] * near.shape[1]
    )
    # 0/0 (nothing in common) counts as 0; c/0 is infinite, with the sign of c.
    scores = (near / margin).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    chosen = index.gather(1, scores.argmax(dim=1, keepdim=True)).squeeze(1)
    small = len(other) <= torch.iinfo(torch.int16).max
    return chosen.to(torch.int16 if small else torch.int64)


def correct_counts(answers: Tensor) -> Counts:
    """Count correct answers, for `significance.percent`.

    Args:
        answers: (n,), one direction of `neighbours` on parallel sentences.

    Returns:
        (n, 2): 1 or 0 for correct or not, and 1.
    """
    right = (answers.cpu().long() == torch.arange(len(answers))).numpy()
    return np.stack([right, np.ones_like(right)], axis=1).astype(np.int64)


def accuracy(answers: Tensor) -> float:
    """Compute the accuracy of one ordered pair.

    Args:
        answers: (n,), one direction of `neighbours` on parallel sentences.

    Returns:
        0 to 100.

    Raises:
        ValueError: If there are no answers.
    """
    if not len(answers):
        raise ValueError("accuracy needs at least one answer")
    return 100.0 * float(correct_counts(answers)[:, 0].mean())


def even_layers(n_layers: int) -> list[int]:
    """List the layers that the aggregate averages over.

    Args:
        n_layers: Decoder blocks of the model.

    Returns:
        2, 4, ... up to `n_layers`.
    """
    return list(range(2, n_layers + 1, 2))
