"""Optimal transport between the tokens of a sentence and of its translation.

The cost is what moving the one sentence's token states to the other's takes, in cosine distance,
each token with an equal share of its sentence (Alqahtani et al., 2021; arXiv 2110.06887). Tokens
are matched softly, without a word aligner, by Sinkhorn's iterations (Cuturi, 2013; arXiv
1306.0895).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_MOST_ITERATIONS, _BETWEEN_CHECKS = 1000, 10


def transport_loss(
    anchors: Tensor,
    anchor_mask: Tensor,
    candidates: Tensor,
    candidate_mask: Tensor,
    regularization: float,
) -> Tensor:
    """Compute the mean over pairs of min_P <P, C> + regularization * KL(P | a b).

    C holds the cosine distances; the plan P has the margins a and b, uniform over the tokens.

    Args:
        anchors: (n, s, d), states of the first sides' tokens.
        anchor_mask: (n, s), 1 for the tokens that count.
        candidates: (n, t, d), of their translations' tokens.
        candidate_mask: (n, t).
        regularization: Weight of the entropy term; the plan is sharper the lower it is.

    Returns:
        A scalar, 0 to 2; float32, or float64 if the states are.
    """
    precision = torch.promote_types(anchors.dtype, torch.float32)
    first, second = (normalize(side.to(precision), dim=2) for side in (anchors, candidates))
    costs = 1 - first @ second.transpose(1, 2)
    a, b = (_log_shares(mask, precision) for mask in (anchor_mask, candidate_mask))
    with torch.no_grad():
        f, g = _potentials(costs, a, b, regularization)
    # The dual at its optimum, where f and g have no gradient: that of the costs is the plan.
    plan = (
        (f[:, :, None] + g[:, None] - costs) / regularization + a[:, :, None] + b[:, None]
    ).exp()
    value = (f * a.exp()).sum(1) + (g * b.exp()).sum(1)
    return (value + regularization * (1 - plan.sum((1, 2)))).mean()


def _log_shares(mask: Tensor, precision: torch.dtype) -> Tensor:
    """The logarithm of each token's share of its sentence: (n, tokens), -inf for padding."""
    weights = mask.to(precision)
    return (weights / weights.sum(1, keepdim=True)).log()


def _potentials(
    costs: Tensor, a: Tensor, b: Tensor, regularization: float
) -> tuple[Tensor, Tensor]:
    """The dual potentials (n, s) and (n, t) of costs (n, s, t), in the logarithmic domain."""
    scores, close = -costs / regularization, torch.finfo(costs.dtype).eps ** 0.5
    g = torch.zeros_like(b)
    for number in range(1, _MOST_ITERATIONS + 1):
        f = -torch.logsumexp(scores + (g + b)[:, None], dim=2)
        new = -torch.logsumexp(scores + (f + a)[:, :, None], dim=1)
        # exp(g - new) is by how much the plan of f and g misses each share of the other side.
        if number % _BETWEEN_CHECKS == 0:
            missed = (((g - new).exp() - 1).abs() * b.exp()).sum(1)
            if missed.max() < close:
                break
        g = new
    return f * regularization, g * regularization
