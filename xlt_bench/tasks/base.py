"""What the text benchmarks share: an item, a metric, and the functions that lm-eval's YAML names.

A benchmark is a module with `VERSION`, `PRIMARY`, `MAX_NEW_TOKENS`, `METRICS`, `load`, `count`.
`load` gives items, `count` turns items and hypotheses into additive counts, and a metric turns
summed counts into a score: the same three calls serve evaluation, plain lm-eval, re-scoring and
the bootstrap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from xlt_bench.metrics.significance import Counts, Score

RETRIEVAL = "retrieval_accuracy"
RETRIEVAL_VERSION = 1
"""Metric and version of the retrieval benchmark, whose own module needs torch."""


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
    """A score of summed counts; called with many items' counts, it is lm-eval's aggregation."""

    def __init__(self, score: Score, *, higher_is_better: bool = True) -> None:
        self.score = score
        self.higher_is_better = higher_is_better

    def __call__(self, counts: Sequence[Sequence[float]]) -> float:
        """The score of all items together."""
        return float(self.score(np.asarray(counts, dtype=np.float64).sum(axis=0)))


class Benchmark(Protocol):
    """The module of a text benchmark."""

    VERSION: int
    PRIMARY: str
    MAX_NEW_TOKENS: int
    METRICS: Mapping[str, Metric]

    def load(self, root: Path, unit: str, split: Any = ...) -> list[Item]:
        """The items of one unit and split, in file order."""

    def count(self, items: Sequence[Item], hypotheses: Sequence[str]) -> dict[str, Counts]:
        """Counts (n, k) of n answers for each metric."""


def flags(values: Sequence[bool]) -> Counts:
    """Counts (n, 2) of (has it, 1), for `significance.percent`."""
    return np.array([(int(value), 1) for value in values], dtype=np.int64).reshape(-1, 2)


def lm_eval_dataset(items: Sequence[Item]) -> dict[str, Any]:
    """The items as the dataset of an lm-eval task."""
    from datasets import Dataset

    return {"test": Dataset.from_list([dataclasses.asdict(item) for item in items])}


def lm_eval_counts(
    benchmark: Benchmark, doc: dict[str, Any], results: Sequence[str]
) -> dict[str, list[float]]:
    """`process_results` of an lm-eval task: the counts of one answer, one row a metric."""
    counts = benchmark.count([Item(**doc)], [results[0]])
    return {name: matrix[0].tolist() for name, matrix in counts.items()}
