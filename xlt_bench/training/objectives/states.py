"""The states that an alignment loss compares: batches, and a forward up to the highest layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from xlt_bench.models.chat import encode_sentence
from xlt_bench.models.hidden_states import (
    lengths_mask,
    mean_pool,
    pad_right,
    pooled_layers,
    without_head,
)
from xlt_bench.training.objectives.cka import cka_loss
from xlt_bench.training.objectives.contrastive import contrastive_loss
from xlt_bench.training.objectives.distance import cosine_loss, mse_loss
from xlt_bench.training.objectives.transport import transport_loss
from xlt_bench.training.packing import (
    Packed,
    can_pack,
    mean_by_owner,
    pack,
    packed_attention,
    packed_inputs,
)
from xlt_bench.training.pairs import Pair
from xlt_bench.training.recipe_data import Alignment

Pool = Callable[[Tensor, Tensor], Tensor]


def alignment_batch(pairs: Sequence[Pair], tokenizer: Any) -> dict[str, Tensor]:
    """Collate both sides of the pairs into one batch, so that they need one forward.

    Args:
        pairs: n sentence pairs.
        tokenizer: The base model's.

    Returns:
        `input_ids` and `attention_mask`, each (2n, tokens) and padded on the right: the n anchors,
        then their n candidates.
    """
    texts = [pair.anchor for pair in pairs] + [pair.candidate for pair in pairs]
    rows = [encode_sentence(tokenizer, text) for text in texts]
    return {
        "input_ids": pad_right(rows),
        "attention_mask": lengths_mask(rows),
    }


def alignment_loss(
    model: Any, tensors: dict[str, Tensor], alignment: Alignment, layers: Sequence[int]
) -> Tensor:
    """Compute the section's loss at each layer, in a forward that stops at the highest.

    Args:
        model: The adapted model, perhaps in a DistributedDataParallel wrapper, which is called as
            a whole so that it averages the gradients.
        tensors: What `alignment_batch` returns, on the model's device.
        alignment: The recipe's section: loss, temperature and direction.
        layers: Decoder blocks, from 1.

    Returns:
        A scalar, the sum over the layers.
    """
    ids, mask = tensors["input_ids"], tensors["attention_mask"]
    by_token = alignment.loss == "transport"
    inputs, places = {"input_ids": ids, "attention_mask": mask}, mask
    pool: Pool = _token_states if by_token else mean_pool
    attention: AbstractContextManager[None] = nullcontext()
    if can_pack(model, ids, mask):
        layout = pack(mask)
        inputs, places = packed_inputs(layout, ids), layout.owners[None]
        pool = _unpacking(layout) if by_token else partial(mean_by_owner, rows=len(ids))
        attention = packed_attention(model, layout)
    with attention, without_head(model), pooled_layers(model, places, layers, pool) as pooled:
        model(**inputs, use_cache=False, logits_to_keep=1)
    losses = [_loss(pooled[layer], mask, alignment) for layer in layers]
    return torch.stack([loss.to(mask.device) for loss in losses]).sum()  # perhaps on several


def _token_states(hidden: Tensor, _mask: Tensor) -> Tensor:
    return hidden


def _unpacking(layout: Packed) -> Pool:
    """Makes the rows of a line's states (1, tokens, d) rows again, (n, longest row, d)."""
    return lambda hidden, _owners: hidden[0][layout.slots.to(hidden.device)]


def _loss(states: Tensor, mask: Tensor, alignment: Alignment) -> Tensor:
    """The section's loss of one layer's states: of sentences (2n, d), or of tokens (2n, tokens, d).

    The first n rows are the anchors.
    """
    anchors, candidates = states.chunk(2)
    match alignment.loss:
        case "contrastive":
            return contrastive_loss(anchors, candidates, alignment.temperature, alignment.symmetric)
        case "cosine":
            return cosine_loss(anchors, candidates)
        case "mse":
            return mse_loss(anchors, candidates)
        case "cka":
            return cka_loss(anchors, candidates)
        case "transport":
            masks = mask.to(states.device).chunk(2)
            return transport_loss(anchors, masks[0], candidates, masks[1], alignment.temperature)
        case "translation":
            raise ValueError("the translation loss compares no states")
