"""Training examples of a task: its own prompts and gold answers, read and then tokenized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xlt_bench.errors import InputError
from xlt_bench.models.chat import encode_exchange
from xlt_bench.tasks.base import Item
from xlt_bench.tasks.registry import get_text_task
from xlt_bench.training.recipe import TaskData


@dataclass(frozen=True)
class Example:
    """A prompt and the tokens to be learned after it, the end of the turn included."""

    prompt: list[int]
    answer: list[int]


def load_items(root: Path, task: TaskData, split: Literal["train", "validation"]) -> list[Item]:
    """The items of all units of a task, unit by unit. Raises InputError for missing data.

    Directions without validation data (ALMA has none of Icelandic) have no share in the dev loss.
    """
    limit = task.items if split == "train" else task.dev_items
    source, names = get_text_task(task.name), task.units
    if split == "validation":
        names = [unit for unit in names if split in source.splits(unit)]
    return [item for unit in names for item in source.load(root, unit, split)[:limit]]


def encode_items(
    tokenizer: Any, items: Sequence[Item], max_tokens: int
) -> tuple[list[Example], int]:
    """The examples of at most `max_tokens` tokens, in order, and how many were longer.

    Raises InputError where nothing is left.
    """
    examples = []
    for item in items:
        example = Example(*encode_exchange(tokenizer, item.messages, item.target))
        if len(example.prompt) + len(example.answer) <= max_tokens:
            examples.append(example)
    if items and not examples:
        raise InputError(
            f"training.max_tokens: none of {len(items)} examples has {max_tokens} tokens or fewer"
        )
    return examples, len(items) - len(examples)
