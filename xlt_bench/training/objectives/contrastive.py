"""Contrastive alignment of translations (section 3, equation 1).

Follows the authors' code, github dannigt/mid-align.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


def contrastive_loss(
    anchors: Tensor, candidates: Tensor, temperature: float, symmetric: bool = False
) -> Tensor:
    """Compute -(1/n) sum_j log softmax_i(cos(anchor_j, candidate_i) / temperature) at i = j.

    Args:
        anchors: (n, d), the non-English sentences.
        candidates: (n, d), their English translations, row by row.
        temperature: Divides the cosines.
        symmetric: Also take the candidates as anchors, and average the two directions. The
            authors' code has one direction only.

    Returns:
        A scalar in nats; float32, or float64 if the states are.
    """
    precision = torch.promote_types(anchors.dtype, torch.float32)
    cosines = normalize(anchors.to(precision), dim=1) @ normalize(candidates.to(precision), dim=1).T
    scores = cosines / temperature
    pairs = torch.arange(len(scores), device=scores.device)
    loss = cross_entropy(scores, pairs)
    return (loss + cross_entropy(scores.T, pairs)) / 2 if symmetric else loss
