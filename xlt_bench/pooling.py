"""Sentence states: masked means over a decoder's hidden states."""

from __future__ import annotations

from torch import Tensor


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that count: hidden (n, tokens, d) and mask (n, tokens) to (n, d).

    Accumulated in float32 whatever the model's dtype. The paper pools this way (section 2).
    """
    weights = mask.float().unsqueeze(-1)
    return (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)
