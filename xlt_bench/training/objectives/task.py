"""The task objective: the benchmark's own prompts and gold answers, learned by cross-entropy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xlt_bench.data.chats import Chat
from xlt_bench.data.root import content_digest
from xlt_bench.tasks.base import Item
from xlt_bench.tasks.registry import get_text_task
from xlt_bench.training.corpus import count_rows, count_wrong
from xlt_bench.training.dataset import Example, encode_items, load_items
from xlt_bench.training.objectives.base import Examples, Objective
from xlt_bench.training.recipe import Training
from xlt_bench.training.recipe_data import TaskData

if TYPE_CHECKING:
    from torch import Tensor


class TaskTexts(NamedTuple):
    """The items of the training and the validation split."""

    train: Sequence[Item | Chat]
    dev: Sequence[Item | Chat]


class TaskObjective(Objective[TaskTexts, Example]):
    """Cross-entropy on the answers of a task (section 3, "Task Objective")."""

    name = "task"
    reaches_every_weight = True

    def __init__(self, section: TaskData, training: Training) -> None:
        self._section, self._training = section, training

    def read(self, root: Path) -> TaskTexts:
        """Read the items of both splits."""
        return TaskTexts(
            load_items(root, self._section, "train"), load_items(root, self._section, "validation")
        )

    def sentences(self, texts: TaskTexts) -> Iterable[tuple[str, str]]:
        """List what the items are about, and answers in another language than the question."""
        for row in texts.train:
            if isinstance(row, Chat):
                yield row.language, row.messages[-1]["content"]
                yield row.language, row.target
                continue
            task = get_text_task(self._section.name)
            codes = task.languages_of(row.unit)
            for code in codes:
                yield code, task.sentence(row)
                if len(codes) > 1:
                    yield code, row.target

    def encode(self, texts: TaskTexts, tokenizer: Any) -> Examples[Example]:
        """Encode the items of at most `max_tokens`; dev examples go by length."""
        training, size = self._training, self._training.micro_batch_size
        train, too_long = encode_items(tokenizer, texts.train, training.max_tokens)
        dev, _ = encode_items(tokenizer, texts.dev, training.max_tokens)
        dev.sort(key=lambda example: len(example.prompt) + len(example.answer))
        return Examples(
            count=len(train),
            micro_batches=micro_batches(train, size, training.seed),
            dev=[dev[start : start + size] for start in range(0, len(dev), size)],
            digests={"task": content_digest(texts.train), "task_dev": content_digest(texts.dev)},
            counts={
                "task": len(train),
                "task, too long": too_long,
                "task_dev": len(dev),
                **_odd(texts.train),
            },
        )

    def tensors(self, rows: Sequence[Example], tokenizer: Any) -> dict[str, Tensor]:
        """Collate prompts and answers: `input_ids`, `attention_mask` and `labels`."""
        from xlt_bench.training.objectives.causal import task_batch

        return task_batch(rows)

    def loss(self, model: Any, tensors: dict[str, Tensor]) -> Tensor:
        """Compute the mean cross-entropy of the answers' tokens."""
        from xlt_bench.training.objectives.causal import task_loss

        return task_loss(model, tensors)


def _odd(rows: Sequence[Item | Chat]) -> dict[str, int]:
    """Count items that have no answer or occur twice, and a user's chats in a wrong language."""
    counts = count_rows((f"{row.messages}", row.target) for row in rows)
    found = {f"task, {fault}": n for fault, n in counts.items() if n and fault != "read"}
    asked: dict[str, list[str]] = {}
    for row in rows:
        if isinstance(row, Chat):
            asked.setdefault(row.language, []).append(row.messages[-1]["content"])
    for code, texts in asked.items():
        wrong = count_wrong(texts, code, asked.keys() - {code})
        found |= {f"task {code}, {fault}": n for fault, n in wrong.items() if n}
    return found


def micro_batches(examples: Sequence[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Cut shuffled epochs, one after the other, into micro-batches.

    Args:
        examples: The training examples, at least one.
        size: Examples of a micro-batch.
        seed: The recipe's seed, on which the order depends.

    Yields:
        Micro-batches without end; one may hold the end of an epoch and the start of the next.
    """
    rng = np.random.default_rng([seed, 3])
    batch: list[Example] = []
    while True:
        for number in rng.permutation(len(examples)):
            batch.append(examples[number])
            if len(batch) == size:
                yield batch
                batch = []
