"""Causal language modelling on the answer (section 3, "Task Objective")."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

IGNORE = -100
"""The label of a token that is not learned: the prompt and the padding."""


def predicting(labels: Tensor) -> Tensor:
    """Where logits are needed: the positions (n, tokens) whose next token has a label.

    `labels` is (n, tokens), parallel to the input ids, `IGNORE` outside the answer.
    """
    mask = torch.zeros_like(labels, dtype=torch.bool)
    mask[:, :-1] = labels[:, 1:] != IGNORE
    return mask


def causal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy, in nats a token, of the labelled tokens.

    `logits` is (labelled tokens, vocabulary): the rows at `predicting(labels)`, in row order.
    """
    targets = labels[:, 1:]
    return cross_entropy(logits.float(), targets[targets != IGNORE])
