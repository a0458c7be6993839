"""The cosine between the gradients of two objectives: whether they want the same change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor


def gradient(loss: Callable[[], Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Compute a gradient, leaving the weights' `grad` and the random states as they are.

    Args:
        loss: Runs a forward, with dropout if the model is in training, and returns the loss.
        weights: The trained weights.

    Returns:
        (weights,), flat and float32; 0 for weights that the loss does not reach.
    """
    with torch.random.fork_rng():
        found = torch.autograd.grad(loss(), list(weights), allow_unused=True)
    parts = [
        torch.zeros_like(weight) if part is None else part
        for weight, part in zip(weights, found, strict=True)
    ]
    return torch.cat([part.flatten().float() for part in parts])


def cosines(gradients: Mapping[str, Tensor]) -> dict[str, float]:
    """Compare each two gradients.

    Args:
        gradients: Flat gradients, by objective.

    Returns:
        Cosines by name, such as `task_alignment_gradient_cosine`; 0 where a gradient is 0.
    """
    return {
        f"{one}_{other}_gradient_cosine": float(
            torch.cosine_similarity(gradients[one], gradients[other], dim=0)
        )
        for one, other in combinations(gradients, 2)
    }
