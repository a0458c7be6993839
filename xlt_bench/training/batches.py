"""Lays out a training before it starts: which micro-batch holds which examples.

A micro-batch is a function of its number and the seed, so a resumed training sees exactly the
batches that it would have seen, and several processes share them out by number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from torch import Tensor
from torch.utils.data import Dataset

from xlt_bench.errors import InputError
from xlt_bench.training.objectives import objectives_of
from xlt_bench.training.objectives.base import Examples
from xlt_bench.training.recipe import Recipe


class Batch(TypedDict):
    """A micro-batch: the name of its objective, and the tensors of that objective's loss."""

    objective: str
    tensors: dict[str, Tensor]


class MicroBatches(Dataset[Batch]):
    """All micro-batches of a training, in order; an item is one, ready for the model.

    Args:
        recipe: The recipe, which says whose turn it is.
        examples: The encoded examples, by objective.
        tokenizer: The base model's.
        updates: Updates of the training.

    Raises:
        InputError: If the examples cannot fill a micro-batch.
    """

    def __init__(
        self, recipe: Recipe, examples: Mapping[str, Examples[Any]], tokenizer: Any, updates: int
    ) -> None:
        self._objectives, self._tokenizer = objectives_of(recipe), tokenizer
        names = map(recipe.objective_of, range(updates * recipe.micro_batches))
        self._rows = [(name, next(examples[name].micro_batches)) for name in names]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Batch:
        name, rows = self._rows[number]
        return Batch(objective=name, tensors=self._objectives[name].tensors(rows, self._tokenizer))


@dataclass(frozen=True)
class Data:
    """Everything a training reads, ready for the model."""

    train: MicroBatches
    dev: dict[str, list[Batch]]
    """Dev micro-batches by objective; without those that have no dev data."""
    updates: int
    digests: dict[str, str]
    counts: dict[str, int]


def encode_data(texts: Mapping[str, Any], recipe: Recipe, tokenizer: Any) -> Data:
    """Encode what a recipe learns from and lay out its micro-batches.

    Args:
        texts: Each objective's texts, as `read_texts` returns them.
        recipe: The recipe.
        tokenizer: The base model's, with its chat template set.

    Returns:
        The training and dev micro-batches, and what the card says of the data.

    Raises:
        InputError: If an objective has no example left, or too few to fill a micro-batch.
    """
    examples: dict[str, Examples[Any]] = {}
    dev: dict[str, list[Batch]] = {}
    digests: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name, objective in objectives_of(recipe).items():
        found = objective.encode(texts[name], tokenizer)
        if not found.count:
            raise InputError(f"{name}: the data hold no training examples")
        examples[name] = found
        digests |= found.digests
        counts |= found.counts
        if found.dev:
            batches = (objective.tensors(rows, tokenizer) for rows in found.dev)
            dev[name] = [Batch(objective=name, tensors=tensors) for tensors in batches]
    updates = recipe.updates(next(iter(examples.values())).count)
    return Data(MicroBatches(recipe, examples, tokenizer, updates), dev, updates, digests, counts)
