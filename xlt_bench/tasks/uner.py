"""UNER named entities as JSON, 8 languages (sections 4.1, 6.5 and D.2 of the paper).

User        Please identify all the named entities mentioned in the input sentence ...
            Example sentence and results: ... (a sentence of the language's own train split)
            Considering the input sentence below, what is the output result?

            <sentence>
Assistant   {"Results": [{"TypeName": "LOC", "Text": "Iguazu", "Start": 22, "End": 28}]}
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from xlt_bench.data import uner
from xlt_bench.data.root import data_root
from xlt_bench.errors import InputError
from xlt_bench.languages import language
from xlt_bench.metrics import entities
from xlt_bench.metrics.significance import Counts, percent
from xlt_bench.tasks.base import Item, Metric, flags, lm_eval_counts, lm_eval_dataset

VERSION = 1
PRIMARY = "entity_f1"
# The longest gold answer of the eight test sets has 1,204 characters.
MAX_NEW_TOKENS = 1024

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

# The worked example of each language, a sentence of its train split; English is the paper's own.
# The others are short sentences with entities of two types, picked once by hand.
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

entity_f1 = Metric(entities.f1)
entity_f1_text = Metric(entities.f1)
invalid_json = Metric(percent, higher_is_better=False)

METRICS: Mapping[str, Metric] = {
    "entity_f1": entity_f1,
    "entity_f1_text": entity_f1_text,
    "invalid_json": invalid_json,
}


def _render(sentence: uner.Sentence) -> str:
    return entities.render_entities([(e.type, e.text, e.start, e.end) for e in sentence.entities])


@cache
def _example(root: Path, unit: str, treebank: str) -> uner.Sentence:
    for sentence in uner.load(root, treebank, "train"):
        if sentence.id == EXAMPLES[unit]:
            return sentence
    raise InputError(
        f"the train split of UNER_{treebank} has no sentence {EXAMPLES[unit]!r}, the prompt's "
        "example; get the pinned files with: xlt-bench data fetch uner"
    )


def load(root: Path, unit: str, split: uner.Split = "test") -> list[Item]:
    """The items of a language, in the order of its file."""
    treebank = language(unit).uner_treebank
    if treebank is None:
        raise ValueError(f"UNER has no {unit!r}")
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


def count(items: Sequence[Item], hypotheses: Sequence[str]) -> dict[str, Counts]:
    """Entity counts by offsets and by text, and which answers are not valid JSON."""
    gold = [entities.parse_entities(item.gold)[0] for item in items]
    answers = [entities.parse_entities(hypothesis) for hypothesis in hypotheses]
    pairs = list(zip(gold, [found for found, _ in answers], strict=True))
    return {
        "entity_f1": np.array([entities.entity_counts(g, p, "span") for g, p in pairs]),
        "entity_f1_text": np.array([entities.entity_counts(g, p, "text") for g, p in pairs]),
        "invalid_json": flags([not valid for _, valid in answers]),
    }


def dataset(unit: str, data_dir: str | None = None, **_: Any) -> dict[str, Any]:
    """`custom_dataset` of lm-eval; `data_dir` may come from `--metadata`."""
    return lm_eval_dataset(load(data_root(data_dir), unit))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, list[float]]:
    """`process_results` of lm-eval."""
    return lm_eval_counts(sys.modules[__name__], doc, results)
