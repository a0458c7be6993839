import json
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score

from xlt_bench.data import uner
from xlt_bench.languages import LANGUAGES
from xlt_bench.metrics.entities import (
    entity_counts,
    f1,
    find_entities,
    parse_entities,
    render_entities,
)
from xlt_bench.tasks.base import Item
from xlt_bench.tasks.registry import get_task

ADA = ("PER", "Ada", 0, 3)
ADA_JSON = '{"Results": [{"TypeName": "PER", "Text": "Ada", "Start": 0, "End": 3}]}'

anything = st.text(st.characters())  # lone surrogates too: JSON can carry them
entities = st.lists(st.tuples(anything, anything, st.integers(), st.integers()), max_size=5)


def test_render_is_compact_json_on_one_line():
    assert render_entities([ADA]) == ADA_JSON
    assert render_entities([]) == '{"Results": []}'
    assert "北京" in render_entities([("LOC", "北京", 0, 2)])


@given(entities)
def test_parse_inverts_render(found):
    assert parse_entities(render_entities(found)) == (found, True)
    assert "\n" not in render_entities(found)


@pytest.mark.parametrize(
    "answer",
    [
        ADA_JSON,
        f"\n  {ADA_JSON} \t\n",
        f"```json\n{ADA_JSON}\n```",
        f"```\n{ADA_JSON}\n```",
        f"```JSON {ADA_JSON}```",
        ADA_JSON.replace(": ", ":").replace(", ", ",\n"),
        ADA_JSON.replace('"End"', '"Note": "sure", "End"'),
        ADA_JSON.replace('"Start"', '"Start": 9, "Start"'),
    ],
)
def test_tolerated(answer):
    assert parse_entities(answer) == ([ADA], True)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "None",
        "null",
        "[]",
        "{}",
        "3",
        "``````",
        "```",
        "```json",
        '{"results": []}',
        '{"Results": {}}',
        '{"Results": null}',
        '{"Results": ["Ada"]}',
        '{"Results": [[]]}',
        ADA_JSON[:-1],
        f"Here you are: {ADA_JSON}",
        f"{ADA_JSON} {ADA_JSON}",
        f"```json\n{ADA_JSON}",
        ADA_JSON.replace("0", "0.0"),
        ADA_JSON.replace("0", "false"),
        ADA_JSON.replace("0", '"0"'),
        ADA_JSON.replace("0", "null"),
        ADA_JSON.replace("0", "NaN"),
        ADA_JSON.replace("0", "1e2"),
        ADA_JSON.replace("0", "9" * 5000),  # beyond Python's limit on digits
        ADA_JSON.replace('"Ada"', "7"),
        ADA_JSON.replace('"PER"', "null"),
        ADA_JSON.replace('"End"', '"Ende"'),
        ADA_JSON.replace('"End"', '"Note": NaN, "End"'),
        ADA_JSON.replace('"End"', '"Note": -Infinity, "End"'),
        ADA_JSON.replace('"', "'"),
        "[" * 100_000,
        '{"Results": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"a": ' * 100_000,
    ],
)
def test_invalid_counts_as_no_entities(answer):
    assert parse_entities(answer) == ([], False)


def test_one_bad_result_spoils_the_answer():
    good = json.loads(ADA_JSON)["Results"][0]
    assert parse_entities(json.dumps({"Results": [good, {**good, "End": True}]})) == ([], False)


ROME = ("LOC", "Rome", 10, 14)
BOTH = render_entities([ADA, ROME])
ROME_JSON = json.dumps(json.loads(BOTH)["Results"][1])


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (BOTH, [ADA, ROME]),
        (f"Here are the entities:\n\n{BOTH}", [ADA, ROME]),
        (f"{BOTH}\n\nAda is a person.", [ADA, ROME]),
        (f"{BOTH}\n{ADA_JSON}", [ADA, ROME]),  # the first object
        (f"```json\n{BOTH}", [ADA, ROME]),  # the fence is not closed
        (f"The {{entities}} are: ```{BOTH}``` as asked", [ADA, ROME]),
        (f"[{BOTH}]", [ADA, ROME]),
        (f'{{"answer": {BOTH}}}', [ADA, ROME]),
        (BOTH.replace("10", '"10"').replace("14", '" 14 "'), [ADA, ROME]),
        (BOTH.replace("10", "10.0"), [ADA, ROME]),
        (BOTH.replace(', "End": 3', ""), [ROME]),
        (BOTH.replace('"PER"', "null"), [ROME]),
        (BOTH.replace('"Ada"', "7"), [ROME]),
        (BOTH.replace('"Start": 0', '"Start": true'), [ROME]),
        (BOTH.replace('"Start": 0', '"Start": 0.5'), [ROME]),
        (BOTH.replace('"Start": 0', '"Start": NaN'), [ROME]),
        (BOTH.replace('"Start": 0', '"Start": "zero"'), [ROME]),
        (BOTH.replace('"Start": 0', '"Start": "٠"'), [ROME]),
        ('{"Results": ["Ada", [], 3, null, ' + ROME_JSON + "]}", [ROME]),
        (BOTH[:-1], [ADA, ROME]),  # cut off
        (BOTH[:-2], [ADA, ROME]),
        (BOTH[:-3], [ADA]),
        (BOTH.replace("}, {", "} {"), [ADA, ROME]),
        (BOTH.replace("}]", "},]"), [ADA, ROME]),
        (BOTH.replace('"', "'"), []),
        (BOTH.replace("Results", "results"), []),
        (f"[{ROME_JSON}]", []),
        ("None", []),
        ("", []),
        ('{"Results": ' + "[" * 100_000, []),
        ('{"Results": [' + '{"a": ' * 100_000, []),
        ('{"Results": [{"Start": ' + "9" * 5000, []),
    ],
)
def test_the_lenient_reading_takes_what_entities_there_are(answer, found):
    assert find_entities(answer) == found


def test_the_lenient_score_is_apart_from_the_strict_one():
    uner_task = get_task("uner")
    item = Item("1", "en", "", "", BOTH, BOTH)
    for answer, strict, lenient in [
        (BOTH, [2, 2, 2], [2, 2, 2]),
        (f"Sure! {BOTH}", [0, 0, 2], [2, 2, 2]),
        (BOTH.replace(', "End": 3', ""), [0, 0, 2], [1, 1, 2]),
        (f"Sure! {BOTH}".replace("10", "11"), [0, 0, 2], [1, 2, 2]),
    ]:
        counts = uner_task.count([item], [answer], uner_task.test_set())
        assert counts["entity_f1"].tolist() == [strict]
        assert counts["entity_f1_lenient"].tolist() == [lenient]
        assert "entity_f1_lenient" not in uner_task.count([item], [answer], uner_task.test_set(1))


def test_texts_are_compared_in_one_normal_form_and_offsets_are_the_sentences():
    uner_task = get_task("uner")
    gold = render_entities([("PER", "Zoë", 4, 7)])
    item = Item("1", "en", "", "", gold, gold)
    answer = render_entities([("PER", "Zoe\u0308", 4, 8)])
    first, second = (uner_task.count([item], [answer], uner_task.test_set(n)) for n in (1, 2))
    assert first["entity_f1_text"].tolist() == [[0, 1, 1]]
    assert second["entity_f1_text"].tolist() == [[1, 1, 1]]
    assert second["entity_f1"].tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("treebank", [row.uner for row in LANGUAGES.values() if row.uner])
def test_every_sentence_is_in_the_normal_form_that_tokenizers_write(treebank, data_dir):
    # So a model's offsets mean the same in the sentence as it is and as its tokenizer has it.
    for split in ("train", "test"):
        for sentence in uner.load(data_dir, treebank, split):
            assert unicodedata.is_normalized("NFC", sentence.text)


def test_huge_integers_are_integers():
    answer = ADA_JSON.replace("3}", "9" * 4000 + "}")
    assert parse_entities(answer) == ([("PER", "Ada", 0, int("9" * 4000))], True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | anything,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Results", "TypeName", "Text", "x"]), inner, max_size=3)
    ),
)


@given(anything | json_values.map(json.dumps))
@example("```" * 3)
@example("\ufeff{}")
def test_parse_never_raises(answer):
    found, valid = parse_entities(answer)
    assert valid or not found
    lenient = find_entities(answer)
    assert not valid or lenient == found


def test_counts_under_both_keys():
    gold = [ADA, ("LOC", "Rome", 10, 14), ("PER", "Ada", 20, 23)]
    predicted = [("PER", "Ada", 0, 3), ("LOC", "Rome", 11, 15), ("ORG", "Ada", 20, 23)]
    assert entity_counts(gold, predicted, "span") == (1, 3, 3)
    assert entity_counts(gold, predicted, "text") == (2, 3, 3)


def test_a_repeated_prediction_matches_once():
    assert entity_counts([ADA], [ADA, ADA], "span") == (1, 2, 1)
    assert entity_counts([ADA], [ADA, ADA], "text") == (1, 2, 1)
    # Two mentions, predicted twice at the position of the first: by text both are found.
    mentions = [ADA, ("PER", "Ada", 20, 23)]
    assert entity_counts(mentions, [ADA, ADA], "span") == (1, 2, 2)
    assert entity_counts(mentions, [ADA, ADA], "text") == (2, 2, 2)


def test_f1_is_percent_and_zero_where_undefined():
    sums = np.array([[1, 2, 2], [0, 3, 0], [0, 0, 3], [0, 0, 0], [4, 4, 4]])
    assert f1(sums).tolist() == [50.0, 0.0, 0.0, 0.0, 100.0]
    assert float(f1(sums[0])) == 50.0


def labelled(pieces):
    """IOB2 labels of a sentence made of (type or None, length), and its entities."""
    labels, found = [], []
    for kind, length in pieces:
        start = len(labels)
        if kind is None:
            labels += ["O"] * length
        else:
            labels += [f"B-{kind}"] + [f"I-{kind}"] * (length - 1)
            found.append((kind, f"{start}-{length}", start, len(labels)))
    return labels, found


pieces = st.lists(st.tuples(st.sampled_from([None, "PER", "ORG", "LOC"]), st.integers(1, 3)))


@settings(max_examples=200)
@given(st.lists(st.tuples(pieces, pieces), min_size=1, max_size=6))
def test_f1_is_that_of_seqeval(sentences):
    gold_labels, predicted_labels, counts = [], [], []
    for wanted, got in sentences:
        gold, gold_entities = labelled(wanted)
        predicted, predicted_entities = labelled(got)
        width = max(len(gold), len(predicted))
        gold_labels.append(gold + ["O"] * (width - len(gold)))
        predicted_labels.append(predicted + ["O"] * (width - len(predicted)))
        counts.append(entity_counts(gold_entities, predicted_entities, "span"))
    expected = 100 * f1_score(gold_labels, predicted_labels, zero_division=0)
    assert float(f1(np.sum(counts, axis=0))) == pytest.approx(expected)


@pytest.mark.parametrize("treebank", [row.uner for row in LANGUAGES.values() if row.uner])
@pytest.mark.parametrize("key", ["span", "text"])
def test_gold_answers_score_100(data_dir, treebank, key):
    counts = []
    for sentence in uner.load(data_dir, treebank, "test"):
        gold = [(e.type, e.text, e.start, e.end) for e in sentence.entities]
        predicted, valid = parse_entities(render_entities(gold))
        assert valid
        counts.append(entity_counts(gold, predicted, key))
    assert np.sum(counts, axis=0).min() > 100  # Swedish has 196 entities, the fewest
    assert float(f1(np.sum(counts, axis=0))) == 100.0
