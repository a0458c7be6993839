"""Causal language modelling on the answer (section 3, "Task Objective"): batches, forward, loss."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from xlt_bench.models.hidden_states import head_at, lengths_mask, pad_right, without_head
from xlt_bench.training.dataset import Example
from xlt_bench.training.head_loss import frozen_head, head_loss
from xlt_bench.training.packing import can_pack, pack, packed_attention, packed_inputs

IGNORE = -100
"""The label of a token that is not learned: the prompt and the padding."""


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


def next_labels(labels: Tensor) -> Tensor:
    """Move labels to the tokens that predict them.

    Args:
        labels: (n, tokens), parallel to the input ids, `IGNORE` outside the answer.

    Returns:
        (n, tokens): the label of each next token, `IGNORE` where nothing is predicted.
    """
    following = torch.full_like(labels, IGNORE)
    following[:, :-1] = labels[:, 1:]
    return following


def task_loss(model: Any, tensors: dict[str, Tensor]) -> Tensor:
    """Compute the cross-entropy of the answers, running the LM head only where it predicts them.

    Rows are packed where the model allows it, and a prefix that all prompts share (MASSIVE's system
    prompt) runs once. Loss and gradients are the same, except that the rows share one dropout mask
    over the prefix.

    Args:
        model: The adapted model, perhaps in a DistributedDataParallel wrapper.
        tensors: What `task_batch` returns, on the model's device.

    Returns:
        A scalar, nats per token of the answers.
    """
    ids, mask, labels = tensors["input_ids"], tensors["attention_mask"], tensors["labels"]
    following = next_labels(labels)
    inputs = {"input_ids": ids, "attention_mask": mask}
    attention: AbstractContextManager[None] = nullcontext()
    if can_pack(model, ids, mask):
        layout = pack(mask, shared_tokens(ids, mask, following))
        inputs, following = packed_inputs(layout, ids), layout.take(following)
        attention = packed_attention(model, layout)
    predicting, head = following != IGNORE, frozen_head(model)
    with attention:
        if head is None:
            with head_at(model, predicting):
                logits = model(**inputs, use_cache=False).logits
            return cross_entropy(logits.float(), following[predicting])
        with without_head(model):
            states = model(**inputs, use_cache=False).logits
    return head_loss(states[predicting], head, following[predicting])


def shared_tokens(ids: Tensor, mask: Tensor, following: Tensor) -> int:
    """Count the tokens with which all rows begin and which predict no label.

    Args:
        ids: (n, tokens), padded on the right.
        mask: Its attention mask.
        following: What `next_labels` returns for it.

    Returns:
        The length of the prefix, shorter than any row; 0 for a single row.
    """
    same = (ids == ids[0]).all(0) & (following == IGNORE).all(0)
    shared = int(same.long().cumprod(0).sum())
    return min(shared, int(mask.sum(1).min()) - 1) if len(ids) > 1 else 0
