"""The HTML of answers: nothing in it is markup, and each script keeps its direction."""

import html
import re
from pathlib import Path

import pytest


@pytest.fixture
def bidi(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "leaderboard"))
    import bidi

    return bidi


@pytest.mark.parametrize(
    "text",
    [
        "time: خمسة الفجر; date: هذا الأسبوع",
        "None",
        "שלום <b>עולם</b>",
        '{"Results": [{"TypeName": "PER", "Text": "نور <i>", "Start": 0}]}',
        '{"Text": "unfinished',
        "a: b; c",
        "",
    ],
)
def test_a_reader_sees_the_text_itself(bidi, text):
    shown = bidi.as_html(text)
    assert set(re.findall(r"</?(\w+)", shown)) <= {"div", "span", "bdi"}
    assert html.unescape(re.sub("<.*?>", "", shown)) == text


def test_slots_and_values_are_isolated_and_run_from_left_to_right(bidi):
    shown = bidi.as_html("time: خمسة; date: غدا")
    assert re.findall("<bdi>(.*?)</bdi>", shown) == ["time", "خمسة", "date", "غدا"]
    assert shown.startswith('<div class="answer" dir="ltr">')


def test_the_strings_of_json_are_isolated(bidi):
    shown = bidi.as_html('{"Text": "نور", "Start": 0}')
    assert "<bdi>نور</bdi>" in shown
    assert 'dir="ltr"' in shown


@pytest.mark.parametrize("text", ["שלום: עולם", "جملة واحدة", "one sentence", "Zeit: x; y"])
def test_a_sentence_takes_its_direction_from_its_letters(bidi, text):
    assert bidi.as_html(text).startswith('<div class="answer" dir="auto">')
