"""WMT23 translation, directions with English (sections 4.1, 4.2 and D.2 of the paper).

System      Translate the following sentences from English to German.
User        Police arrest 15 after violent protest outside UK refugee hotel.
Assistant   <the translation>

Version 1 ranks the paper's 16 directions. cs-en, is-en and en-is do not exist in WMT23: they are
ALMA's tests (WMT22, WMT21).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlt_bench.data import alma, wmt23
from xlt_bench.data.root import data_root
from xlt_bench.data.segments import Segment
from xlt_bench.errors import unknown
from xlt_bench.languages import language
from xlt_bench.metrics import translation
from xlt_bench.metrics.significance import Counts, percent
from xlt_bench.tasks.base import (
    Item,
    Metric,
    Split,
    TextTask,
    flags,
    lm_eval_counts,
    lm_eval_dataset,
    text_metrics,
)
from xlt_bench.tasks.test_set import TestSet

# The authors' name for Chinese in prompts; every other language goes by its name in the table.
PROMPT_NAMES = {"zh": "mandarin Chinese"}

_LOADERS: Mapping[Split, Callable[[Path, str], list[Segment]]] = {
    "train": alma.load_train,
    "validation": alma.load_validation,
    "test": wmt23.test_segments,
}
COMET = "comet"

# lm-eval's YAML refers to these by name.
bleu = Metric(translation.bleu, 10)
bleu_13a = Metric(translation.bleu, 10)
chrf = Metric(translation.chrf, 24)
empty = Metric(percent, 2, higher_is_better=False)
copied_source = Metric(percent, 2, higher_is_better=False)
wrong_language = Metric(percent, 2, higher_is_better=False)


def other_side(direction: str) -> str:
    """The non-English language of a direction: `de` for both `en-de` and `de-en`."""
    source, target = direction.split("-")
    return target if source == "en" else source


def system_prompt(source: str, target: str) -> str:
    """The system prompt of a direction between two language codes."""
    names = [PROMPT_NAMES.get(code, language(code).name) for code in (source, target)]
    return f"Translate the following sentences from {names[0]} to {names[1]}."


class Wmt23(TextTask):
    """Translation into and from English on WMT23's general task."""

    name = "wmt23"
    title = "Translation (WMT23)"
    primary = "bleu"
    metrics = text_metrics(
        bleu=bleu,
        bleu_13a=bleu_13a,
        chrf=chrf,
        empty=empty,
        copied_source=copied_source,
        wrong_language=wrong_language,
    )
    stored_metrics = {COMET: Metric(percent, 2)}  # noqa: RUF012
    shown = ("bleu", "bleu_13a", "chrf", "empty", "copied_source", "wrong_language")
    item_metric = "chrf"
    max_new_tokens = 512
    trainable = True
    trains_on_flores = True  # ALMA's training text ends with it

    def units(self) -> list[str]:
        """The 16 directions, into English first."""
        return list(wmt23.ALL_DIRECTIONS)

    def languages_of(self, unit: str) -> tuple[str, ...]:
        """The non-English language, then English."""
        return (other_side(unit), "en")

    def source_of(self, unit: str) -> str:
        """The language before the hyphen."""
        return unit.split("-")[0]

    def unit_named(self, name: str) -> str:
        """A direction such as `en-de`."""
        if name not in self.units():
            raise unknown("direction", name, self.units())
        return name

    def splits(self, unit: str) -> tuple[Split, ...]:
        """ALMA has training text for five languages, and validation text for all but Icelandic."""
        code = other_side(unit)
        train: tuple[Split, ...] = ("train",) if code in alma.LANGUAGES else ()
        validation: tuple[Split, ...] = ("validation",) if code in alma.VALIDATED else ()
        return (*train, *validation, "test")

    def is_scored(self, metric: str, unit: str) -> bool:
        """`bleu_13a` is for ja and zh only, `wrong_language` for identifiable languages."""
        target = unit.split("-")[1]
        if metric in ("bleu", "bleu_13a", "chrf"):
            return metric in translation.metrics_of(target)
        return metric != "wrong_language" or translation.is_identifiable(target)

    def source(self, unit: str) -> tuple[str, str]:
        """The direction in WMT23, or in ALMA for the three that WMT23 lacks."""
        return ("alma" if unit in wmt23.FROM_ALMA else "wmt23"), unit

    def load(self, root: Path, unit: str, split: Split = "test") -> list[Item]:
        """The segments of a direction, in file order; `train` and `validation` are ALMA's.

        Raises:
            InputError: The split lacks the direction: training has the five supervised languages
                (FLORES-200 included, as in the paper), validation all of these but Icelandic.
        """
        system = system_prompt(*unit.split("-"))
        return [
            Item(
                id=segment.id,
                unit=unit,
                system=system,
                user=segment.source,
                target=segment.reference,
                gold=segment.reference,
            )
            for segment in _LOADERS[split](root, unit)
        ]

    def count(
        self, items: Sequence[Item], hypotheses: Sequence[str], test_set: TestSet
    ) -> dict[str, Counts]:
        """N-gram counts of each metric, and flags for empty, copied and wrong-language output.

        All items must be of one direction, since the target language determines the tokenizer.
        """
        ((unit, target),) = {(item.unit, item.unit.split("-")[1]) for item in items}
        references = [item.gold for item in items]
        counts: dict[str, Counts] = {
            metric: translation.segment_counts(metric, target, hypotheses, references)
            for metric in translation.metrics_of(target)
        }
        faults = translation.faults(
            hypotheses,
            [item.user for item in items],
            references,
            target,
            tuple(test_set.identifier_languages),
        )
        for column, name in enumerate(translation.FAULTS):
            if self.is_scored(name, unit):
                counts[name] = flags(faults[:, column].tolist())
        return counts


TASK = Wmt23()


def dataset(unit: str, data_dir: str | None = None, **_: Any) -> dict[str, Any]:
    """`custom_dataset` of lm-eval; `data_dir` may come from `--metadata`."""
    return lm_eval_dataset(TASK.load(data_root(data_dir), unit))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, list[float]]:
    """`process_results` of lm-eval."""
    return lm_eval_counts(TASK, doc, results)
