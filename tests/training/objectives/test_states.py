"""Losses of a model's states against those of the whole forward; the blocks that do not run."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from xlt_bench.models.hidden_states import pooled_layers
from xlt_bench.training.objectives.cka import cka_loss
from xlt_bench.training.objectives.distance import cosine_loss, mse_loss
from xlt_bench.training.objectives.states import alignment_loss
from xlt_bench.training.objectives.transport import transport_loss
from xlt_bench.training.recipe_data import Alignment

ALIGNMENT = Alignment(data="tatoeba", pairs=["cy-en"])
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def pairs() -> Tensors:
    torch.manual_seed(1)
    lengths = torch.tensor([3, 7, 5, 6, 2, 4])
    mask = (torch.arange(7) < lengths[:, None]).long()
    return {"input_ids": torch.randint(0, 50, (6, 7)) * mask, "attention_mask": mask}


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
        # In float32, packed and padded rows differ by rounding that depends on the CPU's kernels.
        model = adapted("llama").double().train()
        if checkpointed:
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        alignment_loss(model, pairs, ALIGNMENT, [1, 3]).backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name])


@pytest.mark.parametrize("checkpointed", [False, True], ids=["packed", "padded"])
def test_the_other_losses_are_of_the_whole_forward_s_states(
    adapted: Callable[..., Any], checkpointed: bool
) -> None:
    """The states are transformers' own, pooled here; no loss sees the padding."""
    torch.manual_seed(2)
    lengths = torch.tensor([3, 7, 5, 6, 2, 4, 5, 7])
    mask = (torch.arange(7) < lengths[:, None]).long()
    batch = {"input_ids": torch.randint(0, 50, (8, 7)) * mask, "attention_mask": mask}
    model = adapted("llama").train()
    if checkpointed:  # then rows are not packed
        model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    with torch.no_grad():
        hidden = model(**batch, output_hidden_states=True).hidden_states[2]
    pooled = [row[:n].mean(0) for row, n in zip(hidden, lengths, strict=True)]
    a, b = torch.stack(pooled[:4]), torch.stack(pooled[4:])
    by_pair = [
        transport_loss(
            hidden[i, : lengths[i]][None], torch.ones(1, lengths[i]),
            hidden[i + 4, : lengths[i + 4]][None], torch.ones(1, lengths[i + 4]), 0.2,
        )
        for i in range(4)
    ]  # fmt: skip
    expected = {
        "cosine": cosine_loss(a, b),
        "mse": mse_loss(a, b),
        "cka": cka_loss(a, b),
        "transport": torch.stack(by_pair).mean(),
    }
    for loss, value in expected.items():
        section = ALIGNMENT.model_copy(update={"loss": loss, "temperature": 0.2})
        found = alignment_loss(model, batch, section, [2])
        assert found.item() == pytest.approx(value.item(), rel=1e-3, abs=1e-5), loss
        found.backward()
        grads = [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]
        assert grads
        assert all(grad.isfinite().all() for grad in grads)
