"""Linear CKA between two languages' states (Kornblith et al., 2019; arXiv 1905.00414).

The estimator is the unbiased one of Song et al. (2012), as in Nguyen et al. (2021; arXiv
2010.15327): a micro-batch has fewer sentences than a state has dimensions, where the usual one is
near 1 for any two sets of states.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 4
"""Pairs that the estimator needs."""


def cka_loss(anchors: Tensor, candidates: Tensor) -> Tensor:
    """Compute 1 - CKA of the sentences' similarities within each side.

    Args:
        anchors: (n, d), the first sides, n at least `LEAST`.
        candidates: (n, d), their translations, row by row.

    Returns:
        A scalar, 0 to 2; float32, or float64 if the states are. 0 if one side is the other turned
        and scaled.
    """
    precision = torch.promote_types(anchors.dtype, torch.float32)
    first, second = (_centred(side.to(precision)) for side in (anchors, candidates))
    loss: Tensor = 1 - (first * second).sum() / (first.norm() * second.norm())
    return loss


def _centred(states: Tensor) -> Tensor:
    """The similarities (n, n) of states (n, d), U-centred (Székely and Rizzo, 2014).

    The inner product of two such matrices is n (n - 3) times the unbiased HSIC.
    """
    n = len(states)
    states = states - states.mean(0)  # changes nothing but the rounding
    off = 1 - torch.eye(n, dtype=states.dtype, device=states.device)
    similarities = (states @ states.T) * off
    sums = similarities.sum(0)
    means = (sums[:, None] + sums) / (n - 2) - sums.sum() / ((n - 1) * (n - 2))
    return (similarities - means) * off
