"""The loss of a frozen head against torch's cross-entropy on all logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from torch import nn
from torch.nn.functional import cross_entropy

import architectures
from xlt_bench.training import head_loss as module
from xlt_bench.training.head_loss import frozen_head, head_loss


def make(dtype: torch.dtype) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(16, 300, bias=False, dtype=dtype).requires_grad_(False)
    head.weight.mul_(20)
    states = torch.randn(9, 16, dtype=dtype, requires_grad=True)
    return states, head, torch.randint(300, (9,))


@pytest.mark.parametrize("part", [1, 7, 299, 300, 1000])
def test_loss_and_gradient_are_those_of_all_logits(
    monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """With the vocabulary cut into parts of several sizes."""
    monkeypatch.setattr(module, "_AT_A_TIME", 9 * part)
    states, head, targets = make(torch.float64)
    loss = head_loss(states, head, targets)
    expected = cross_entropy(head(states), targets)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    (found,) = torch.autograd.grad(3 * loss, states)
    (wanted,) = torch.autograd.grad(3 * expected, states)
    torch.testing.assert_close(found, wanted)


def test_large_logits_overflow_nothing() -> None:
    states, head, targets = make(torch.float32)
    states = (states * 1000).detach().requires_grad_(True)
    loss = head_loss(states, head, targets)
    assert loss.item() == pytest.approx(cross_entropy(head(states), targets).item(), rel=1e-5)
    assert torch.autograd.grad(loss, states)[0].isfinite().all()


def test_bfloat16_is_as_near_to_the_truth_as_torchs_own() -> None:
    states, head, targets = make(torch.bfloat16)
    loss = head_loss(states, head, targets)
    assert loss.dtype == torch.float32
    (found,) = torch.autograd.grad(loss, states)
    exact = states.detach().double().requires_grad_(True)
    truth = cross_entropy(exact @ head.weight.double().T, targets)
    (wanted,) = torch.autograd.grad(truth, exact)
    assert loss.item() == pytest.approx(truth.item(), rel=0.01)
    (theirs,) = torch.autograd.grad(cross_entropy(head(states).float(), targets), states)
    theirs_off = (theirs.double() - wanted).abs().max().item()
    assert (found.double() - wanted).abs().max().item() <= 2 * theirs_off


def test_without_a_gradient_there_is_the_loss_alone() -> None:
    states, head, targets = make(torch.float32)
    with torch.no_grad():
        loss = head_loss(states, head, targets)
    assert loss.item() == pytest.approx(cross_entropy(head(states), targets).item(), rel=1e-5)


def test_without_labels_the_loss_is_torchs() -> None:
    states, head, targets = make(torch.float32)
    assert cross_entropy(head(states[:0]), targets[:0]).isnan()
    assert head_loss(states[:0], head, targets[:0]).isnan()


def frozen(kind: str, dtype: torch.dtype = torch.bfloat16, **settings: Any) -> Any:
    config = architectures.config_of(kind)
    for name, value in settings.items():
        setattr(config, name, value)
    return architectures.random_model(config).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_whose_logits_are_capped_runs_in_the_model(dtype: torch.dtype) -> None:
    """Of these logits, which are small, the cap changes few by more than rounding does."""
    model = frozen("gemma2", dtype, final_logit_softcapping=30.0)
    model.lm_head.weight.mul_(0.1)
    assert model(torch.arange(8)[None]).logits.abs().max() < 2
    assert frozen_head(model) is None


def test_a_head_whose_logits_are_changed_in_place_runs_in_the_model() -> None:
    model = frozen("llama")
    assert frozen_head(model) is model.lm_head
    other = frozen("llama")

    def scale(_module: Any, _inputs: Any, output: Any) -> None:
        output.logits.mul_(1.01)

    other.register_forward_hook(scale)
    assert frozen_head(other) is None


def test_a_head_that_accelerate_offloads_runs_in_the_model(tmp_path: Path) -> None:
    model = frozen("llama", torch.float32)
    places = {"model": "cpu", "lm_head": "disk"}
    spread = dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path))
    assert spread.lm_head.weight.is_meta
    assert frozen_head(spread) is None
