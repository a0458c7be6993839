"""The interface of a training objective; subclasses are in the other modules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from xlt_bench.training.recipe import Training

if TYPE_CHECKING:
    from torch import Tensor

Texts = TypeVar("Texts")
Row = TypeVar("Row")


@dataclass(frozen=True)
class Examples(Generic[Row]):
    """The encoded training and dev data of one objective."""

    count: int
    """Training rows in an epoch."""
    micro_batches: Iterator[list[Row]]
    """Endless; shuffled by the recipe's seed alone."""
    dev: list[list[Row]]
    """The dev rows in micro-batches; empty where the data have no dev split."""
    digests: dict[str, str]
    """sha256 of the texts, for `training.json` and the card."""
    counts: dict[str, int]
    """Rows by split, for the card."""


class Objective(ABC, Generic[Texts, Row]):
    """One thing that a training learns, configured by a section of the recipe.

    `Texts` is what `read` returns; a micro-batch is a list of `Row`. A subclass's module must not
    import torch at its top: `xlt-bench train` reads the data, and reports what is missing, first.
    """

    name: ClassVar[str]
    """The recipe's key of the section; names batches, logged losses and dev losses."""
    reaches_every_weight: ClassVar[bool]
    """Whether its loss has a gradient for every weight of the adapter."""

    @abstractmethod
    def __init__(self, section: Any, training: Training) -> None:
        """Take the settings of the recipe's section, and those of the whole training."""

    def check(self, n_layers: int) -> None:
        """Check the section against a model.

        Args:
            n_layers: Decoder blocks of the model.

        Raises:
            InputError: If the section names a layer that the model does not have.
        """

    @abstractmethod
    def read(self, root: Path) -> Texts:
        """Read the training and dev texts.

        Args:
            root: The data folder.

        Returns:
            The texts, as `encode` takes them.

        Raises:
            InputError: If data are missing.
        """

    def sentences(self, texts: Texts) -> Iterable[tuple[str, str]]:
        """List the training text, to be compared with the test sets.

        Args:
            texts: What `read` returned.

        Returns:
            Texts with their languages (codes of the language table); by default none.
        """
        return ()

    @abstractmethod
    def encode(self, texts: Texts, tokenizer: Any) -> Examples[Row]:
        """Encode the texts and lay out their micro-batches.

        Args:
            texts: What `read` returned.
            tokenizer: The base model's, with its chat template set.

        Returns:
            The examples, whose micro-batches depend on the texts and the settings alone.

        Raises:
            InputError: If no training example is left.
        """

    @abstractmethod
    def tensors(self, rows: Sequence[Row], tokenizer: Any) -> dict[str, Tensor]:
        """Collate a micro-batch.

        Args:
            rows: The rows of a micro-batch.
            tokenizer: The base model's.

        Returns:
            The tensors that `loss` takes, on the CPU; `input_ids` (n, tokens) among them.
        """

    @abstractmethod
    def loss(self, model: Any, tensors: dict[str, Tensor]) -> Tensor:
        """Compute the loss of a micro-batch.

        Args:
            model: The adapted model, perhaps in a DistributedDataParallel wrapper.
            tensors: What `tensors` returned, on the model's device.

        Returns:
            The mean loss in nats, a scalar with its gradient.
        """
