"""The alignment loss against float64 arithmetic; its gradients; the blocks it leaves alone."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from xlt_bench.models.hidden_states import pooled_layers
from xlt_bench.training.objectives.contrastive import alignment_loss, contrastive_loss
from xlt_bench.training.recipe import Alignment

ALIGNMENT = Alignment(data="tatoeba", pairs=["cy-en"])
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def pairs() -> Tensors:
    torch.manual_seed(1)
    lengths = torch.tensor([3, 7, 5, 6, 2, 4])
    mask = (torch.arange(7) < lengths[:, None]).long()
    return {"input_ids": torch.randint(0, 50, (6, 7)) * mask, "attention_mask": mask}


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


@pytest.mark.parametrize("layers", [[2], [1, 3], [4]])
def test_alignment_loss_is_that_of_the_whole_forward(
    model: Any, pairs: Tensors, layers: list[int]
) -> None:
    """Against `output_hidden_states` in float64 arithmetic (the top one is normed, so by hook)."""
    found = alignment_loss(model, pairs, ALIGNMENT, layers)
    with torch.no_grad(), pooled_layers(model, pairs["attention_mask"], [4]) as top:
        whole = model(**pairs, output_hidden_states=True)
    assert top[4].shape == (6, 32)
    expected = 0.0
    for layer in layers:
        mask = pairs["attention_mask"].double()[:, :, None]
        hidden = whole.hidden_states[layer].double()
        states = (hidden * mask).sum(1) / mask.sum(1) if layer < 4 else top[4].double()
        cosines = normalize(states[:3], dim=1) @ normalize(states[3:], dim=1).T
        expected += cross_entropy(cosines / 0.1, torch.arange(3)).item()
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_a_layer_that_does_not_exist_leaves_no_hooks(model: Any, pairs: Tensors) -> None:
    with pytest.raises(IndexError), pooled_layers(model, pairs["attention_mask"], [1, 9]):
        raise AssertionError
    assert not any(module._forward_hooks for module in model.modules())


def test_an_alignment_step_leaves_the_blocks_above_alone(model: Any, pairs: Tensors) -> None:
    def forbidden(*_: Any) -> None:
        raise AssertionError("the LM head ran")

    head = model.get_base_model().get_output_embeddings()
    head.register_forward_hook(forbidden)
    alignment_loss(model, pairs, ALIGNMENT, [2]).backward()
    grads = {name: p.grad is not None for name, p in model.named_parameters() if p.requires_grad}
    learned = {name.split("layers.")[1][0] for name, has in grads.items() if has}
    assert learned == {"0", "1"}
    assert all(has for name, has in grads.items() if name.split("layers.")[1][0] in "01")
    # Afterwards the model is whole again.
    assert len(model.get_base_model().model.layers) == 4
    assert model.get_base_model().get_output_embeddings() is head


def test_gradients_are_the_same_with_checkpointed_blocks(
    adapted: Callable[..., Any], pairs: Tensors
) -> None:
    grads = []
    for checkpointed in (False, True):
        model = adapted("llama").train()
        if checkpointed:
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        alignment_loss(model, pairs, ALIGNMENT, [1, 3]).backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name])
