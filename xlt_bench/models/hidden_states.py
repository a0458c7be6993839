"""The decoder blocks of any causal model: their outputs, pooled, without the rest of the forward.

Layer i is the output of the i-th block, from 1, before any final norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xlt_bench.errors import InputError


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that count: hidden (n, tokens, d) and mask (n, tokens) to (n, d).

    Accumulated in float32 whatever the model's dtype. The paper pools this way (section 2).
    """
    weights = mask.float().unsqueeze(-1)
    return (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)


def base_model(model: Any) -> Any:
    """The transformers model inside a PeftModel (adapters stay in place) or a wrapper."""
    if isinstance(model, DistributedDataParallel):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def count_layers(model: Any) -> int:
    """Decoder blocks; the highest layer number."""
    return int(base_model(model).config.get_text_config().num_hidden_layers)


def _place(model: Any) -> tuple[Any, str]:
    """The module that holds the list of decoder blocks, and the list's name in it."""
    decoder, n_layers = base_model(model).get_decoder(), count_layers(model)
    for parent in decoder.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == n_layers:
                return parent, name
    raise InputError(f"no list of {n_layers} decoder blocks in {type(decoder).__name__}")


def blocks_name(model: Any) -> str:
    """The dotted name of the list of decoder blocks, as in `model.layers`."""
    parent, name = _place(model)
    return next(
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in base_model(model).named_modules()
        if module is parent
    )


@contextmanager
def pooled_layers(model: Any, mask: Tensor, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Within the context a forward stops at the highest of `layers` and pools each as it appears.

    Yields the dictionary that the forward fills: layer to (n, d) float32 means over the tokens of
    `mask` (n, tokens), with their gradients. Blocks above the highest layer do not run.
    """
    parent, name = _place(model)
    blocks = getattr(parent, name)
    pooled: dict[int, Tensor] = {}

    def pool(layer: int) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            # Layers may lie on several devices.
            pooled[layer] = mean_pool(hidden, mask.to(hidden.device))

        return hook

    hooks = [blocks[layer - 1].register_forward_hook(pool(layer)) for layer in layers]
    setattr(parent, name, nn.ModuleList(blocks[: max(layers)]))
    try:
        yield pooled
    finally:
        setattr(parent, name, blocks)
        for hook in hooks:
            hook.remove()


@contextmanager
def without_head(model: Any) -> Iterator[None]:
    """Within the context the model's forward returns hidden states: no LM head, no logits."""
    base = base_model(model)
    head = base.get_output_embeddings()
    base.set_output_embeddings(nn.Identity())
    try:
        yield
    finally:
        base.set_output_embeddings(head)


@contextmanager
def head_at(model: Any, positions: Tensor) -> Iterator[None]:
    """Within the context the LM head runs on the tokens of `positions` (n, tokens) alone.

    The forward's logits are then (positions that are set, vocabulary), in row order.
    """
    head = base_model(model).get_output_embeddings()
    hook = head.register_forward_pre_hook(
        lambda _module, inputs: (inputs[0][positions.to(inputs[0].device)],)
    )
    try:
        yield
    finally:
        hook.remove()


def pad_right(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Token rows as one (n, longest) tensor, filled with `value` on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def lengths_mask(rows: Sequence[Sequence[int]]) -> Tensor:
    """The attention mask (n, longest) of rows that are padded on the right."""
    lengths = torch.tensor([len(row) for row in rows])
    return (torch.arange(int(lengths.max())) < lengths[:, None]).long()
