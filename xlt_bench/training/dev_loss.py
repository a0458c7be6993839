"""The loss of a model on a user's own dev chats, by which a merge is chosen without a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from xlt_bench.data import chats
from xlt_bench.models.turn_end import encode_exchange
from xlt_bench.training.dataset import Example
from xlt_bench.training.objectives.causal import task_batch, task_loss

_ROWS = 16


def dev_loss(model: Any, tokenizer: Any, path: Path, limit: int | None = None) -> float:
    """Compute the loss of the answers in a file of chats, with equal weights of its languages.

    Args:
        model: The adapted model.
        tokenizer: Its tokenizer, with its chat template set.
        path: The file, as `xlt_bench.data.chats` reads it.
        limit: The first N chats of each language; all by default.

    Returns:
        Nats per token: the mean over languages of the mean over a language's tokens.

    Raises:
        InputError: The file is missing or broken.
    """
    rows: dict[str, list[Example]] = {}
    for chat in chats.load(path):
        found = rows.setdefault(chat.language, [])
        if limit is None or len(found) < limit:
            found.append(Example(*encode_exchange(tokenizer, chat.messages, chat.target)))
    model.eval()
    with torch.no_grad():
        return float(np.mean([_mean_loss(model, examples) for examples in rows.values()]))


def _mean_loss(model: Any, examples: list[Example]) -> float:
    total, tokens = 0.0, 0
    for start in range(0, len(examples), _ROWS):
        batch = examples[start : start + _ROWS]
        size = sum(len(example.answer) for example in batch)
        tensors = {name: value.to(model.device) for name, value in task_batch(batch).items()}
        total += size * float(task_loss(model, tensors))
        tokens += size
    return total / tokens
