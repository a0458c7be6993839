"""What is odd in a corpus, on the publishers' texts and on texts that were spoiled here."""

from pathlib import Path

import pytest

from xlt_bench.data import flores
from xlt_bench.languages import LANGUAGES
from xlt_bench.training.corpus import count_rows, count_wrong, is_wrong_script, notes


def test_every_language_of_flores_is_in_its_script(data_dir: Path) -> None:
    """All languages that are there, in up to 50 sentences each; some sentences are mostly names."""
    seen = set()
    for row in LANGUAGES.values():
        path = data_dir / "flores200_dataset" / "dev" / f"{row.flores}.dev"
        if path.exists() or path.with_name(path.name + ".gz").exists():
            sentences = flores.load(data_dir, row.flores)[:50]
            assert sum(is_wrong_script(text, row.code) for text in sentences) <= 1, row.code
            seen.add(row.script)
    assert {"Latin", "Arabic", "Cyrillic", "Han", "Japanese", "Hangul", "Devanagari"} <= seen


@pytest.mark.parametrize(
    ("text", "code", "wrong"),
    [
        ("Добар дан", "sr", False),
        ("Dobar dan", "sr", True),  # the paper left Serbian out for its two scripts
        ("東京タワー", "ja", False),
        ("Tokyo", "ja", True),
        ("3.14 !?", "ru", False),
    ],
)
def test_scripts(text: str, code: str, wrong: bool) -> None:
    assert is_wrong_script(text, code) is wrong


def test_wrong_texts_are_counted(data_dir: Path) -> None:
    """Of 60 German sentences, 10 are replaced by English and 5 by Russian ones."""
    texts = flores.load(data_dir, "deu_Latn")[:60]
    texts[:10] = flores.load(data_dir, "eng_Latn")[:10]
    texts[10:15] = flores.load(data_dir, "rus_Cyrl")[10:15]
    assert count_wrong(texts, "de", ["ru"]) == {
        "looked at": 60, "wrong script": 5, "wrong language": 10
    }  # fmt: skip
    assert count_wrong([], "de", []) == {"looked at": 0, "wrong script": 0, "wrong language": 0}
    assert count_wrong(texts * 50, "de", ["ru"])["looked at"] == 1000


def test_rows_are_counted() -> None:
    rows = [("a", "b"), (" a", "b "), ("a", "c"), ("", "b"), ("a", " "), ("a", "b")]
    assert count_rows(rows) == {"read": 6, "empty": 2, "repeated": 2}


def test_notes_begin_at_a_twentieth() -> None:
    counts = {"x cy, looked at": 100, "x cy, wrong script": 4, "x cy, wrong language": 5}
    assert notes(counts) == ["5 of 100 texts of x cy are in a wrong language"]
