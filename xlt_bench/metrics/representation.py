"""Measures of how alike the hidden states of a sentence and its translation are.

mexa           alignment score of MEXA: sentences that are nearest to their translations both ways
cosine_margin  how far the cosines of pairs lie above those of non-pairs
cka            linear CKA between the states of two languages
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 4
"""Sentences that the estimator of `cka` needs."""
MEXA_SENTENCES = 100
"""The sentences that MEXA compares in its paper and, by default, in its code: the first ones. The
score falls with their number, since each is compared with all others."""


def mexa(first: Tensor, second: Tensor) -> float:
    """Compute MEXA's alignment score (Kargaran et al., 2025; arXiv 2410.05873).

    A sentence counts if its cosine with its translation is strictly larger than its cosines with
    all other sentences, and than those of its translation with all others: the diagonal of the
    matrix of cosines is the only largest value of its row and of its column.

    Args:
        first: (n, d), the states of one language, such as the position-weighted mean over tokens or
            the state of the last token.
        second: (n, d), those of their translations in the pivot, row by row.

    Returns:
        Per cent of sentences.
    """
    cosines = _directions(first) @ _directions(second).T
    right = cosines.diagonal().clone()
    cosines.fill_diagonal_(-torch.inf)
    highest = torch.maximum(cosines.amax(dim=0), cosines.amax(dim=1))
    return 100.0 * float((right > highest).double().mean())


def cosine_margin(first: Tensor, second: Tensor) -> float:
    """Subtract the mean cosine of non-pairs from that of pairs.

    States of most models fill a narrow cone, in which any two have a high cosine; the difference is
    what translations have in common beyond that.

    Args:
        first: (n, d), n at least 2.
        second: (n, d), their translations, row by row.

    Returns:
        The difference, -2 to 2.
    """
    ours, theirs = _directions(first), _directions(second)
    # The sum of all n x n cosines is the product of the sums: no matrix is needed.
    n, pairs, every = len(ours), (ours * theirs).sum(), ours.sum(0) @ theirs.sum(0)
    return float(pairs / n - (every - pairs) / (n * (n - 1)))


def _directions(states: Tensor) -> Tensor:
    """States of length 1 in double precision, as MEXA's code has them."""
    return torch.nn.functional.normalize(states.double(), dim=1)


def cka(first: Tensor, second: Tensor) -> Tensor:
    """Compute linear CKA (Kornblith et al., 2019; arXiv 1905.00414).

    The estimator is the unbiased one of Song et al. (2012), as in Nguyen et al. (2021; arXiv
    2010.15327): with fewer sentences than a state has dimensions, the usual one is near 1 for any
    two sets of states.

    Args:
        first: (n, d), n at least `LEAST`.
        second: (n, e), row by row of the same sentences.

    Returns:
        A scalar, at most 1, which it is if one side is the other turned and scaled; 0 for unrelated
        states, but for noise. float32, or float64 if the states are.
    """
    return cka_of(centred(first), centred(second))


def cka_of(ours: Tensor, theirs: Tensor) -> Tensor:
    """Compute `cka` from the `centred` similarities of both sides, (n, n) each."""
    found: Tensor = (ours * theirs).sum() / (ours.norm() * theirs.norm())
    return found


def centred(states: Tensor) -> Tensor:
    """The similarities (n, n) of states (n, d), U-centred (Székely and Rizzo, 2014).

    The inner product of two such matrices is n (n - 3) times the unbiased HSIC. float32, or float64
    if the states are.
    """
    n = len(states)
    states = states.to(torch.promote_types(states.dtype, torch.float32))
    states = states - states.mean(0)  # changes nothing but the rounding
    off = 1 - torch.eye(n, dtype=states.dtype, device=states.device)
    similarities = (states @ states.T) * off
    sums = similarities.sum(0)
    means = (sums[:, None] + sums) / (n - 2) - sums.sum() / ((n - 1) * (n - 2))
    return (similarities - means) * off
