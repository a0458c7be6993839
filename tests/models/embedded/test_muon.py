"""Muon in float32: torch's Muon, which rounds to bfloat16, takes nearly the same steps."""

import pytest
import torch
from torch import Tensor

from xlt_bench.models.embedded.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
def test_its_steps_are_those_of_torch_up_to_its_rounding(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    optimizers = {
        ours: Muon([ours], 0.02, 0.05),
        theirs: torch.optim.Muon(
            [theirs], lr=0.02, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
    }
    for _ in range(4):
        gradient = torch.randn(shape)
        for matrix, optimizer in optimizers.items():
            matrix.grad = gradient.clone()
            optimizer.step()
    assert (ours - theirs).norm() < 0.02 * (theirs - start).norm()


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_an_orthogonal_update_keeps_the_singular_vectors(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside: Tensor = left.T @ orthogonal(matrix) @ right.T
    assert torch.allclose(inside, inside.diagonal().diag(), atol=1e-4)
    assert inside.diagonal().min() > 0.6
    assert inside.diagonal().max() < 1.3


def test_a_matrix_without_gradient_is_left_alone() -> None:
    matrix = torch.ones(3, 4, requires_grad=True)
    Muon([matrix], 0.1, 0.1).step()
    assert torch.equal(matrix.detach(), torch.ones(3, 4))
