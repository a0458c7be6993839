"""Contrastive alignment of translations (section 3, equation 1): batches, forward, loss.

Follows the authors' code, github dannigt/mid-align.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from xlt_bench.models.chat import encode_sentence
from xlt_bench.models.hidden_states import (
    lengths_mask,
    mean_pool,
    pad_right,
    pooled_layers,
    without_head,
)
from xlt_bench.training.packing import (
    can_pack,
    mean_by_owner,
    pack,
    packed_attention,
    packed_inputs,
)
from xlt_bench.training.pairs import Pair
from xlt_bench.training.recipe import Alignment


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


def contrastive_loss(
    anchors: Tensor, candidates: Tensor, temperature: float, symmetric: bool = False
) -> Tensor:
    """Compute -(1/n) sum_j log softmax_i(cos(anchor_j, candidate_i) / temperature) at i = j.

    Args:
        anchors: (n, d), the non-English sentences.
        candidates: (n, d), their English translations, row by row.
        temperature: Divides the cosines.
        symmetric: Also take the candidates as anchors, and average the two directions. The
            authors' code has one direction only.

    Returns:
        A scalar in nats; float32, or float64 if the states are.
    """
    precision = torch.promote_types(anchors.dtype, torch.float32)
    cosines = normalize(anchors.to(precision), dim=1) @ normalize(candidates.to(precision), dim=1).T
    scores = cosines / temperature
    pairs = torch.arange(len(scores), device=scores.device)
    loss = cross_entropy(scores, pairs)
    return (loss + cross_entropy(scores.T, pairs)) / 2 if symmetric else loss


def alignment_loss(
    model: Any, tensors: dict[str, Tensor], alignment: Alignment, layers: Sequence[int]
) -> Tensor:
    """Compute the contrastive loss at each layer, in a forward that stops at the highest.

    Args:
        model: The adapted model, perhaps in a DistributedDataParallel wrapper, which is called as
            a whole so that it averages the gradients.
        tensors: What `alignment_batch` returns, on the model's device.
        alignment: The recipe's section: temperature and direction.
        layers: Decoder blocks, from 1.

    Returns:
        A scalar in nats, the sum over the layers.
    """
    ids, mask = tensors["input_ids"], tensors["attention_mask"]
    inputs, places = {"input_ids": ids, "attention_mask": mask}, mask
    pool: Callable[[Tensor, Tensor], Tensor] = mean_pool
    attention: AbstractContextManager[None] = nullcontext()
    if can_pack(model, ids, mask):
        layout = pack(mask)
        inputs, places = packed_inputs(layout, ids), layout.owners[None]
        pool = partial(mean_by_owner, rows=len(ids))
        attention = packed_attention(model, layout)
    with attention, without_head(model), pooled_layers(model, places, layers, pool) as pooled:
        model(**inputs, use_cache=False, logits_to_keep=1)
    losses = []
    for layer in layers:
        anchors, candidates = pooled[layer].chunk(2)
        loss = contrastive_loss(anchors, candidates, alignment.temperature, alignment.symmetric)
        losses.append(loss.to(mask.device))  # the layers may be on several devices
    return torch.stack(losses).sum()
