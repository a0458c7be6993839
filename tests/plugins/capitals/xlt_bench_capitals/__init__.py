"""A task for xlt-bench: name the capital of a country.

The package needs a `TextTask` object, an entry point that names it (pyproject.toml) and a pinned
test set, which `xlt-bench data pin capitals --add de=supervised --add sw=transfer` writes.
"""

from collections.abc import Sequence
from pathlib import Path

from xlt_bench.metrics.significance import Counts, percent
from xlt_bench.tasks.base import Item, Metric, Split, TextTask, flags, text_metrics
from xlt_bench.tasks.test_set import TestSet

QUESTIONS = {"de": "Was ist die Hauptstadt von {}?", "sw": "Mji mkuu wa {} ni upi?"}
CAPITALS = {
    "de": {"Kenia": "Nairobi", "Japan": "Tokio", "Frankreich": "Paris", "Ghana": "Accra"},
    "sw": {"Kenya": "Nairobi", "Japani": "Tokyo", "Ufaransa": "Paris", "Ghana": "Accra"},
}


class Capitals(TextTask):
    """Name the capital of a country, in the language of the question."""

    name = "capitals"
    title = "Capitals (example)"
    primary = "exact_match"
    metrics = text_metrics(exact_match=Metric(percent, 2))
    shown = ("exact_match", "cut_off")
    item_metric = "exact_match"
    max_new_tokens = 8

    def units(self) -> list[str]:
        """The languages of the questions."""
        return list(QUESTIONS)

    def load(self, root: Path, unit: str, split: Split = "test") -> list[Item]:
        """The questions of a language, which need no data folder."""
        return [
            Item(str(i), unit, "", QUESTIONS[unit].format(country), capital, capital)
            for i, (country, capital) in enumerate(CAPITALS[unit].items())
        ]

    def count(
        self, items: Sequence[Item], hypotheses: Sequence[str], test_set: TestSet
    ) -> dict[str, Counts]:
        """Which answers are the capital, white space aside."""
        right = [h.strip() == item.gold for item, h in zip(items, hypotheses, strict=True)]
        return {"exact_match": flags(right)}


TASK = Capitals()
