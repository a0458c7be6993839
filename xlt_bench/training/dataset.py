"""Training examples of a task: its own prompts and gold answers, read and then tokenized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xlt_bench.data import chats
from xlt_bench.data.chats import Chat
from xlt_bench.errors import InputError
from xlt_bench.models.turn_end import encode_exchange
from xlt_bench.tasks.base import Item
from xlt_bench.tasks.registry import get_text_task
from xlt_bench.training.recipe_data import TaskData


@dataclass(frozen=True)
class Example:
    """A tokenized prompt, and the answer to learn, which ends with the end-of-turn token."""

    prompt: list[int]
    answer: list[int]


def load_items(
    root: Path, task: TaskData, split: Literal["train", "validation"]
) -> Sequence[Item | Chat]:
    """Read the items of all units of a task, one unit after the other.

    Directions without validation data (ALMA has none for Icelandic) are left out of that split.

    Args:
        root: The data folder.
        task: The recipe's section.
        split: The split.

    Returns:
        The items, at most as many a unit as the recipe says.

    Raises:
        InputError: If data are missing.
    """
    limit = task.items if split == "train" else task.dev_items
    if task.train is not None:
        return _load_chats(task, split, limit)
    source, names = get_text_task(task.name), task.units
    if split == "validation":
        names = [unit for unit in names if split in source.splits(unit)]
    return [item for unit in names for item in source.load(root, unit, split)[:limit]]


def _load_chats(task: TaskData, split: str, limit: int | None) -> list[Chat]:
    """The chats of a user's file, one language after the other."""
    file = task.train if split == "train" else task.dev
    if file is None:
        return []
    found = chats.load(Path(file))
    there = dict.fromkeys(chat.language for chat in found)
    if split == "train" and (missing := [unit for unit in task.units if unit not in there]):
        raise InputError(f"task.units: {file} has no chats in {' '.join(missing)}")
    return [
        chat
        for unit in task.units or there
        for chat in [chat for chat in found if chat.language == unit][:limit]
    ]


def encode_items(
    tokenizer: Any, items: Sequence[Item | Chat], max_tokens: int
) -> tuple[list[Example], int]:
    """Tokenize items, leaving out long ones.

    Args:
        tokenizer: The base model's, with its chat template set.
        items: The items.
        max_tokens: The longest example, prompt and answer together.

    Returns:
        The examples, in order, and how many were too long.

    Raises:
        InputError: If all are too long.
    """
    examples = []
    for item in items:
        example = Example(*encode_exchange(tokenizer, item.messages, item.target))
        if len(example.prompt) + len(example.answer) <= max_tokens:
            examples.append(example)
    if items and not examples:
        raise InputError(
            f"training.max_tokens: all {len(items)} examples are longer than {max_tokens} tokens; "
            "raise it"
        )
    return examples, len(items) - len(examples)
