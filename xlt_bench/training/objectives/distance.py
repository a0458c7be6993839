"""The distance of each sentence's state to its translation's: cosine, or squared error.

Unlike the contrastive loss, they push no sentence away from the others, so equal states of all
sentences are a minimum too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


def cosine_loss(anchors: Tensor, candidates: Tensor) -> Tensor:
    """Compute the mean of 1 - cos(anchor_j, candidate_j).

    Args:
        anchors: (n, d), the first sides.
        candidates: (n, d), their translations, row by row.

    Returns:
        A scalar, 0 to 2; float32, or float64 if the states are.
    """
    precision = torch.promote_types(anchors.dtype, torch.float32)
    return (1 - cosine_similarity(anchors.to(precision), candidates.to(precision), dim=1)).mean()


def mse_loss(anchors: Tensor, candidates: Tensor) -> Tensor:
    """Compute the mean squared difference, over pairs and dimensions, of states of any length.

    Args:
        anchors: (n, d), the first sides.
        candidates: (n, d), their translations, row by row.

    Returns:
        A scalar; float32, or float64 if the states are.
    """
    precision = torch.promote_types(anchors.dtype, torch.float32)
    return (anchors.to(precision) - candidates.to(precision)).square().mean()
