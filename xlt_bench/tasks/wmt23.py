"""WMT23 translation, 16 directions with English (sections 4.1, 4.2 and D.2 of the paper).

System      Translate the following sentences from English to German.
User        Police arrest 15 after violent protest outside UK refugee hotel.
Assistant   <the translation>

cs-en, is-en and en-is do not exist in WMT23: they are ALMA's tests (WMT22, WMT21).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from xlt_bench.data import alma, wmt23
from xlt_bench.data.root import data_root
from xlt_bench.data.segments import Segment
from xlt_bench.languages import language
from xlt_bench.metrics import translation
from xlt_bench.metrics.significance import Counts, percent
from xlt_bench.tasks.base import Item, Metric, flags, lm_eval_counts, lm_eval_dataset

VERSION = 1
PRIMARY = "bleu"
MAX_NEW_TOKENS = 512

# The authors' name for Chinese in prompts; every other language goes by its name in the table.
PROMPT_NAMES = {"zh": "mandarin Chinese"}

Split = Literal["train", "validation", "test"]
_LOADERS: Mapping[Split, Callable[[Path, str], list[Segment]]] = {
    "train": alma.load_train,
    "validation": alma.load_validation,
    "test": wmt23.test_segments,
}

bleu = Metric(translation.bleu)
bleu_13a = Metric(translation.bleu)
chrf = Metric(translation.chrf)
empty = Metric(percent, higher_is_better=False)
copied_source = Metric(percent, higher_is_better=False)
wrong_language = Metric(percent, higher_is_better=False)

METRICS: Mapping[str, Metric] = {
    "bleu": bleu,
    "bleu_13a": bleu_13a,
    "chrf": chrf,
    "empty": empty,
    "copied_source": copied_source,
    "wrong_language": wrong_language,
}


def system_prompt(source: str, target: str) -> str:
    """The system prompt of a direction between two language codes."""
    names = [PROMPT_NAMES.get(code, language(code).name) for code in (source, target)]
    return f"Translate the following sentences from {names[0]} to {names[1]}."


def load(root: Path, unit: str, split: Split = "test") -> list[Item]:
    """The segments of a direction, in file order; `train` and `validation` are ALMA's.

    Raises InputError for a direction that the split lacks: training has the five supervised
    languages (FLORES-200 included, as in the paper), validation those but Icelandic.
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


def count(items: Sequence[Item], hypotheses: Sequence[str]) -> dict[str, Counts]:
    """n-gram counts of each score of the direction, and empty, copied or wrong-language output.

    All items must be of one direction, since its target language chooses the tokenizer.
    """
    (target,) = {item.unit.split("-")[1] for item in items}
    references = [item.gold for item in items]
    counts: dict[str, Counts] = {
        metric: translation.segment_counts(metric, target, hypotheses, references)
        for metric in translation.metrics_of(target)
    }
    faults = translation.faults(hypotheses, [item.user for item in items], references, target)
    for column, name in enumerate(translation.FAULTS):
        counts[name] = flags(faults[:, column].tolist())
    return counts


def dataset(unit: str, data_dir: str | None = None, **_: Any) -> dict[str, Any]:
    """`custom_dataset` of lm-eval; `data_dir` may come from `--metadata`."""
    return lm_eval_dataset(load(data_root(data_dir), unit))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, list[float]]:
    """`process_results` of lm-eval."""
    return lm_eval_counts(sys.modules[__name__], doc, results)
