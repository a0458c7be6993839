"""Layer-wise sentence retrieval on FLORES-200 dev (sections 2, 4.2, D.4 of the paper).

A query is a sentence in one language; its candidates are the 997 of another. An answer is right if
it is the query's translation. Version 1 ranks the paper's 35 languages, all ordered pairs; every
language of FLORES-200 can be evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from xlt_bench.data import flores
from xlt_bench.languages import LANGUAGES, language
from xlt_bench.metrics.significance import percent
from xlt_bench.tasks.base import WHOLE, Metric, Split, Task

ACCURACY = "retrieval_accuracy"
FEW_RANKED = "with fewer than two ranked languages, accuracies are over the pairs of all languages"
"""What is said of the scores for which `Retrieval.counts_all` is true."""


class Retrieval(Task):
    """Retrieval of translations by hidden states; an item is a sentence."""

    name = "retrieval"
    title = "Retrieval (FLORES-200)"
    primary = ACCURACY
    metrics = {ACCURACY: Metric(percent, 2)}  # noqa: RUF012
    shown = (ACCURACY,)
    ranked_by = "all"
    answers = "neighbours"

    def units(self) -> list[str]:
        """The languages of FLORES-200."""
        return [row.code for row in LANGUAGES.values() if row.flores]

    def source(self, unit: str) -> tuple[str, str]:
        """The language in FLORES-200."""
        return "flores", language(unit).flores

    def load(self, root: Path, unit: str, split: Split = "test") -> list[str]:
        """The sentences of FLORES dev, in the same order for every language; the only split."""
        if split != "test":
            raise ValueError(f"retrieval has no {split} split")
        return flores.load(root, language(unit).flores)

    def load_from(self, corpus: flores.Corpus, unit: str) -> list[str]:
        """The sentences of FLORES dev or of the user's corpus."""
        return corpus.sentences(unit)

    def work(self, units: Sequence[str]) -> list[str]:
        """A single part, because every language is paired with every other."""
        return [WHOLE] if units else []

    def partners(self, version: int, units: Iterable[str]) -> list[str]:
        """The languages whose pairs count in the accuracies of a run: the ranked ones.

        A language beyond the ranked set is paired with the ranked ones, and does not change their
        scores. In a run with fewer than two ranked languages, all languages count.
        """
        units = list(units)
        ranked = self.test_set(version).units
        found = [unit for unit in units if unit in ranked]
        return found if len(found) > 1 else units

    def counts_all(self, version: int, units: Iterable[str]) -> bool:
        """Whether pairs without a ranked language count, as fewer than two are ranked."""
        units = list(units)
        return not set(self.partners(version, units)) <= set(self.test_set(version).units)


TASK = Retrieval()
