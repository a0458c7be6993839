"""Causal language modelling on the answer (section 3, "Task Objective"): batches, forward, loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from transformers import DynamicCache

from xlt_bench.models.hidden_states import (
    base_model,
    head_at,
    lengths_mask,
    pad_right,
    without_head,
)
from xlt_bench.models.kv_cache import keeps_every_slot
from xlt_bench.training.dataset import Example

IGNORE = -100
"""The label of a token that is not learned: the prompt and the padding."""

# Sharing a shorter prefix does not pay: its forward costs more than it saves.
_SHORTEST_SHARED = 16


def task_batch(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Collate examples, padded on the right.

    Args:
        examples: n prompts with their answers.

    Returns:
        `input_ids`, `attention_mask` and `labels`, each (n, tokens); labels are `IGNORE` outside
        the answer.
    """
    rows = [[*example.prompt, *example.answer] for example in examples]
    labels = [[IGNORE] * len(example.prompt) + example.answer for example in examples]
    return {
        "input_ids": pad_right(rows),
        "attention_mask": lengths_mask(rows),
        "labels": pad_right(labels, IGNORE),
    }


def predicting(labels: Tensor) -> Tensor:
    """Mark the positions that need logits: those whose next token has a label.

    Args:
        labels: (n, tokens), parallel to the input ids, `IGNORE` outside the answer.

    Returns:
        A Boolean mask (n, tokens).
    """
    mask = torch.zeros_like(labels, dtype=torch.bool)
    mask[:, :-1] = labels[:, 1:] != IGNORE
    return mask


def causal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the mean cross-entropy of the labelled tokens.

    Args:
        logits: (labelled tokens, vocabulary): the rows at `predicting(labels)`, in row order.
        labels: (n, tokens).

    Returns:
        A scalar, nats per token.
    """
    targets = labels[:, 1:]
    return cross_entropy(logits.float(), targets[targets != IGNORE])


def task_loss(model: Any, tensors: dict[str, Tensor]) -> Tensor:
    """Compute the cross-entropy of the answers, running the LM head only where it predicts them.

    A prefix that all prompts share (MASSIVE's system prompt) runs once, in a forward of one row
    whose keys and values the other rows reuse. Loss and gradients are the same, except that all
    rows share one dropout mask over the prefix. The prefix is not shared with gradient
    checkpointing, which keeps no keys and values, or with FSDP, where every process must run the
    same forwards.

    Args:
        model: The adapted model, perhaps in a DistributedDataParallel wrapper.
        tensors: What `task_batch` returns, on the model's device.

    Returns:
        A scalar, nats per token of the answers.
    """
    ids, mask, labels = tensors["input_ids"], tensors["attention_mask"], tensors["labels"]
    base = base_model(model)
    can_share = keeps_every_slot(model, ids.shape[1]) and not (
        base.is_activation_checkpointing or base.is_distributed_loading_by_transformers
    )
    shared = _shared_tokens(ids, labels) if can_share else 0
    cache = _prefix_cache(model, ids[:1, :shared], len(ids)) if shared else None
    with head_at(model, predicting(labels)[:, shared:]):
        output = model(
            input_ids=ids[:, shared:],
            attention_mask=mask,
            past_key_values=cache,
            use_cache=bool(shared),
        )
    return causal_loss(output.logits, labels)


def _shared_tokens(ids: Tensor, labels: Tensor) -> int:
    """The length of the prefix that all rows share and that predicts no label; 0 if too short."""
    same = (ids == ids[0]).all(0) & ~predicting(labels).any(0)
    shared = int(same.long().cumprod(0).sum())
    return shared if shared >= _SHORTEST_SHARED and len(ids) > 1 else 0


def _prefix_cache(model: Any, prefix: Tensor, rows: int) -> DynamicCache:
    """Keys and values of a prefix (1, tokens), with their gradients, repeated for `rows` rows.

    Bypasses the DistributedDataParallel wrapper, whose forwards wait for the other processes: their
    rows may share no prefix. Gradients are still averaged, since that hooks into the parameters.
    """
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    cache = DynamicCache(config=base_model(model).config)
    with without_head(model):
        inner(input_ids=prefix, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(rows)
    return cache
