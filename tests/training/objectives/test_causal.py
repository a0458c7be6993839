"""The task loss against transformers' own, and what its forward leaves out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from xlt_bench.training.dataset import Example
from xlt_bench.training.objectives.causal import task_batch, task_loss
from xlt_bench.training.packing import can_pack


def _rows(prompt: list[int]) -> list[Example]:
    """Rows of several lengths after a prompt that they share."""
    return [
        Example([*prompt, 1, 2, 3], [6, 7]),
        Example([*prompt, 8], [10, 11, 12]),
        Example([*prompt, 1, 2], [9]),
    ]


def test_task_loss_is_the_models_own_and_needs_few_logits(model: Any) -> None:
    """Against transformers' own loss with all logits; a head that is trained runs in the model."""
    rows = [Example([1, 2, 3, 4, 5], [6, 7]), Example([8, 9], [10, 11, 12])]
    batch = task_batch(rows)
    seen: list[torch.Size] = []
    head = model.get_base_model().get_output_embeddings()
    head.weight.requires_grad_(True)
    hook = head.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape))
    loss = task_loss(model, batch)
    assert seen == [torch.Size([5, 32])]
    hook.remove()
    assert loss.item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)


@pytest.mark.parametrize("prompt", [[], list(range(20, 40))], ids=["no prefix", "prefix"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3", "gemma2", "phi3", "gpt2", "cohere"])
def test_loss_and_gradients_are_the_models_own(
    adapted: Callable[..., Any], kind: str, prompt: list[int]
) -> None:
    """Against transformers' own loss on the padded rows; models compute parts in float32.

    Cohere scales its logits and Gemma 2 caps them, so their heads run in the model.
    """
    model = adapted(kind, sliding_window=64).double()
    batch = task_batch(_rows(prompt))
    learned = [p for p in model.parameters() if p.requires_grad]
    loss = task_loss(model, batch)
    found = torch.autograd.grad(loss, learned)
    whole = model(**batch).loss
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    for ours, theirs in zip(found, torch.autograd.grad(whole, learned), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_blocks_compute_the_prefix_once_and_no_padding(
    adapted: Callable[..., Any], kind: str
) -> None:
    model = adapted(kind, sliding_window=64)
    batch = task_batch(_rows(list(range(20, 40))))
    task_loss(model, batch)  # tries the model
    widths: list[torch.Size] = []
    layer = model.get_base_model().model.layers[0]
    hook = layer.register_forward_pre_hook(lambda _m, inputs: widths.append(inputs[0].shape[:2]))
    task_loss(model, batch)
    hook.remove()
    assert widths == [(1, 20 + 5 + 4 + 3)]


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_rows_that_cannot_be_packed_are_padded(adapted: Callable[..., Any], kind: str) -> None:
    """Gradient checkpointing, and a window shorter than the rows."""
    model = adapted(kind, sliding_window=8).train()
    batch = task_batch(_rows(list(range(20, 40))))
    expected = model(**batch).loss.item()
    if kind == "llama":
        model.gradient_checkpointing_enable()
    assert not can_pack(model, batch["input_ids"], batch["attention_mask"])
    assert task_loss(model, batch).item() == pytest.approx(expected, rel=1e-5)
