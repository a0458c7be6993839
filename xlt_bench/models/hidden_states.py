"""Hooks into the decoder blocks and LM head of a causal model, and batches for its forward.

Layer i is the output of the i-th decoder block, from 1, before any final norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xlt_bench.errors import InputError

PADDING = 0
"""The token id of padding. Since padding is masked, any token that the model has will do, and the
tokenizer's may be missing or beyond the embeddings."""


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Average hidden states over the tokens of each sentence, as the paper does (section 2).

    Args:
        hidden: Hidden states (n, tokens, d), of any dtype.
        mask: Attention mask (n, tokens), 1 for the tokens that count.

    Returns:
        (n, d), float32.
    """
    weights = mask.float().unsqueeze(-1)
    return (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)


def weighted_and_last(hidden: Tensor, mask: Tensor) -> Tensor:
    """Pool hidden states as MEXA does: means weighted by position, and the last token's.

    Args:
        hidden: Hidden states (n, tokens, d), of any dtype, padded on the right.
        mask: Attention mask (n, tokens), 1 for the tokens that count.

    Returns:
        (n, 2, d), float32. Token t of a sentence has weight t.
    """
    weights = mask.float() * torch.arange(1, mask.shape[1] + 1, device=mask.device)
    last = torch.zeros_like(weights)
    last[torch.arange(len(mask), device=mask.device), mask.sum(dim=1) - 1] = 1
    shares = torch.stack([weights / weights.sum(dim=1, keepdim=True), last], dim=1)
    return shares @ hidden.float()


def base_model(model: Any) -> Any:
    """Unwrap a model.

    Args:
        model: A transformers model, a PeftModel or a DistributedDataParallel wrapper.

    Returns:
        The transformers model, in which adapters stay active.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def acts_in_forward(model: Any) -> bool:
    """Check whether the active adapter acts in the forward of the PeftModel, not in its modules.

    Virtual tokens do, and aLoRA, which searches the prompt for its invocation tokens.

    Args:
        model: The model, wrapped or not.

    Returns:
        Whether the base model's own forward would leave the adapter out.
    """
    adapter = getattr(model, "active_peft_config", None)
    return adapter is not None and bool(
        adapter.is_prompt_learning or getattr(adapter, "alora_invocation_tokens", None)
    )


def count_layers(model: Any) -> int:
    """Count the decoder blocks, which is also the highest layer number.

    Args:
        model: The model, wrapped or not.
    """
    return int(base_model(model).config.get_text_config().num_hidden_layers)


def body(model: Any) -> Any:
    """Find the module that computes the hidden states, without the LM head.

    Args:
        model: The model, wrapped or not.

    Returns:
        What transformers calls the decoder, or the base model where that name is the LM head's.
    """
    base = base_model(model)
    decoder = base.get_decoder()
    return base.base_model if isinstance(decoder, nn.Linear) else decoder


def _blocks_parent(model: Any) -> tuple[Any, str]:
    """The module whose attribute is the list of decoder blocks, and the attribute's name."""
    decoder, n_layers = body(model), count_layers(model)
    for parent in decoder.modules():
        lists = [
            name
            for name, child in parent.named_children()
            if isinstance(child, nn.ModuleList) and len(child) == n_layers
        ]
        if len(lists) == 1:  # several are the parts of blocks: attentions, norms
            return parent, lists[0]
    raise InputError(
        f"{type(decoder).__name__} has no list of {n_layers} decoder blocks: this architecture is "
        "not supported"
    )


def blocks_name(model: Any) -> str:
    """Find the list of decoder blocks.

    Args:
        model: The model, wrapped or not.

    Returns:
        The dotted name of the list, such as `model.layers`.

    Raises:
        InputError: If the model has no such list.
    """
    parent, name = _blocks_parent(model)
    return next(
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in base_model(model).named_modules()
        if module is parent
    )


def block(model: Any, layer: int) -> Any:
    """Find a decoder block.

    Args:
        model: The model, wrapped or not.
        layer: The block, from 1.

    Raises:
        InputError: If the model has no list of decoder blocks.
    """
    parent, name = _blocks_parent(model)
    return getattr(parent, name)[layer - 1]


@contextmanager
def pooled_layers(
    model: Any,
    mask: Tensor,
    layers: Sequence[int],
    pool: Callable[[Tensor, Tensor], Tensor] = mean_pool,
) -> Iterator[dict[int, Tensor]]:
    """Make forwards pool the given layers and stop at the highest, while the body runs.

    Args:
        model: The model, wrapped or not.
        mask: Which tokens belong together, as `pool` takes it: by default the attention mask (n,
            tokens) of the batch that the body runs.
        layers: Decoder blocks, from 1. Blocks above the highest do not run.
        pool: Makes one state for each sentence of a layer's states (n, tokens, d) and the mask.

    Yields:
        A dictionary that the forward fills: for each layer what `pool` returns, by default the mean
        over the tokens of `mask`, (n, d) float32, with its gradient.

    Raises:
        InputError: If the list of decoder blocks is not found.
    """
    parent, name = _blocks_parent(model)
    blocks = getattr(parent, name)
    pooled: dict[int, Tensor] = {}

    def pooling(layer: int) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            hidden = _states(blocks[layer - 1], output, mask)
            # The layers may be on several devices.
            pooled[layer] = pool(hidden, mask.to(hidden.device))

        return hook

    hooks = []
    try:
        for layer in layers:
            hooks.append(blocks[layer - 1].register_forward_hook(pooling(layer)))
        setattr(parent, name, nn.ModuleList(blocks[: max(layers)]))
        yield pooled
    finally:
        setattr(parent, name, blocks)
        for hook in hooks:
            hook.remove()


def _states(block: Any, output: Any, mask: Tensor) -> Tensor:
    """The states that a block returned, alone or first of several: (n, tokens, d).

    Raises InputError if that is not what they are.
    """
    hidden = output[0] if isinstance(output, (tuple, list)) else output
    if isinstance(hidden, Tensor):
        if hidden.ndim == 2 and len(hidden) == mask.numel():  # the tokens of all rows, flat
            hidden = hidden.view(*mask.shape, -1)
        if hidden.ndim == 3:
            hidden = hidden[:, -mask.shape[1] :]  # virtual tokens come first
        if hidden.ndim == 3 and hidden.shape[:2] == mask.shape:
            return hidden
    got = list(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
    raise InputError(
        f"{type(block).__name__} returns {got} for {list(mask.shape)} tokens and not one state per "
        "token: retrieval and alignment do not support this architecture"
    )


@contextmanager
def on_trial(model: Any) -> Iterator[None]:
    """Run forwards of a model that may be in training as in evaluation, without gradients.

    Args:
        model: The transformers model.
    """
    in_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in in_training:  # one by one, since some may be kept in evaluation
            module.training = True


@contextmanager
def without_head(model: Any) -> Iterator[None]:
    """Replace the LM head by the identity, while the body runs: logits are then hidden states.

    Args:
        model: The model, wrapped or not.
    """
    base = base_model(model)
    head = base.get_output_embeddings()
    base.set_output_embeddings(nn.Identity())
    try:
        yield
    finally:
        base.set_output_embeddings(head)


@contextmanager
def head_at(model: Any, positions: Tensor) -> Iterator[None]:
    """Run the LM head on some tokens only, while the body runs.

    The logits of a forward are then (marked tokens, vocabulary), in row order.

    Args:
        model: The model, wrapped or not.
        positions: A Boolean mask (n, tokens) of the batch that the body runs.
    """
    head = base_model(model).get_output_embeddings()
    hook = head.register_forward_pre_hook(
        lambda _module, inputs: (inputs[0][positions.to(inputs[0].device)],)
    )
    try:
        yield
    finally:
        hook.remove()


def pad_right(rows: Sequence[Sequence[int]], value: int = PADDING) -> Tensor:
    """Stack rows of token ids, padded on the right.

    Args:
        rows: n rows of token ids.
        value: The value of the padding.

    Returns:
        (n, longest row), int64.
    """
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def lengths_mask(rows: Sequence[Sequence[int]]) -> Tensor:
    """Make the attention mask of rows that are padded on the right.

    Args:
        rows: n rows of token ids.

    Returns:
        (n, longest row), int64.
    """
    lengths = torch.tensor([len(row) for row in rows])
    return (torch.arange(int(lengths.max())) < lengths[:, None]).long()
