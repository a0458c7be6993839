"""Slot scorers against seqeval, the data set's own conversion and hand-worked cases."""

import json
import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score

from cases import slow_but
from xlt_bench.languages import language
from xlt_bench.metrics import slots
from xlt_bench.metrics.entities import f1
from xlt_bench.tasks import massive
from xlt_bench.tasks.base import Item
from xlt_bench.tasks.registry import get_task

# Scores of gold answers by `slot_f1` and `slot_f1_midalign`, in locales where they are lower.
CEILINGS = {"ja": (99.96, 97.23), "zh": (99.89, 99.59)}


def test_annotation_answer_and_labels_by_hand():
    annotated = "wake me up at [time : five am] [date : this week]"
    assert slots.render(slots.slots(annotated)) == "time: five am; date: this week"
    tokens, labels = slots.gold_labels(annotated, by_character=False)
    assert tokens == "wake me up at five am this week".split()
    assert labels == ["O"] * 4 + ["time"] * 2 + ["date"] * 2
    assert slots.bio(labels)[4:] == ["B-time", "I-time", "B-date", "I-date"]


def test_characters_keep_ascii_words_and_official_forgets_to_close():
    annotated = "[app_name : uber] を [time : 五時] に"
    tokens, labels = slots.gold_labels(annotated, by_character=True)
    assert tokens == ["uber", "を", "五", "時", "に"]
    assert labels == ["app_name", "O", "time", "time", "O"]
    _, official = slots.gold_labels(annotated, by_character=True, official=True)
    assert official == ["app_name", "app_name", "time", "time", "O"]


def test_each_value_takes_the_next_place():
    tokens = "play play by play".split()
    labels, lost = slots.place(tokens, [("a", "play"), ("b", "play"), ("c", "play")], False)
    assert labels == ["a", "b", "O", "c"]
    assert not lost
    labels, lost = slots.place("five on monday".split(), [("d", "monday"), ("t", "five")], False)
    assert labels == ["t", "O", "d"]
    _, lost = slots.place(["five"], [("t", "six")], False)
    assert lost == [("t", "six")]


@pytest.mark.parametrize(
    ("answer", "parsed", "well_formed"),
    [
        ("None", [], True),
        ("", [], False),
        ("time: five am", [("time", "five am")], True),
        ("time: five; ", [("time", "five")], False),
        ("I think it is five", [], False),
        ("time: 5:30", [("time", "5:30")], True),
    ],
)
def test_parse(answer, parsed, well_formed):
    assert slots.parse(answer) == (parsed, well_formed)


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
            st.from_regex(r"[^\s;:\[\]]{1,5}( [^\s;:\[\]]{1,5})?", fullmatch=True),
        ),
        min_size=1,
    )
)
def test_render_then_parse_gives_the_slots_back(found):
    assert slots.parse(slots.render(found)) == (found, True)


def upstream_bio(annotated: str, text: str, by_character: bool) -> list[str]:
    """BIO of an annotated utterance, character by character and not by the module's regex."""
    labels, label, depth, heading = [], "O", 0, ""
    word, marks = "", []

    def flush() -> None:
        if not word:
            return
        whole = word.isascii() or not by_character
        labels.extend([marks[0]] if whole else marks)

    for character in annotated + " ":
        if character == "[":
            flush()
            word, marks, depth, heading = "", [], 1, ""
        elif depth == 1:
            heading += character
            if heading.endswith(" : "):
                label, depth = heading[:-3], 2
        elif character == "]" or character.isspace():
            flush()
            word, marks = "", []
            if character == "]":
                label, depth = "O", 0
        else:
            word += character
            marks.append(label)
    out = []
    for i, mark in enumerate(labels):
        same = i > 0 and labels[i - 1] == mark
        out.append("O" if mark == "O" else f"{'I' if same else 'B'}-{mark}")
    return out


def corrupt(answer: str, rng: random.Random) -> str:
    parts = answer.split("; ")
    kind = rng.randrange(4)
    if kind == 0:
        parts.pop(rng.randrange(len(parts)))
    elif kind == 1:
        parts.append("date: nowhere to be found")
    elif kind == 2:
        parts = [part.replace("date", "time") for part in parts]
    else:
        rng.shuffle(parts)
    return "; ".join(parts) or "None"


# By word and by character, with the lower ceilings, and in a script with combining marks.
@pytest.mark.parametrize(
    "code", slow_but(("de", "hi", "ja", "zh"), get_task("massive").test_set().units)
)
def test_f1_equals_seqeval_and_gold_reaches_the_ceiling(code, data_dir):
    by_character = massive.by_character(code)
    items = massive.TASK.load(data_dir, code)
    rng = random.Random(code)
    gold = [upstream_bio(item.gold, item.user, by_character) for item in items]
    answers = {
        "gold": [item.target for item in items],
        "corrupted": [corrupt(item.target, rng) for item in items],
        "empty": [""] * len(items),
    }
    for name, hypotheses in answers.items():
        counts = massive.TASK.count(items, hypotheses, massive.TASK.test_set())
        predicted = []
        for item, hypothesis in zip(items, hypotheses, strict=True):
            tokens, _ = slots.gold_labels(item.gold, by_character)
            placed, _ = slots.place(tokens, slots.parse(hypothesis)[0], by_character)
            predicted.append(slots.bio(placed))
        expected = 100 * f1_score(gold, predicted, zero_division=0)
        found = massive.TASK.metrics["slot_f1"](counts["slot_f1"])
        assert found == pytest.approx(expected, abs=1e-9)
        if name == "gold":
            ours, theirs = (
                float(f1(counts[m].sum(axis=0))) for m in ("slot_f1", "slot_f1_midalign")
            )
            pinned = massive.TASK.test_set().units[code].ceilings
            assert (round(ours, 2), round(theirs, 2)) == tuple(pinned.values())
            if code in CEILINGS:
                assert (round(ours, 2), round(theirs, 2)) == CEILINGS[code]
            else:
                assert ours >= 99.9
                assert theirs >= 99.69
            assert massive.TASK.metrics["exact_match"](counts["exact_match"]) == 100
        if name == "empty":
            assert expected == 0


@pytest.mark.parametrize(("code", "lost"), [("hi", 1.0), ("ur", 0.2), ("th", 0.0)])
def test_a_gold_answer_in_another_normal_form_loses_nothing_since_version_2(code, lost, data_dir):
    items = massive.TASK.load(data_dir, code)
    metric = massive.TASK.metrics["slot_f1"]
    for form in ("NFC", "NFD"):
        answers = [unicodedata.normalize(form, item.target) for item in items]
        first, second = (
            massive.TASK.count(items, answers, massive.TASK.test_set(version)) for version in (1, 2)
        )
        assert metric(second["slot_f1"]) == 100
        assert second["exact_match"][:, 0].all()
        assert not second["not_in_utterance"][:, 0].any()
        if form == "NFC":  # what a tokenizer such as Qwen's writes
            assert metric(first["slot_f1"]) == pytest.approx(100 - lost, abs=0.05)


def test_normal_form_by_hand():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for gold, answer in ((composed, decomposed), (decomposed, composed)):
        item = Item("1", "fr", "", gold, "", f"[place_name : {gold}]")
        first, second = (
            massive.TASK.count([item], [f"place_name: {answer}"], massive.TASK.test_set(version))
            for version in (1, 2)
        )
        assert first["slot_f1"].tolist() == [[0, 0, 1]]
        assert second["slot_f1"].tolist() == [[1, 1, 1]]
        # The authors' script compares characters as they are.
        assert second["slot_f1_midalign"].tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(("code", "known"), [("ja", 117), ("zh", 4), ("de", 0)])
def test_the_official_error_touches_as_many_items_as_known(data_dir, code, known):
    by_character = massive.by_character(code)
    differing = sum(
        slots.gold_labels(item.gold, by_character)
        != slots.gold_labels(item.gold, by_character, official=True)
        for item in massive.TASK.load(data_dir, code)
    )
    assert differing == known


@pytest.mark.parametrize(
    "codes",
    [["en", "ja"], pytest.param([*get_task("massive").test_set().units], marks=pytest.mark.slow)],
    ids=len,
)
def test_slot_types_are_those_of_the_data(data_dir, codes):
    found = set()
    for code in codes:
        for split in ("train", "validation", "test"):
            for item in massive.TASK.load(data_dir, code, split):
                found |= {slot for slot, _ in slots.slots(item.gold)}
    assert found == massive.SLOT_TYPES
    assert len(found) == 55


def test_upstream_rows_equal_the_rebuilt(data_dir):
    import gzip

    for locale, code in (("de-DE", "de"), ("sw-KE", "sw")):
        path = data_dir / "massive" / "upstream_rows" / f"{locale}_test.jsonl.gz"
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        items = massive.TASK.load(data_dir, code)
        assert [(str(r["id"]), r["utt"], r["annot_utt"]) for r in rows] == [
            (item.id, item.user, item.gold) for item in items
        ]
        assert language(code).massive == locale
