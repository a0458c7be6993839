"""The translation loss, a control of alignment: the same pairs by next-token prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from xlt_bench.models.turn_end import encode_exchange
from xlt_bench.tasks.wmt23 import system_prompt
from xlt_bench.training.dataset import Example
from xlt_bench.training.objectives.causal import task_batch
from xlt_bench.training.pairs import Pair


def translation_batch(
    pairs: Sequence[Pair], tokenizer: Any, symmetric: bool = False
) -> dict[str, Tensor]:
    """Collate pairs as chats with the prompt of `wmt23`, whose answer is the translation.

    Args:
        pairs: n sentence pairs; the first side is the source.
        tokenizer: The base model's, with its chat template set.
        symmetric: Also translate the second sides into the first ones' language: 2n chats.

    Returns:
        What `task_batch` returns.
    """
    there, back = [], []
    for pair in pairs:
        source, target = pair.languages.split("-")
        there.append(_example(tokenizer, source, target, pair.anchor, pair.candidate))
        if symmetric:
            back.append(_example(tokenizer, target, source, pair.candidate, pair.anchor))
    return task_batch([*there, *back])


def _example(tokenizer: Any, source: str, target: str, text: str, answer: str) -> Example:
    chat = [
        {"role": "system", "content": system_prompt(source, target)},
        {"role": "user", "content": text},
    ]
    return Example(*encode_exchange(tokenizer, chat, answer))
