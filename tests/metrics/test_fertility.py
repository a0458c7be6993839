import pytest

from xlt_bench.errors import InputError
from xlt_bench.languages import LANGUAGES
from xlt_bench.metrics.fertility import UNSPACED_SCRIPTS, fertility


def by_bytes(sentences):
    return [len(sentence.encode()) for sentence in sentences]


def by_words(sentences):
    return [len(sentence.split()) for sentence in sentences]


def test_ratios_are_of_totals():
    result = fertility(by_bytes, ["jag är", "du"], "sv")  # 7 + 2 bytes, 6 + 2 characters, 3 words
    assert result.tokens_per_character == pytest.approx(9 / 8)
    assert result.tokens_per_word == pytest.approx(9 / 3)


def test_a_word_tokenizer_has_fertility_one():
    assert fertility(by_words, ["one two  three", "four"], "en").tokens_per_word == 1.0


@pytest.mark.parametrize("code", ["ja", "zh", "th", "km"])
def test_no_words_without_word_spaces(code):
    result = fertility(by_bytes, ["三个字"], code)
    assert result.tokens_per_character == 3.0
    assert result.tokens_per_word is None


def test_scripts_are_names_of_the_table():
    assert {row.script for row in LANGUAGES.values()} >= UNSPACED_SCRIPTS


def test_surrounding_space_is_no_text():
    assert fertility(by_words, ["ab\n"], "en").tokens_per_character == 0.5


def test_errors():
    with pytest.raises(ValueError, match="at least one character"):
        fertility(by_words, ["", " "], "en")
    with pytest.raises(ValueError, match="1 token counts for 2"):
        fertility(lambda sentences: [1], ["a", "b"], "en")
    with pytest.raises(InputError, match="did you mean"):
        fertility(by_words, ["a"], "swe")
