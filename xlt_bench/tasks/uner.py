"""UNER named entities as JSON (sections 4.1, 6.5 and D.2 of the paper).

User        Please identify all the named entities mentioned in the input sentence ...
            Example sentence and results: ... (a sentence of the language's own train split)
            Considering the input sentence below, what is the output result?

            <sentence>
Assistant   {"Results": [{"TypeName": "LOC", "Text": "Iguazu", "Start": 22, "End": 28}]}

Versions 1 and 2 rank the paper's 8 languages. Version 2 has the items of version 1, compares texts
in Unicode's normal form C, and adds `entity_f1_lenient`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from xlt_bench.data import uner
from xlt_bench.data.root import data_root
from xlt_bench.errors import InputError
from xlt_bench.languages import LANGUAGES, language
from xlt_bench.metrics import entities
from xlt_bench.metrics.significance import Counts, Floats, percent
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

PROMPT = """\
Please identify all the named entities mentioned in the input sentence provided below. \
Use only the categories: PER - person, ORG - organization, and LOC - location.
Remember, nationalities are neither locations nor organizations, and organizations can represent \
other groups of people.
Pay attention to the provided example. You should only output the results in JSON format, \
following a similar structure to the example result provided.

Example sentence and results:

{example}

{result}

Considering the input sentence below, what is the output result?

{sentence}"""

_QUESTION = PROMPT[PROMPT.index("Considering") : PROMPT.index("{sentence}")]

# The worked example of each language, a sentence of its train split. English is the paper's own;
# the others are short sentences with entities of two types, picked by hand.
EXAMPLES = {
    "da": "train-v2-366",
    "en": "answers-20090605110235AAALlCt_ans-0001",
    "hr": "set.hr-s127",
    "pt": "batch-0000-0010",
    "sk": "batch-0012-0026",
    "sr": "set-s127",
    "sv": "P117-0046",
    "zh": "batch-0004-0026",
}

entity_f1 = Metric(entities.f1, 3)
entity_f1_text = Metric(entities.f1, 3)
entity_f1_lenient = Metric(entities.f1, 3)
invalid_json = Metric(percent, 2, higher_is_better=False)


def _render(sentence: uner.Sentence) -> str:
    return entities.render_entities([(e.type, e.text, e.start, e.end) for e in sentence.entities])


@cache
def _example(root: Path, unit: str, treebank: str) -> uner.Sentence:
    """The prompt's example: the sentence picked by hand, else the shortest with two types."""
    if unit in EXAMPLES:
        found = uner.find(root, treebank, "train", EXAMPLES[unit])
    else:
        sentences = uner.load(root, treebank, "train")
        mixed = [s for s in sentences if len({e.type for e in s.entities}) > 1]
        found = min(mixed, key=lambda sentence: len(sentence.text), default=None)
    if not found:
        wanted = f"sentence {EXAMPLES[unit]!r}" if unit in EXAMPLES else "sentence with two types"
        raise InputError(
            f"the train split of UNER_{treebank} has no {wanted} for the prompt's example; get the "
            "pinned files with: xlt-bench data fetch uner"
        )
    return found


def _counts(
    gold: Sequence[list[entities.Entity]],
    found: Sequence[list[entities.Entity]],
    key: entities.Key,
    *,
    nfc: bool = False,
) -> Counts:
    """The counts of each sentence, from its gold and its predicted entities."""
    if nfc:
        gold, found = ([entities.normalised(one) for one in side] for side in (gold, found))
    pairs = zip(gold, found, strict=True)
    return np.array([entities.entity_counts(one, other, key) for one, other in pairs])


class Uner(TextTask):
    """Named entities on Universal NER v1."""

    name = "uner"
    title = "Named entities (UNER)"
    primary = "entity_f1"
    metrics = text_metrics(
        entity_f1=entity_f1,
        entity_f1_text=entity_f1_text,
        entity_f1_lenient=entity_f1_lenient,
        invalid_json=invalid_json,
    )
    shown = ("entity_f1", "entity_f1_text", "entity_f1_lenient", "invalid_json", "cut_off")
    item_metric = "entity_f1"
    format_metric = "invalid_json"
    # The longest gold answer of the eight test sets has 1,204 characters.
    max_new_tokens = 1024
    trainable = True

    def units(self) -> list[str]:
        """The languages with a treebank in Universal NER that has a train split."""
        return [row.code for row in LANGUAGES.values() if row.uner]

    def source(self, unit: str) -> tuple[str, str]:
        """The treebank in Universal NER."""
        return "uner", str(language(unit).uner)

    def load(self, root: Path, unit: str, split: Split = "test") -> list[Item]:
        """The items of a language, in the order of its file."""
        treebank = language(unit).uner
        if treebank is None:
            raise ValueError(f"UNER has no treebank for {unit!r}")
        example = _example(root, unit, treebank)
        return [
            Item(
                id=sentence.id,
                unit=unit,
                system="",
                user=PROMPT.format(
                    example=example.text, result=_render(example), sentence=sentence.text
                ),
                target=_render(sentence),
                gold=_render(sentence),
            )
            for sentence in uner.load(root, treebank, split)
        ]

    def count(
        self, items: Sequence[Item], hypotheses: Sequence[str], test_set: TestSet
    ) -> dict[str, Counts]:
        """Entity counts by offsets, by text and read leniently, and flags for invalid JSON."""
        gold = [entities.parse_entities(item.gold)[0] for item in items]
        answers = [entities.parse_entities(hypothesis) for hypothesis in hypotheses]
        strict = [found for found, _ in answers]
        counts = {
            "entity_f1": _counts(gold, strict, "span"),
            "entity_f1_text": _counts(gold, strict, "text", nfc=test_set.version > 1),
            "invalid_json": flags([not valid for _, valid in answers]),
        }
        if test_set.version > 1:
            lenient = [entities.find_entities(hypothesis) for hypothesis in hypotheses]
            counts["entity_f1_lenient"] = _counts(gold, lenient, "span")
        return counts

    def sentence(self, item: Item) -> str:
        """The sentence, without the instructions and the example."""
        return item.user.rpartition(_QUESTION)[2]

    def item_scores(self, counts: Counts) -> Floats:
        """100 for an answer whose entities are all right, else 0."""
        # True positives, predicted and gold are equal; all three may be 0.
        right = (counts[:, 0] == counts[:, 1]) & (counts[:, 1] == counts[:, 2])
        return np.where(right, 100.0, 0.0)


TASK = Uner()


def dataset(unit: str, data_dir: str | None = None, **_: Any) -> dict[str, Any]:
    """`custom_dataset` of lm-eval; `data_dir` may come from `--metadata`."""
    return lm_eval_dataset(TASK.load(data_root(data_dir), unit))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, list[float]]:
    """`process_results` of lm-eval."""
    return lm_eval_counts(TASK, doc, results)
