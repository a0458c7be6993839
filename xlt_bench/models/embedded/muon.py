"""Muon, for the matrices of the embedded model, in the precision of the matrices.

torch.optim.Muon computes in bfloat16, which takes longer than all the rest of a step on a processor
without instructions for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

# The fifth-degree polynomial of Newton and Schulz, and how often it is applied (torch's defaults).
_COEFFICIENTS, _ITERATIONS = (3.4445, -4.775, 2.0315), 5


class Muon(Optimizer):
    """Momentum whose update is made nearly orthogonal, with the scale of AdamW's updates.

    What torch.optim.Muon does with `adjust_lr_fn="match_rms_adamw"` and its other defaults.

    Args:
        parameters: Matrices.
        lr: The learning rate.
        weight_decay: The weight decay.
        momentum: The momentum, which is Nesterov's.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the matrices that have gradients.

        Args:
            closure: Not supported.
        """
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonal(matrix.grad.lerp(mean, group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                scale = 0.2 * math.sqrt(max(matrix.shape))
                matrix.add_(update, alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor) -> Tensor:
    """Bring the singular values of a matrix near 1, and keep its singular vectors.

    Args:
        matrix: (rows, columns).

    Returns:
        (rows, columns).
    """
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    wide: Tensor = matrix.T if tall else matrix
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide.T if tall else wide
