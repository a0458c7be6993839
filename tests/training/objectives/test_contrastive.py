"""The contrastive loss against float64 arithmetic."""

import math

import pytest
import torch

from xlt_bench.training.objectives.contrastive import contrastive_loss


def slow_contrastive(anchors: torch.Tensor, candidates: torch.Tensor, temperature: float) -> float:
    """Equation 1, one number at a time."""

    def cosine(x: list[float], y: list[float]) -> float:
        dot = math.fsum(a * b for a, b in zip(x, y, strict=True))
        return dot / math.sqrt(math.fsum(a * a for a in x)) / math.sqrt(math.fsum(b * b for b in y))

    rows, others = anchors.tolist(), candidates.tolist()
    losses = []
    for j, row in enumerate(rows):
        scores = [math.exp(cosine(row, other) / temperature) for other in others]
        losses.append(-math.log(scores[j] / math.fsum(scores)))
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.1, 1.5])
def test_contrastive_loss_is_equation_1(temperature: float) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    loss = contrastive_loss(a, b, temperature)
    assert loss.item() == pytest.approx(slow_contrastive(a, b, temperature), rel=1e-12)
    both = (slow_contrastive(a, b, temperature) + slow_contrastive(b, a, temperature)) / 2
    assert contrastive_loss(a, b, temperature, symmetric=True).item() == pytest.approx(both)


def test_contrastive_loss_of_a_hand_worked_case() -> None:
    """Orthogonal pairs at temperature 1: -log(e / (e + 1)) each."""
    eye = torch.eye(2)
    assert contrastive_loss(eye, 3 * eye, 1.0).item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_contrastive_loss_gradient() -> None:
    torch.manual_seed(1)
    inputs = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: contrastive_loss(a, b, 0.3), inputs)


def test_low_precision_states_are_compared_in_float32() -> None:
    torch.manual_seed(2)
    a, b = torch.randn(6, 64), torch.randn(6, 64)
    half = contrastive_loss(a.bfloat16(), b.bfloat16(), 0.1)
    assert half.dtype == torch.float32
    assert half.item() == contrastive_loss(a.bfloat16().float(), b.bfloat16().float(), 0.1).item()
