"""Our module of a LoRA against peft's."""

from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig, get_peft_model
from torch import nn

from xlt_bench.training.lora_linear import LoraLinear, keep_mask


def lora(ours: bool, dropout: float = 0.0, bias: bool = True, dtype: Any = torch.float32) -> Any:
    """A linear layer with a LoRA of random factors, the same for both modules."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20, bias=bias, dtype=dtype))
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["0"], lora_dropout=dropout)
    if ours:
        config._register_custom_module({nn.Linear: LoraLinear})
    adapted = get_peft_model(model, config)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter)
    assert isinstance(adapted.base_model.model[0], LoraLinear) is ours
    return adapted


def output_and_gradients(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_(True)
    found = model(x)
    torch.manual_seed(3)
    found.backward(torch.randn(found.shape).to(found.dtype))
    return [found, x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]  # type: ignore[list-item]


@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_pefts(bias: bool) -> None:
    torch.manual_seed(2)
    x = torch.randn(2, 7, 12)
    ours, theirs = lora(True, bias=bias), lora(False, bias=bias)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    pairs = zip(output_and_gradients(ours, x), output_and_gradients(theirs, x), strict=True)
    for found, expected in pairs:
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(12,), (0, 12), (2, 0, 12), (2, 3, 4, 12)])
def test_inputs_of_any_shape_are_pefts(shape: tuple[int, ...]) -> None:
    """Such as those of an expert to which no token goes."""
    torch.manual_seed(2)
    x = torch.randn(shape)
    theirs = output_and_gradients(lora(False), x)
    for found, expected in zip(output_and_gradients(lora(True), x), theirs, strict=True):
        torch.testing.assert_close(found, expected)
    assert lora(True, dropout=0.5).train()(x).shape == theirs[0].shape


def test_in_autocast_float64_stays_as_in_pefts() -> None:
    torch.manual_seed(2)
    x = torch.randn(5, 12, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = lora(True).double()(x), lora(False).double()(x)
    torch.testing.assert_close(found, expected)


def test_weights_that_accelerate_loads_when_they_are_needed_are_pefts() -> None:
    """Offloaded weights are on the meta device outside of the layer's own forward."""
    torch.manual_seed(2)
    x = torch.randn(5, 12)
    model = lora(True)
    expected = model(x)
    cpu_offload(model.base_model.model[0].base_layer, torch.device("cpu"))
    assert model.base_model.model[0].base_layer.weight.is_meta
    torch.testing.assert_close(model(x), expected)


def test_in_autocast_output_and_gradients_are_pefts_up_to_rounding() -> None:
    torch.manual_seed(2)
    x = torch.randn(2, 7, 12).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        ours = output_and_gradients(lora(True, dtype=torch.bfloat16), x)
        theirs = output_and_gradients(lora(False, dtype=torch.bfloat16), x)
    for found, expected in zip(ours, theirs, strict=True):
        assert found.dtype == expected.dtype
        most = 0.02 * expected.float().abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=most)


def test_gradients_with_dropout_are_those_of_the_loss() -> None:
    """By finite differences in float64, with the same mask drawn each time."""
    model = lora(True, dropout=0.4).double().train()
    weights = [p for p in model.parameters() if p.requires_grad]
    torch.manual_seed(2)
    x = torch.randn(4, 12, dtype=torch.float64, requires_grad=True)

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(7)
        return model(inputs[0])  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(run, (x, *weights))


def test_gradients_of_gradients_are_refused() -> None:
    """Autograd does not record the dropout mask, so second derivatives would be wrong."""
    x = torch.randn(4, 12, requires_grad=True)
    model = lora(True)
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("rate", [1e-9, 1 - 1e-9])
def test_extreme_rates_train(rate: float) -> None:
    found = output_and_gradients(lora(True, dropout=rate).train(), torch.randn(3, 12))
    assert all(values.isfinite().all() for values in found)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    model = lora(True, dropout=0.1).train()
    x = torch.randn(1, 12)
    with torch.no_grad():
        mean = model(x.expand(40_000, 12)).mean(0)
        torch.testing.assert_close(mean, model.eval()(x)[0], rtol=0, atol=0.1)
        assert torch.equal(model(x), model(x))  # none in evaluation


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_the_mask_is_random_at_its_rate(rate: float) -> None:
    """Each of the four lanes of an integer, within 4 standard errors; neighbours independent."""
    torch.manual_seed(0)
    n = 400_000
    mask = keep_mask(torch.Size([n]), rate, torch.device("cpu"))
    assert set(mask.unique().tolist()) == {0, -1}
    dropped = (mask == 0).double()
    error = 4 * (rate * (1 - rate) / (n / 4)) ** 0.5
    for lane in range(4):
        assert dropped[lane::4].mean().item() == pytest.approx(rate, abs=error)
    both = (dropped[1:] * dropped[:-1]).mean().item()
    assert both == pytest.approx(rate**2, abs=4 * rate / n**0.5)
    assert keep_mask(torch.Size([3, 5]), rate, torch.device("cpu")).shape == (3, 5)


def test_what_is_not_plain_is_pefts() -> None:
    """Two adapters at once, a merged or disabled one."""
    ours, theirs = lora(True), lora(False)
    x = torch.randn(3, 12)
    for model in (ours, theirs):
        torch.manual_seed(4)
        model.add_adapter("other", LoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
        model.base_model.set_adapter(["default", "other"])
    torch.testing.assert_close(ours(x), theirs(x))
    for model in (ours, theirs):
        model.base_model.set_adapter("default")
        model.merge_adapter()
    torch.testing.assert_close(ours(x), theirs(x))
    for model in (ours, theirs):
        model.unmerge_adapter()
    with ours.disable_adapter(), theirs.disable_adapter():
        torch.testing.assert_close(ours(x), theirs(x))
