"""Linear CKA against the definition of its estimator as a mean over quadruples."""

from itertools import permutations

import numpy as np
import pytest
import torch

from xlt_bench.training.objectives.cka import LEAST, cka_loss
from xlt_bench.training.recipe_data import Alignment


def slow_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased HSIC of Song et al. (2012), as a mean over distinct rows i, j, q, r."""
    k, h = x @ x.T, y @ y.T
    terms = [
        k[i, j] * h[i, j] + k[i, j] * h[q, r] - 2 * k[i, j] * h[i, q]
        for i, j, q, r in permutations(range(len(x)), 4)
    ]
    return float(np.mean(terms))


def test_cka_is_that_of_the_unbiased_estimator() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(7, 3)) + 2
    b = a @ rng.normal(size=(3, 5)) + rng.normal(size=(7, 5))
    expected = slow_hsic(a, b) / np.sqrt(slow_hsic(a, a) * slow_hsic(b, b))
    found = cka_loss(torch.tensor(a), torch.tensor(b)).item()
    assert found == pytest.approx(1 - expected, rel=1e-10)


def test_a_turned_and_scaled_side_is_equal_and_an_unrelated_one_is_not() -> None:
    """The usual, biased estimator gives unrelated states of many dimensions a CKA near 1."""
    torch.manual_seed(0)
    a = torch.randn(16, 512, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(512, 512, dtype=torch.float64))
    assert cka_loss(a, 3 * a @ turn + 5).item() == pytest.approx(0, abs=1e-9)
    other = torch.randn(16, 512, dtype=torch.float64)
    assert cka_loss(a, other).item() == pytest.approx(1, abs=0.3)
    centred = [(side - side.mean(0)) @ (side - side.mean(0)).T for side in (a, other)]
    biased = (centred[0] * centred[1]).sum() / (centred[0].norm() * centred[1].norm())
    assert biased > 0.9


def test_gradient() -> None:
    torch.manual_seed(1)
    inputs = [torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(cka_loss, inputs)


def test_a_micro_batch_has_as_many_pairs_as_the_estimator_needs() -> None:
    assert Alignment(data="flores", pairs=["cy-en"], loss="cka").least_pairs == LEAST
