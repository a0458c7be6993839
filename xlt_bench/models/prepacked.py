"""Runs a CPU model's linear layers on weights that oneDNN has laid out for its kernels.

`nn.Linear` gives its product to MKL in float32, and in bfloat16 to oneDNN, which lays out the
weights again in every call. With the few rows of a decoding step that takes up to twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from xlt_bench.distributed import local_world_size
from xlt_bench.models.hidden_states import base_model

# A layout made for few rows is also the fastest found for a thousand.
_ROWS = 16

# Where Linux tells a container its limit, as version 2 and version 1 of control groups name it.
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)

# Smaller weights are in the cache in any layout.
_SMALLEST = 1 << 14


@contextmanager
def prepacked(model: Any) -> Iterator[None]:
    """Use laid-out copies of the frozen linear layers' weights, while the body runs.

    Results differ from `nn.Linear`'s by rounding only. Nothing changes on other devices, in other
    dtypes than float32 and bfloat16, without oneDNN, or if the copies would take more than half of
    this process's share of the memory that is free. The weights must not change within the body.

    Args:
        model: The model, wrapped or not.
    """
    layers = [module for module in base_model(model).modules() if _can_be_packed(module)]
    size = sum(layer.weight.nbytes for layer in layers)
    if size * local_world_size() > _free_memory() / 2:
        layers = []
    try:
        for layer in layers:
            layer.forward = _forward(layer)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _free_memory() -> int:
    """Bytes that are free on the machine, or to this container if that is less.

    What a container has read from files counts as used, but is given up when memory is needed.
    """
    free = int(psutil.virtual_memory().available)
    for folder, limit, used, cached in _LIMITS:
        try:
            most = int((_CGROUP / folder / limit).read_text())  # "max" for none
            now = int((_CGROUP / folder / used).read_text())
            stat = dict(map(str.split, (_CGROUP / folder / "memory.stat").read_text().splitlines()))
            free = min(free, most - now + int(stat.get(cached, 0)))
        except (OSError, ValueError):
            continue
    return free


def _can_be_packed(module: nn.Module) -> bool:
    if type(module) is not nn.Linear or "forward" in vars(module):
        return False
    weight = module.weight
    if weight.device.type != "cpu" or weight.numel() < _SMALLEST:
        return False
    packing = torch.ops.mkldnn
    if not torch._C._has_mkldnn or not hasattr(packing, "_linear_pointwise"):
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and packing._is_mkldnn_bf16_supported()
    )


@torch.no_grad()
def _forward(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    """The layer's forward on a laid-out copy of its weight."""
    packing = torch.ops.mkldnn
    weight = packing._reorder_linear_weight(layer.weight.detach(), _ROWS)
    bias = None if layer.bias is None else layer.bias.detach()
    return partial(_linear, weight, bias)


def _linear(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found
