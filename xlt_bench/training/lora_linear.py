"""A LoRA on a linear layer whose training step touches its input once.

peft's own module casts the input to the adapter's float32, draws dropout with a generator that
fills one number at a time, and leaves each small product to autograd. The result here is the same;
what dropout drops is drawn otherwise.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_LEVELS = 1 << 15
"""Dropout compares 15 random bits with a threshold: its rate is exact to 0.003 %."""


def keep_mask(shape: torch.Size, rate: float, device: torch.device) -> Tensor:
    """Draw what dropout keeps, four elements from each random integer.

    Args:
        shape: The shape of the values.
        rate: The probability of dropping a value.
        device: Where.

    Returns:
        int16 of the shape: all bits set where the value is kept, 0 where it is dropped.
    """
    count = shape.numel()
    integers = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    # The limits are int64's own: without them the sign would never be drawn.
    lanes = integers.random_(-(1 << 63), None).view(torch.int16)[:count].view(shape)
    return (lanes & (_LEVELS - 1)).sub_(_kept(rate)).bitwise_right_shift_(15)


def _kept(rate: float) -> int:
    """How many of the `_LEVELS` are kept at a rate between 0 and 1: neither all nor none."""
    return min(max(round((1 - rate) * _LEVELS), 1), _LEVELS - 1)


def _where_kept(values: Tensor, mask: Tensor | None) -> Tensor:
    """The values where the mask has all bits set, 0 elsewhere."""
    if mask is None:
        return values
    bits = _BITS[values.element_size()]
    return (values.view(bits) & mask.to(bits)).view(values.dtype)


class _LoraProduct(torch.autograd.Function):
    """x W' + bias + scale * dropout(x) A' B', for a frozen W and rows x of one dtype."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        rate: float,
    ) -> Tensor:
        mask = None
        if rate:
            mask = keep_mask(x.shape, rate, x.device)
            scale = scale * _LEVELS / _kept(rate)
        low = _where_kept(x, mask) @ a.T
        ctx.save_for_backward(x, mask, weight, a, b, low)
        ctx.scale = scale
        return linear(x, weight, bias).addmm_(low, b.T, alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, mask, weight, a, b, low = ctx.saved_tensors
        (gradient,) = gradients
        through_b = (gradient @ b).mul_(ctx.scale)
        for_a = through_b.T @ _where_kept(x, mask)
        for_b = (low.T @ gradient).mul_(ctx.scale).T
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = gradient @ weight
            for_x += _where_kept(through_b @ a, mask)
        return for_x, None, None, for_a, for_b, None, None


class LoraLinear(PeftLinear):  # type: ignore[misc]
    """peft's LoRA of a linear layer, with one autograd function for the plain case.

    Registered with `LoraConfig._register_custom_module`; parameters, their names and what is saved
    are peft's. Anything but one plain active adapter runs peft's own forward.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the layer's output, in autocast's dtype if it is on."""
        if args or kwargs or not self._is_plain():
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        (adapter,) = self.active_adapters
        kind, dtype = x.device.type, x.dtype
        if torch.is_autocast_enabled(kind) and dtype != torch.float64:  # which autocast leaves
            dtype = torch.get_autocast_dtype(kind)
        layer, dropout = self.get_base_layer(), self.lora_dropout[adapter]
        rows = _LoraProduct.apply(  # type: ignore[no-untyped-call]
            x.to(dtype).reshape(-1, x.shape[-1]),
            layer.weight.to(dtype),
            None if layer.bias is None else layer.bias.to(dtype),
            self.lora_A[adapter].weight.to(dtype),
            self.lora_B[adapter].weight.to(dtype),
            self.scaling[adapter],
            dropout.p if self.training and isinstance(dropout, nn.Dropout) else 0.0,
        )
        return rows.view(*x.shape[:-1], rows.shape[-1])  # type: ignore[no-any-return]

    def _is_plain(self) -> bool:
        """Whether the layer is a frozen linear one with one plain adapter that acts."""
        layer, adapters = self.get_base_layer(), self.active_adapters
        return (
            type(layer) is nn.Linear
            and not (self.disable_adapters or self.merged)
            and len(adapters) == 1
            and adapters[0] in self.lora_A
            and adapters[0] not in self.lora_variant
            and not layer.weight.requires_grad
            and not (layer.bias is not None and layer.bias.requires_grad)
            and not self.lora_bias[adapters[0]]
            and layer.weight.is_floating_point()
            and not layer.weight.is_meta  # accelerate loads it in the layer's own forward
        )
