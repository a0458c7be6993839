"""Defines `Task`, `TextTask`, `Item` and `Metric`, and functions that lm-eval's YAML calls.

A task is one object. `load` gives items, `count` turns items and hypotheses into additive counts,
and a metric turns summed counts into a score: the same three calls serve evaluation, plain
lm-eval, re-scoring and the bootstrap.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from xlt_bench.data.flores import Corpus
from xlt_bench.errors import InputError
from xlt_bench.languages import language
from xlt_bench.metrics.significance import Counts, Floats, Score, percent
from xlt_bench.tasks.test_set import TestSet, read_test_set, versions

Split = Literal["train", "validation", "test"]
Mean = Literal["all", "supervised", "transfer", "aligned"]
WHOLE = "*"
"""The only part of a task that cannot be divided among jobs."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One prompt with its gold answer.

    `unit` is a language or a direction; `system` may be empty; `target` is the gold answer in the
    form that a model should give; `gold` is what answers are scored against (the annotated
    utterance, the reference translation, the entities).
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
    """A score of summed counts. Called with the counts of many items, it is lm-eval's aggregation.

    `width` is the number of counts per item.
    """

    def __init__(self, score: Score, width: int, *, higher_is_better: bool = True) -> None:
        self.score = score
        self.width = width
        self.higher_is_better = higher_is_better

    def __call__(self, counts: Counts | Sequence[Sequence[float]]) -> float:
        """The score of all items together."""
        return float(self.score(np.asarray(counts, dtype=np.float64).sum(axis=0)))


CUT_OFF = "cut_off"
"""The metric of every text task: percent of answers that the length limit cut off."""


@cache
def _pins_of(kind: type) -> Path:
    """The folder `pinned/` next to the module that defines a class."""
    return Path(inspect.getfile(kind)).parent / "pinned"


class Task(ABC):
    """A task of the benchmark. Subclass `TextTask` to add one; see CONTRIBUTING.md.

    Attributes:
        name: Its name on the command line, in records and in submissions.
        title: A short title for tables and pages.
        primary: The metric that ranks it.
        metrics: Every metric that is computed from its answers, by name.
        stored_metrics: Metrics whose item scores are stored in a run (COMET), by name.
        shown: The metrics that `evaluate` prints.
        ranked_by: The mean that systems are ranked by.
        answers: The kind of answer: a text, or the indices of retrieved sentences.
        lm_eval_name: The name of its lm-eval task or group.
        rescored_from: The oldest version whose scores this code can compute again.
        trains_on_flores: Whether its training text holds the sentences of FLORES-200 dev.
        on_flores_dev: Whether its test items are those sentences.
        ceilings: The metrics whose gold-answer scores are pinned.
        of_lm_eval: Whether lm-eval has its data, makes its prompts and asks the model.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    primary: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    stored_metrics: ClassVar[Mapping[str, Metric]] = {}
    shown: ClassVar[tuple[str, ...]]
    ranked_by: ClassVar[Mean] = "transfer"
    answers: ClassVar[Literal["text", "neighbours"]]
    rescored_from: ClassVar[int] = 1
    trains_on_flores: ClassVar[bool] = False
    on_flores_dev: ClassVar[bool] = False
    ceilings: ClassVar[tuple[str, ...]] = ()
    of_lm_eval: ClassVar[bool] = False

    @abstractmethod
    def units(self) -> list[str]:
        """Every unit that the publishers have test data for, in the order of the language table."""

    @abstractmethod
    def load(self, root: Path, unit: str, split: Split = "test") -> list[Any]:
        """The items of one unit and split, in file order.

        Raises:
            InputError: A file is missing or broken.
        """

    @property
    def lm_eval_name(self) -> str:
        """The name of the lm-eval task or group."""
        return f"xlt_{self.name}"

    def load_from(self, corpus: Corpus, unit: str) -> list[Any]:
        """The test items of a unit; only retrieval can use a corpus other than FLORES."""
        return self.load(corpus.root, unit)

    def source(self, unit: str) -> tuple[str, str] | None:
        """The data set and unit that the test items come from; None if `data check` has none."""
        return None

    def languages_of(self, unit: str) -> tuple[str, ...]:
        """The codes of all languages that a unit involves."""
        return (unit,)

    def language_of(self, unit: str) -> str:
        """The language that a unit measures: for a direction, the non-English one."""
        return self.languages_of(unit)[0]

    def source_of(self, unit: str) -> str:
        """The language that the items of a unit are in; of a direction, the source."""
        return self.language_of(unit)

    def unit_named(self, name: str) -> str:
        """The unit that a user names by code, FLORES code or locale.

        Raises:
            InputError: The task has no such unit.
        """
        unit = language(name).code
        if unit not in self.units():
            raise InputError(f"{self.name} has no data for {name}; see: xlt-bench languages")
        return unit

    def choose(self, codes: Iterable[str]) -> list[str]:
        """The units that measure the given languages (codes, FLORES codes or locales)."""
        wanted = {language(code).code for code in codes}
        return [unit for unit in self.units() if self.language_of(unit) in wanted]

    def order(self, names: Iterable[str]) -> list[str]:
        """Units in the task's order; unknown ones are left out."""
        wanted = set(names)
        return [unit for unit in self.units() if unit in wanted]

    def work(self, units: Sequence[str]) -> list[str]:
        """The parts that can be shared out to several jobs: by default, the units."""
        return list(units)

    def is_scored(self, metric: str, unit: str) -> bool:
        """Whether a unit has a score under a metric of this task."""
        return True

    def metric(self, name: str) -> Metric:
        """A metric by its name.

        Raises:
            KeyError: The task has no such metric.
        """
        return self.metrics[name] if name in self.metrics else self.stored_metrics[name]

    def is_accuracy(self, name: str) -> bool:
        """Whether a metric is the share of answers that are right, or have another property."""
        return name in self.metrics and self.metrics[name].score is percent

    @property
    def pins(self) -> Path:
        """The folder of the pinned test sets: `pinned/` next to the module of the task."""
        return _pins_of(type(self))

    @property
    def versions(self) -> Sequence[int]:
        """The pinned versions, in ascending order."""
        return versions(self.pins, self.name)

    @property
    def version(self) -> int:
        """The current version: the newest pinned one, 0 if nothing is pinned yet."""
        return max(self.versions, default=0)

    def test_set(self, version: int | None = None) -> TestSet:
        """A pinned version; the current one by default.

        Raises:
            InputError: The version is unknown.
        """
        known = self.versions
        if not known:
            raise InputError(
                f"{self.name} has no pinned test set; write one: xlt-bench data pin {self.name} "
                "--add UNIT=SETTING (repeat --add for each unit)"
            )
        wanted = known[-1] if version is None else version
        if wanted not in known:
            raise InputError(
                f"version {wanted} of {self.name} is unknown to this xlt-bench (known: "
                f"{', '.join(map(str, known))}); install the release that made it"
            )
        return read_test_set(self.pins, self.name, wanted)

    def members(
        self, version: int, metric: str, aligned: Iterable[str] = ()
    ) -> dict[Mean, list[str]]:
        """The units of each mean of a metric; units beyond the ranked set are in none.

        Args:
            version: A pinned version.
            metric: A metric of the task; units without a score under it are in no mean.
            aligned: Codes of the languages that the adapter was aligned on.
        """
        chosen, codes = self.test_set(version), set(aligned)
        there = [unit for unit in chosen.units if self.is_scored(metric, unit)]
        return {
            "supervised": [unit for unit in there if chosen.setting(unit) == "supervised"],
            "transfer": [unit for unit in there if chosen.setting(unit) == "transfer"],
            "aligned": [unit for unit in there if self.language_of(unit) in codes],
            "all": there,
        }


class TextTask(Task):
    """A task whose items are prompts and whose answers are texts.

    Attributes:
        max_new_tokens: The length limit of an answer.
        trainable: Whether recipes can train on it.
        item_metric: The metric that compares single answers in the leaderboard.
        format_metric: The metric that flags answers that are not in the form asked for; None if
            every text is.
        parallel: Whether item i is the same in every unit, translated.
    """

    answers = "text"
    max_new_tokens: ClassVar[int]
    trainable: ClassVar[bool] = False
    item_metric: ClassVar[str]
    format_metric: ClassVar[str | None] = None
    parallel: ClassVar[bool] = False

    @abstractmethod
    def load(self, root: Path, unit: str, split: Split = "test") -> list[Item]:
        """The items of one unit and split, in file order."""

    @abstractmethod
    def count(
        self, items: Sequence[Item], hypotheses: Sequence[str], test_set: TestSet
    ) -> dict[str, Counts]:
        """Counts (n, width) of the answers to n items of one unit, by metric."""

    def sentence(self, item: Item) -> str:
        """The text that an item is about: its prompt without instructions and examples."""
        return item.user

    def item_scores(self, counts: Counts) -> Floats:
        """Scores (n,), 0 to 100, of n single answers from their counts under `item_metric`."""
        return self.metric(self.item_metric).score(counts.astype(np.float64))

    def nothing_to_find(self, counts: Mapping[str, Counts]) -> NDArray[np.bool_]:
        """Which of n items, (n,), have a gold answer that any text can get right by saying nothing.

        `counts` are those of answers to them by metric, the item metric among them.
        """
        return np.zeros(len(counts[self.item_metric]), dtype=bool)

    def splits(self, unit: str) -> tuple[Split, ...]:
        """The splits that the publishers have for a unit."""
        return ("train", "validation", "test")

    @property
    def selectable(self) -> bool:
        """Whether every supervised unit has a validation split to choose a merge weight on."""
        if not self.trainable:
            return False
        units = self.members(self.version, self.primary)["supervised"]
        return all("validation" in self.splits(unit) for unit in units)


def text_metrics(**metrics: Metric) -> dict[str, Metric]:
    """The metrics of a text task: its own and, last, `cut_off`."""
    return {**metrics, CUT_OFF: Metric(percent, 2, higher_is_better=False)}


def flags(values: Sequence[bool]) -> Counts:
    """Turn booleans into counts (n, 2), each (value, 1), for `significance.percent`."""
    return np.array([(int(value), 1) for value in values], dtype=np.int64).reshape(-1, 2)


def lm_eval_dataset(items: Sequence[Item]) -> dict[str, Any]:
    """The items as the dataset of an lm-eval task."""
    from datasets import Dataset

    return {"test": Dataset.from_list([dataclasses.asdict(item) for item in items])}


def lm_eval_counts(
    task: TextTask, doc: dict[str, Any], results: Sequence[str]
) -> dict[str, list[float]]:
    """`process_results` of an lm-eval task: the counts of one answer, one row per metric."""
    counts = task.count([Item(**doc)], [results[0]], task.test_set())
    return {name: matrix[0].tolist() for name, matrix in counts.items()}
