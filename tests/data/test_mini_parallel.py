"""The mini suite's FLORES, WMT23 and ALMA parts: parallel, in their language, original."""

import unicodedata
from pathlib import Path

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

import xlt_bench
from xlt_bench.data import flores, wmt23
from xlt_bench.data.wmt23 import ALL_DIRECTIONS
from xlt_bench.languages import LANGUAGES
from xlt_bench.tasks import wmt23 as wmt23_task
from xlt_bench.tasks.registry import get_task

MINI = Path(xlt_bench.__file__).parent / "data" / "mini"
CODES = list(get_task("retrieval").test_set().units)
SENTENCES = 20
# The starts of a letter's Unicode name, where that is not the script of the language table.
LETTERS = {"Han": ("CJK UNIFIED",), "Japanese": ("CJK UNIFIED", "HIRAGANA", "KATAKANA")}
FULL_STOPS = (".", "।", "。", "۔", "።", "។", "։")


def sentences(code):
    return flores.load(MINI, LANGUAGES[code].flores)


@pytest.fixture(scope="module")
def identifier():
    known = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    known.set_languages(CODES)
    return known


def test_there_is_a_file_for_each_retrieval_language_and_no_other():
    files = {path.name for path in (MINI / "flores200_dataset" / "dev").iterdir()}
    assert files == {f"{LANGUAGES[code].flores}.dev" for code in CODES}
    assert len(files) == 35


@pytest.mark.parametrize("code", CODES)
def test_sentences_are_well_formed(code):
    lines = sentences(code)
    assert len(lines) == len(set(lines)) == SENTENCES
    for line in lines:
        assert line == " ".join(line.split())
        assert line == unicodedata.normalize("NFC", line)
        # Thai writes no full stop.
        assert line.endswith(FULL_STOPS) != (code == "th")


@pytest.mark.parametrize("code", CODES)
def test_every_letter_is_of_the_script_of_the_table(code):
    script = LANGUAGES[code].script
    starts = LETTERS.get(script, (script.upper(),))
    names = {unicodedata.name(char) for line in sentences(code) for char in line if char.isalpha()}
    assert {name for name in names if not name.startswith(starts)} == set()
    assert all(any(name.startswith(start) for name in names) for start in starts)


def test_chinese_is_simplified_and_japanese_is_not_chinese():
    "".join(sentences("zh")).encode("gb2312")  # has no Traditional-only characters
    for line in sentences("ja"):
        assert any("HIRAGANA" in unicodedata.name(char) for char in line)


@pytest.mark.parametrize("code", CODES)
def test_sentences_are_in_their_language(code, identifier):
    """All 20 of each language as measured; the margin is for a later correction of a text."""
    right = sum(identifier.classify(line)[0] == code for line in sentences(code))
    assert right >= 0.9 * SENTENCES


def test_no_sentence_is_one_of_flores(data_dir):
    for code in CODES:
        flores_code = LANGUAGES[code].flores
        real = flores.load(data_dir, flores_code) + flores.load(data_dir, flores_code, "devtest")
        assert set(sentences(code)).isdisjoint(line.strip() for line in real)


@pytest.mark.parametrize("direction", ALL_DIRECTIONS)
def test_translation_tests_hold_the_same_sentences(direction):
    source, target = direction.split("-")
    segments = wmt23.test_segments(MINI, direction)
    assert [segment.source for segment in segments] == sentences(source)
    assert [segment.reference for segment in segments] == sentences(target)


def test_hebrew_has_both_references():
    for direction in ("he-en", "en-he"):
        first, second = (wmt23.load(MINI, direction, name) for name in ("refA", "refB"))
        assert first == second


@pytest.mark.parametrize("direction", ALL_DIRECTIONS)
def test_references_score_100_without_faults(direction):
    items = wmt23_task.TASK.load(MINI, direction)
    counts = wmt23_task.TASK.count(
        items, [item.target for item in items], wmt23_task.TASK.test_set()
    )
    scores = {name: wmt23_task.TASK.metrics[name](rows) for name, rows in counts.items()}
    # 13a leaves these two without spaces, so that short sentences have no 4-gram of words.
    assert scores.pop("bleu_13a", 0) == 0
    expected = {"bleu": 100, "chrf": 100, "empty": 0, "copied_source": 0, "wrong_language": 0}
    assert scores == pytest.approx(expected)


@pytest.mark.parametrize("direction", ALL_DIRECTIONS)
def test_another_sentence_scores_far_below(direction):
    items = wmt23_task.TASK.load(MINI, direction)
    shifted = [items[i - 1].target for i in range(len(items))]
    counts = wmt23_task.TASK.count(items, shifted, wmt23_task.TASK.test_set())
    assert wmt23_task.bleu(counts["bleu"]) < 15
    assert wmt23_task.chrf(counts["chrf"]) < 30
