"""Cosine and squared distance against numpy and scipy."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from xlt_bench.training.objectives.distance import cosine_loss, mse_loss


def test_distances_are_numpys_and_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 5)), rng.normal(size=(7, 5))
    sides = torch.tensor(a), torch.tensor(b)
    expected = np.mean([cosine(x, y) for x, y in zip(a, b, strict=True)])
    assert cosine_loss(*sides).item() == pytest.approx(expected, rel=1e-12)
    assert mse_loss(*sides).item() == pytest.approx(np.square(a - b).mean(), rel=1e-12)


def test_distances_of_a_hand_worked_case() -> None:
    """(3, 4) and (4, 3): the cosine is 24 / 25, the squared differences are 1 and 1."""
    a, b = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    assert cosine_loss(a, b).item() == pytest.approx(0.04)
    assert cosine_loss(a, -10 * a).item() == pytest.approx(2)
    assert mse_loss(a, b).item() == 1


@pytest.mark.parametrize("loss", [cosine_loss, mse_loss])
def test_gradients(loss: type) -> None:
    torch.manual_seed(1)
    inputs = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(loss, inputs)
    assert loss(*(x.bfloat16() for x in inputs)).dtype == torch.float32
