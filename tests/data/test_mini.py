"""The mini suite's MASSIVE and UNER parts: parallel, well formed, original, a ceiling of 100."""

import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

import xlt_bench
from xlt_bench.data import massive, uner
from xlt_bench.data.root import MissingFileError
from xlt_bench.languages import LANGUAGES
from xlt_bench.metrics.slots import slots
from xlt_bench.tasks import massive as massive_task
from xlt_bench.tasks import uner as uner_task
from xlt_bench.tasks.registry import BUILT_IN, get_task

MINI = Path(xlt_bench.__file__).parent / "data" / "mini"
LOCALES = [str(LANGUAGES[code].massive) for code in get_task("massive").test_set().units]
SUPERVISED = [
    code
    for code, setting in get_task("massive").test_set().units.items()
    if setting.setting == "supervised"
]
UNER_TRAINED = [
    code
    for code, setting in get_task("uner").test_set().units.items()
    if setting.setting == "supervised"
]
# The start of a letter's Unicode name, by the script of the language table.
NAMES = {
    "Arabic": ("ARABIC",),
    "Cyrillic": ("CYRILLIC",),
    "Devanagari": ("DEVANAGARI",),
    "Greek": ("GREEK",),
    "Han": ("CJK UNIFIED",),
    "Japanese": ("CJK UNIFIED", "HIRAGANA", "KATAKANA"),
    "Latin": ("LATIN",),
    "Thai": ("THAI",),
}


@pytest.fixture(scope="module")
def utterances():
    return {locale: massive.load_all(MINI, locale) for locale in LOCALES}


def of_split(rows, split):
    return [row for row in rows if row.split == split]


def sentences(code, split="test"):
    return uner.load(MINI, LANGUAGES[code].uner, split)


def letters_in(script, text):
    letters = [unicodedata.name(char) for char in text if char.isalpha()]
    return sum(name.startswith(NAMES[script]) for name in letters) / len(letters)


def test_every_locale_has_the_same_test_ids(utterances):
    english = [row.id for row in of_split(utterances["en-US"], "test")]
    assert len(english) == len(set(english)) >= 20
    for rows in utterances.values():
        assert [row.id for row in of_split(rows, "test")] == english


def test_train_and_validation_are_parallel_in_the_supervised_locales(utterances):
    keys = {
        code: [(row.id, row.split) for row in utterances[LANGUAGES[code].massive]]
        for code in SUPERVISED
    }
    assert all(key == keys["en"] for key in keys.values())
    assert Counter(split for _, split in keys["en"]) >= Counter(train=20, validation=6)
    assert len({row_id for row_id, _ in keys["en"]}) == len(keys["en"])


def test_translations_have_the_slots_of_the_english(utterances):
    english = {
        row.id: Counter(slot for slot, _ in slots(row.annotated)) for row in utterances["en-US"]
    }
    assert set().union(*english.values()) <= massive_task.SLOT_TYPES
    for rows in utterances.values():
        for row in rows:
            assert Counter(slot for slot, _ in slots(row.annotated)) == english[row.id], row


def test_annotations_hold_the_text(utterances):
    for locale, rows in utterances.items():
        for row in rows:
            bare = row.annotated
            for slot, value in slots(row.annotated):
                assert value == value.strip()
                bare = bare.replace(f"[{slot} : {value}]", value, 1)
            # Upstream has spaces around the brackets that these two scripts' text lacks.
            if locale in ("ja-JP", "zh-CN"):
                bare = bare.replace(" ", "")
            assert bare == row.text
            assert row.text == " ".join(row.text.lower().split())
            assert row.text == unicodedata.normalize("NFC", row.text)


def test_a_third_has_no_slot_and_some_have_three(utterances):
    found = [len(slots(row.annotated)) for row in of_split(utterances["en-US"], "test")]
    assert found.count(0) / len(found) == pytest.approx(1 / 3, abs=0.03)
    assert found.count(3) >= 2


def test_no_text_is_taken_from_massive(utterances, data_dir):
    real = {row.text for locale in LOCALES for row in massive.load_all(data_dir, locale)}
    assert not real & {row.text for rows in utterances.values() for row in rows}


def test_no_text_is_taken_from_uner(data_dir):
    for code in get_task("uner").test_set().units:
        bank = LANGUAGES[code].uner
        real = {row.text for split in uner.SPLITS for row in uner.load(data_dir, bank, split)}
        splits = uner.SPLITS if code in UNER_TRAINED else ("train", "test")
        assert not real & {row.text for split in splits for row in sentences(code, split)}


@pytest.mark.parametrize("code", get_task("massive").test_set().units)
def test_gold_slots_score_100(code):
    items = massive_task.TASK.load(MINI, code)
    counts = massive_task.TASK.count(
        items, [item.target for item in items], massive_task.TASK.test_set()
    )
    scores = {name: massive_task.TASK.metric(name)(rows) for name, rows in counts.items()}
    best = dict.fromkeys(("slot_f1", "slot_f1_midalign", "exact_match"), 100.0)
    assert scores == dict.fromkeys(scores, 0.0) | best


@pytest.mark.parametrize("code", get_task("uner").test_set().units)
def test_gold_entities_score_100(code):
    items = uner_task.TASK.load(MINI, code)
    counts = uner_task.TASK.count(items, [item.target for item in items], uner_task.TASK.test_set())
    for name, best in (("entity_f1", 100.0), ("entity_f1_text", 100.0), ("invalid_json", 0.0)):
        assert uner_task.TASK.metrics[name](counts[name]) == best


@pytest.mark.parametrize("code", get_task("uner").test_set().units)
def test_entities_of_a_language(code):
    rows = sentences(code)
    assert sum(bool(row.entities) for row in rows) >= 10
    assert sum(not row.entities for row in rows) >= 2
    # The content is parallel, so each sentence has the entity types of the English one.
    for row, english in zip(rows, sentences("en"), strict=True):
        assert Counter(e.type for e in row.entities) == Counter(e.type for e in english.entities)
    (example,) = [r for r in sentences(code, "train") if r.id == uner_task.EXAMPLES[code]]
    assert len({e.type for e in example.entities}) == 2
    assert example.text not in {row.text for row in rows}


@pytest.mark.parametrize("code", UNER_TRAINED)
def test_uner_can_be_trained_on(code):
    assert len(sentences(code, "train")) >= 7
    assert len(sentences(code, "validation")) >= 3


@pytest.mark.parametrize("code", get_task("massive").test_set().units)
def test_script_of_massive(utterances, code):
    text = " ".join(row.text for row in utterances[LANGUAGES[code].massive])
    # Greek writes "email" in Latin letters; nothing else here is foreign.
    assert letters_in(LANGUAGES[code].script, text) >= (0.98 if code == "el" else 1.0)


@pytest.mark.parametrize("code", get_task("uner").test_set().units)
def test_script_of_uner(code):
    text = " ".join(row.text for row in sentences(code))
    assert letters_in("Latin" if code == "sr" else LANGUAGES[code].script, text) == 1.0


def test_chinese_is_simplified_in_massive_and_traditional_in_uner(utterances):
    # GB 2312 has the simplified characters and Big5 the traditional ones.
    "".join(row.text for row in utterances["zh-CN"]).encode("gb2312")
    text = "".join(row.text for split in uner.SPLITS for row in sentences("zh", split))
    "".join(char for char in text if char.isalpha()).encode("big5")


# The mini suite has one corpus for retrieval.
IN_MINI = [task for task in BUILT_IN if not task.name.startswith("retrieval-")]


@pytest.mark.parametrize("task", IN_MINI, ids=lambda task: task.name)
def test_files_saved_on_windows_have_the_same_items(task, tmp_path):
    """With a byte order mark, and CR LF at the end of each line but the last."""
    root = shutil.copytree(MINI, tmp_path / "mini")
    for path in root.rglob("*.*"):
        if path.is_file():
            text = path.read_bytes().removesuffix(b"\n").replace(b"\n", b"\r\n")
            path.write_bytes(b"\xef\xbb\xbf" + text)
    found = 0
    for unit in task.test_set().units:
        try:
            items = task.load(MINI, unit)
        except MissingFileError:
            continue
        assert task.load(root, unit) == items
        found += 1
    assert found >= 8
