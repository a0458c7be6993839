"""The task loss against transformers' own, and what its forward leaves out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from xlt_bench.training.dataset import Example
from xlt_bench.training.objectives.causal import (
    IGNORE,
    causal_loss,
    predicting,
    task_batch,
    task_loss,
)


def test_causal_loss_is_the_mean_over_labelled_tokens() -> None:
    torch.manual_seed(3)
    labels = torch.tensor([[IGNORE, IGNORE, 2, 1], [IGNORE, 0, IGNORE, IGNORE]])
    logits = torch.randn(2, 4, 3)
    expected = -torch.stack(
        [
            logits[0, 1].log_softmax(0)[2],
            logits[0, 2].log_softmax(0)[1],
            logits[1, 0].log_softmax(0)[0],
        ]
    ).mean()
    assert causal_loss(logits[predicting(labels)], labels).item() == pytest.approx(expected.item())


def test_task_loss_is_the_models_own_and_needs_few_logits(model: Any) -> None:
    """Against transformers' own loss with all logits; the head sees the labelled tokens alone."""
    rows = [Example([1, 2, 3, 4, 5], [6, 7]), Example([8, 9], [10, 11, 12])]
    batch = task_batch(rows)
    seen: list[torch.Size] = []
    head = model.get_base_model().get_output_embeddings()
    hook = head.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape))
    loss = task_loss(model, batch)
    assert seen == [torch.Size([5, 32])]
    hook.remove()
    assert loss.item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3"])
def test_a_prompt_that_rows_share_runs_once_for_the_same_gradients(
    adapted: Callable[..., Any], kind: str
) -> None:
    """Against transformers' own loss on the whole rows; Gemma computes parts in float32."""
    model = adapted(kind, sliding_window=64).double()
    prompt = list(range(20, 40))
    rows = [Example([*prompt, 1, 2, 3], [6, 7]), Example([*prompt, 8], [10, 11, 12])]
    batch = task_batch([*rows, Example([*prompt, 1, 2], [9])])
    widths: list[torch.Size] = []
    layer = model.get_base_model().model.layers[0]
    hook = layer.register_forward_pre_hook(lambda _m, inputs: widths.append(inputs[0].shape[:2]))
    loss = task_loss(model, batch)
    hook.remove()
    assert widths == [(1, 20), (3, 5)]
    learned = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, learned)
    whole = model(**batch).loss
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    for ours, theirs in zip(found, torch.autograd.grad(whole, learned), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_gradient_checkpointing_shares_no_prompt(adapted: Callable[..., Any]) -> None:
    model = adapted("llama").train()
    rows = [Example([*range(20, 40), 1], [6, 7]), Example([*range(20, 40), 8], [9])]
    batch = task_batch(rows)
    plain = task_loss(model, batch)
    model.gradient_checkpointing_enable()
    assert task_loss(model, batch).item() == pytest.approx(plain.item(), rel=1e-5)
