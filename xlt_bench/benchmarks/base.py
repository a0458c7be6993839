"""What the text benchmarks share: an item, a metric, and the functions that lm-eval's YAML names.

A benchmark is a module with `VERSION`, `PRIMARY`, `MAX_NEW_TOKENS`, `METRICS`, `load`, `score`.
`load` gives items, `score` turns one item and one hypothesis into counts, and a metric turns the
summed counts of many items into a score: the same three calls serve evaluation, plain lm-eval,
re-scoring and the bootstrap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Counts = tuple[float, ...]
Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Item:
    """One prompt and what its answer is scored against.

    `unit` is a language or a direction; `system` may be empty; `target` is the gold answer in the
    form that a model should give; `gold` is what scoring reads (the annotated utterance, the
    reference translation, the entities).
    """

    id: str
    unit: str
    system: str
    user: str
    target: str
    gold: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat that a model answers, without the answer."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.user}]


class Metric:
    """A score of summed per-item counts; called with a list of them, as lm-eval's aggregation.

    `score` maps sums of shape (..., k) to scores of shape (...).
    """

    def __init__(
        self, score: Callable[[Array], Array], *, higher_is_better: bool = True
    ) -> None:
        self.score = score
        self.higher_is_better = higher_is_better

    def __call__(self, counts: Sequence[Counts]) -> float:
        return float(self.score(np.asarray(counts, dtype=np.float64).sum(axis=0)))


def share(sums: Array) -> Array:
    """Percent of items with a property, from sums (..., 2) of (has it, 1)."""
    return 100 * sums[..., 0] / sums[..., 1]


def flag(value: bool) -> Counts:
    """One item's counts for `share`."""
    return (float(value), 1.0)


def f1(sums: Array) -> Array:
    """Micro F1 in percent from sums (..., 3) of (in both, predicted, gold); 0 where undefined.

    As seqeval's `f1_score` with its default `zero_division`.
    """
    both = sums[..., 1] + sums[..., 2]
    return 200 * sums[..., 0] / np.where(both > 0, both, 1)


class Benchmark(Protocol):
    """The module of a text benchmark."""

    VERSION: int
    PRIMARY: str
    MAX_NEW_TOKENS: int
    METRICS: Mapping[str, Metric]

    def load(self, root: Path, unit: str, split: Any = ...) -> list[Item]:
        """The items of one unit and split, in file order."""

    def score(self, item: Item, hypothesis: str) -> dict[str, Counts]:
        """Counts of one answer, one entry a metric."""


def lm_eval_dataset(items: Sequence[Item]) -> dict[str, Any]:
    """The items as the dataset of an lm-eval task."""
    from datasets import Dataset

    return {"test": Dataset.from_list([dataclasses.asdict(item) for item in items])}
