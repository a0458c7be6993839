"""Layer-wise sentence retrieval (sections 2, 4.2, D.4 of the paper), a task for each corpus.

A query is a sentence in one language; its candidates are all sentences of another. An answer is
right if it is the query's translation. Version 1 ranks the paper's 35 languages, all ordered pairs,
as far as the corpus has them; every language of the corpus can be evaluated.

retrieval          FLORES-200 dev, 997 sentences, as in the paper
retrieval-devtest  FLORES-200 devtest, 1,012 sentences
retrieval-ntrex    NTREX-128, 1,997 sentences; it has no Javanese

FLORES dev is in many training corpora: what an adapter gains there and not in the others, it may
have gained by having seen the sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from xlt_bench.data import flores, ntrex
from xlt_bench.errors import InputError
from xlt_bench.languages import LANGUAGES, language
from xlt_bench.metrics.significance import percent
from xlt_bench.tasks.base import WHOLE, Metric, Split, Task

ACCURACY = "retrieval_accuracy"
FEW_RANKED = "with fewer than two ranked languages, accuracies are over the pairs of all languages"
"""What is said of the scores for which `Retrieval.counts_all` is true."""


class Retrieval(Task):
    """Retrieval of translations by hidden states; an item is a sentence.

    Attributes:
        corpus: The name of its sentences.
        dataset: Their data set in the catalog.
        flores_split: Their split of FLORES-200.
    """

    name = "retrieval"
    title = "Retrieval (FLORES-200)"
    corpus: ClassVar[str] = "FLORES dev"
    dataset: ClassVar[str] = "flores"
    on_flores_dev = True
    flores_split: ClassVar[Literal["dev", "devtest"]] = "dev"
    primary = ACCURACY
    metrics = {ACCURACY: Metric(percent, 2)}  # noqa: RUF012
    shown = (ACCURACY,)
    ranked_by = "all"
    answers = "neighbours"

    def units(self) -> list[str]:
        """The languages of FLORES-200."""
        return [row.code for row in LANGUAGES.values() if row.flores]

    def source(self, unit: str) -> tuple[str, str]:
        """The language in the data set."""
        return self.dataset, language(unit).flores

    def load(self, root: Path, unit: str, split: Split = "test") -> list[str]:
        """The sentences of a language, in the same order for every language; the only split."""
        if split != "test":
            raise ValueError(f"{self.name} has no {split} split")
        return self._sentences(root, unit)

    def _sentences(self, root: Path, unit: str) -> list[str]:
        return flores.load(root, language(unit).flores, self.flores_split)

    def load_from(self, corpus: flores.Corpus, unit: str) -> list[str]:
        """The sentences of a language, or those of the user's corpus."""
        return corpus.sentences(unit) if corpus.folder else self.load(corpus.root, unit)

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

    def check(self, corpus: flores.Corpus, units: Iterable[str]) -> None:
        """Check that the sentences of some languages can be translations of each other.

        Raises:
            InputError: A file is missing or broken, two languages differ in their number of
                sentences, or there are too many.
        """
        named = str(corpus.folder or self.corpus)
        advice = "line N of every file must be a translation of the same sentence"
        if corpus.folder is None:
            advice = (
                f"delete the file that differs in {corpus.root}, then: "
                f"xlt-bench data fetch {self.dataset}"
            )
        counts = {unit: len(self.load_from(corpus, unit)) for unit in units}
        first = next(iter(counts), "")
        for unit, count in counts.items():
            if count != counts[first] or not count:
                both = f"{first} has {counts[first]} sentences, {unit} has {count}"
                raise InputError(f"{named} is not parallel: {both}; {advice}")
            if count > flores.MOST:
                raise InputError(f"{named} has {count:,} sentences; use at most {flores.MOST:,}")


class RetrievalDevtest(Retrieval):
    """Retrieval in FLORES-200 devtest."""

    name = "retrieval-devtest"
    title = "Retrieval (FLORES-200 devtest)"
    corpus = "FLORES devtest"
    on_flores_dev = False
    flores_split = "devtest"


class RetrievalNtrex(Retrieval):
    """Retrieval in NTREX-128."""

    name = "retrieval-ntrex"
    title = "Retrieval (NTREX-128)"
    corpus = "NTREX-128"
    dataset = "ntrex"
    on_flores_dev = False

    def units(self) -> list[str]:
        """The languages of FLORES-200 that NTREX-128 has."""
        return [row.code for row in LANGUAGES.values() if row.ntrex]

    def source(self, unit: str) -> tuple[str, str]:
        """The language in NTREX-128."""
        return self.dataset, str(language(unit).ntrex)

    def _sentences(self, root: Path, unit: str) -> list[str]:
        return ntrex.load(root, str(language(unit).ntrex))


TASK = Retrieval()
DEVTEST = RetrievalDevtest()
NTREX = RetrievalNtrex()
