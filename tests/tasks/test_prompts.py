"""Prompts word for word, and gold answers at their ceilings on the real sets."""

import json

import pytest

from xlt_bench.tasks import uner, wmt23
from xlt_bench.tasks.registry import get_task, get_text_task, text_tasks

UNER_EN = """\
Please identify all the named entities mentioned in the input sentence provided below. Use only \
the categories: PER - person, ORG - organization, and LOC - location.
Remember, nationalities are neither locations nor organizations, and organizations can represent \
other groups of people.
Pay attention to the provided example. You should only output the results in JSON format, \
following a similar structure to the example result provided.

Example sentence and results:

Where in the world is Iguazu?

{"Results": [{"TypeName": "LOC", "Text": "Iguazu", "Start": 22, "End": 28}]}

Considering the input sentence below, what is the output result?

"""


def test_translation_prompts_name_the_languages_as_the_authors_did():
    assert wmt23.system_prompt("en", "de") == (
        "Translate the following sentences from English to German."
    )
    assert "from mandarin Chinese to English" in wmt23.system_prompt("zh", "en")


def test_english_entities_prompt_is_the_papers(data_dir):
    first = uner.TASK.load(data_dir, "en")[0]
    assert first.user.startswith(UNER_EN)
    assert first.system == ""


def test_the_sentence_of_an_entities_prompt_is_what_its_entities_stand_in(data_dir):
    for item in uner.TASK.load(data_dir, "pt")[:50]:
        sentence = uner.TASK.sentence(item)
        assert item.user.endswith(f"result?\n\n{sentence}")
        for entity in json.loads(item.target)["Results"]:
            assert sentence[entity["Start"] : entity["End"]] == entity["Text"]


@pytest.mark.parametrize("unit", get_task("uner").test_set().units)
def test_each_language_has_an_example_of_its_own_with_entities(unit, data_dir):
    items = uner.TASK.load(data_dir, unit)
    prefixes = {item.user.rpartition("\n\n")[0] for item in items}
    assert len(prefixes) == 1
    assert '"TypeName"' in prefixes.pop()


@pytest.mark.parametrize("family", text_tasks())
def test_gold_answers_are_perfect_and_no_failure(family, data_dir):
    benchmark = get_text_task(family)
    for unit in get_task(family).test_set().units:
        items = benchmark.load(data_dir, unit)[:300]
        assert len({item.id for item in items}) == len(items)
        counts = benchmark.count(items, [item.target for item in items], benchmark.test_set())
        for metric, matrix in counts.items():
            value = benchmark.metrics[metric](matrix)
            if not benchmark.metrics[metric].higher_is_better:
                assert value <= 4, (unit, metric)  # untranslated names count as wrong language
            elif metric != "slot_f1_midalign":
                assert value >= 99.5, (unit, metric)


def test_massive_prompt_has_three_lines_and_text_comes_bare(data_dir):
    item = get_text_task("massive").load(data_dir, "de")[0]
    assert item.system.count("\n") == 2
    assert '"song name"' in item.system
    assert item.user == "wecke mich in dieser woche um fünf uhr auf"
    assert item.target == "date: dieser woche; time: fünf uhr"
