"""Optimal transport against scipy: the linear programme, and the regularised problem itself."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from scipy.spatial.distance import cdist

from xlt_bench.training.objectives.transport import transport_loss


def sentences(*lengths: int) -> list[torch.Tensor]:
    torch.manual_seed(sum(lengths))
    return [torch.randn(1, n, 4, dtype=torch.float64) for n in lengths]


def value(a: torch.Tensor, b: torch.Tensor, regularization: float) -> torch.Tensor:
    return transport_loss(a, torch.ones(a.shape[:2]), b, torch.ones(b.shape[:2]), regularization)


def margins(s: int, t: int) -> tuple[np.ndarray, np.ndarray]:
    """The matrix of row and column sums of a flat plan, and what they must be."""
    rows = np.kron(np.eye(s), np.ones(t))
    columns = np.kron(np.ones(s), np.eye(t))
    return np.vstack([rows, columns]), np.array([1 / s] * s + [1 / t] * t)


def test_it_approaches_the_linear_programme() -> None:
    """The exact cost, from above: the entropy adds at most regularization * log(tokens)."""
    a, b = sentences(5, 7)
    costs = cdist(a[0].numpy(), b[0].numpy(), "cosine")
    matrix, sums = margins(5, 7)
    exact = linprog(costs.ravel(), A_eq=matrix, b_eq=sums).fun
    for regularization in (0.1, 0.05, 0.02):
        found = value(a, b, regularization).item()
        assert exact <= found + 1e-9 <= exact + regularization * np.log(7) + 1e-6


def test_it_is_the_minimum_of_the_regularised_problem() -> None:
    a, b = sentences(3, 2)
    costs = cdist(a[0].numpy(), b[0].numpy(), "cosine").ravel()
    matrix, sums = margins(3, 2)

    def objective(plan: np.ndarray) -> float:
        return float(plan @ costs + 0.3 * (plan * np.log(plan * 6)).sum())

    # One of the sums follows from the others, and would make the constraints singular.
    best = minimize(
        objective, np.full(6, 1 / 6), bounds=[(1e-9, 1)] * 6, options={"ftol": 1e-14},
        constraints={"type": "eq", "fun": lambda plan: (matrix @ plan - sums)[:-1]},
    )  # fmt: skip
    assert value(a, b, 0.3).item() == pytest.approx(best.fun, abs=1e-7)


def test_hand_worked_cases() -> None:
    """One token each: its distance. The same words in another order: nothing to move."""
    a, b = sentences(1, 1)
    assert value(a, b, 0.1).item() == pytest.approx(cdist(a[0], b[0], "cosine").item())
    words = torch.eye(4, dtype=torch.float64)[None]
    turned = words.flip(1)
    # The plan is the permutation: four weights of 1/4, each four times that of a b.
    assert value(words, turned, 0.01).item() == pytest.approx(0.01 * np.log(4), abs=1e-6)


def test_padding_moves_nothing() -> None:
    a, b = sentences(5, 3)
    longer, other = (torch.cat([side, torch.ones(1, 2, 4)], dim=1) for side in (a, b))
    masks = [(torch.arange(n + 2) < n)[None].long() for n in (5, 3)]
    padded = transport_loss(longer, masks[0], other, masks[1], 0.1)
    assert padded.item() == pytest.approx(value(a, b, 0.1).item(), rel=1e-9)


def test_gradient_is_that_of_the_plan() -> None:
    a, b = (side.requires_grad_() for side in sentences(4, 3))
    assert torch.autograd.gradcheck(lambda x, y: value(x, y, 0.3), [a, b])


def test_low_precision_and_a_the_lowest_regularization_converge() -> None:
    a, b = sentences(20, 12)
    exact = value(a, b, 0.01).item()
    assert value(a.float(), b.float(), 0.01).item() == pytest.approx(exact, rel=1e-3)
    assert value(a.bfloat16(), b.bfloat16(), 0.01).dtype == torch.float32
