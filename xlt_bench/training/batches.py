"""Which micro-batch holds what: the whole of a training, laid out before it starts.

A micro-batch is made from its number alone, so that training goes on after a kill with exactly
the batches it would have had, and several processes share them out by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from xlt_bench.data.root import content_digest
from xlt_bench.models.chat import encode_sentence
from xlt_bench.models.hidden_states import lengths_mask, pad_right
from xlt_bench.training.dataset import Example, Texts, encode_items
from xlt_bench.training.objectives.causal import IGNORE
from xlt_bench.training.pairs import Pair, batches, dev_batches, split_dev
from xlt_bench.training.recipe import Recipe

Batch = dict[str, Tensor]
"""`input_ids`, `attention_mask`, and `labels` in a task batch. In an alignment batch the first
half of the rows are the anchors, the second their candidates."""


def task_batch(examples: Sequence[Example], pad: int) -> Batch:
    """A micro-batch of the task objective, padded on the right."""
    rows = [[*example.prompt, *example.answer] for example in examples]
    labels = [[IGNORE] * len(example.prompt) + example.answer for example in examples]
    return {
        "input_ids": pad_right(rows, pad),
        "attention_mask": lengths_mask(rows),
        "labels": pad_right(labels, IGNORE),
    }


def alignment_batch(pairs: Sequence[Pair], tokenizer: Any) -> Batch:
    """A micro-batch of the alignment objective: both sides in one forward."""
    texts = [pair.anchor for pair in pairs] + [pair.candidate for pair in pairs]
    rows = [encode_sentence(tokenizer, text) for text in texts]
    return {
        "input_ids": pad_right(rows, tokenizer.pad_token_id),
        "attention_mask": lengths_mask(rows),
    }


def is_task_batch(recipe: Recipe, number: int) -> bool:
    """Whether micro-batch `number`, from 0, is of the task objective; the task comes first."""
    if not recipe.alternates:
        return recipe.task is not None
    unit = recipe.micro_batches if recipe.training.alternation == "step" else 1
    return number // unit % 2 == 0


def example_order(n: int, count: int, seed: int) -> list[int]:
    """`count` example numbers: shuffled epochs of `n`, one after the other."""
    rng = np.random.default_rng([seed, 3])
    epochs = [rng.permutation(n) for _ in range(-(-count // n))]
    return [int(i) for i in np.concatenate(epochs)[:count]]


class MicroBatches(Dataset[Batch]):
    """All micro-batches of a training, in order; an item is one, ready for the model."""

    def __init__(
        self,
        recipe: Recipe,
        tokenizer: Any,
        examples: Sequence[Example],
        pairs: dict[str, list[Pair]],
        updates: int,
    ) -> None:
        self._recipe, self._tokenizer, self._examples = recipe, tokenizer, examples
        size, seed = recipe.training.micro_batch_size, recipe.training.seed
        total = updates * recipe.micro_batches
        kinds = [is_task_batch(recipe, number) for number in range(total)]
        order = iter(example_order(len(examples), sum(kinds) * size, seed) if examples else [])
        drawn = batches(pairs, size, seed) if pairs else iter(())
        self._rows: list[list[int] | list[Pair]] = [
            list(islice(order, size)) if is_task else next(drawn) for is_task in kinds
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Batch:
        rows = self._rows[number]
        if is_task_batch(self._recipe, number):
            chosen = [self._examples[row] for row in rows if isinstance(row, int)]
            return task_batch(chosen, self._tokenizer.pad_token_id)
        return alignment_batch([row for row in rows if isinstance(row, Pair)], self._tokenizer)


@dataclass(frozen=True)
class Data:
    """Everything a training reads, ready for the model."""

    train: MicroBatches
    dev: dict[str, list[Batch]]
    updates: int
    digests: dict[str, str]
    counts: dict[str, int]


def encode_data(texts: Texts, recipe: Recipe, tokenizer: Any) -> Data:
    """Encode all that a recipe learns from. Raises InputError where nothing of it is left."""
    size = recipe.training.micro_batch_size
    examples: list[Example] = []
    pairs: dict[str, list[Pair]] = {}
    dev: dict[str, list[Batch]] = {}
    digests: dict[str, str] = {}
    counts: dict[str, int] = {}
    if recipe.task:
        digests["task"], digests["task_dev"] = map(content_digest, (texts.train, texts.dev))
        examples, too_long = encode_items(tokenizer, texts.train, recipe.training.max_tokens)
        rows, _ = encode_items(tokenizer, texts.dev, recipe.training.max_tokens)
        counts = {"task": len(examples), "task, too long": too_long, "task_dev": len(rows)}
        rows.sort(key=lambda row: len(row.prompt) + len(row.answer))
        pad = tokenizer.pad_token_id
        dev["task"] = [task_batch(rows[i : i + size], pad) for i in range(0, len(rows), size)]
    if recipe.alignment:
        every = (row for rows in texts.pairs.values() for row in rows)
        digests["alignment"] = content_digest(every)
        pairs, held = split_dev(texts.pairs, recipe.training.seed)
        counts |= {f"alignment {name}": len(rows) for name, rows in pairs.items()}
        counts["alignment_dev"] = len(held)
        dev["alignment"] = [alignment_batch(rows, tokenizer) for rows in dev_batches(held, size)]
    dev = {name: rows for name, rows in dev.items() if rows}
    updates = recipe.updates(len(examples) or sum(map(len, pairs.values())))
    train_set = MicroBatches(recipe, tokenizer, examples, pairs, updates)
    return Data(train_set, dev, updates, digests, counts)
