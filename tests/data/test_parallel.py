"""A user's parallel text in each of its forms, and what is wrong with one in a line."""

import gzip
from pathlib import Path

import pytest

from xlt_bench.data.parallel import load
from xlt_bench.errors import InputError

PAIRS = [("Bore da.", "Good morning."), ("Diolch, \u201cffrind\u201d.", "Thanks."), ("", "Empty.")]


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_every_form_gives_the_same_pairs(tmp_path: Path, packed: str) -> None:
    tsv = write(tmp_path, "a.tsv" + packed, "".join(f"{a}\t{b}\n" for a, b in PAIRS))
    lines = [f'{{"cy": "{a}", "en": "{b}", "id": {i}}}\n' for i, (a, b) in enumerate(PAIRS)]
    jsonl = write(tmp_path, "a.jsonl" + packed, "\n".join(lines))
    moses = [
        write(tmp_path, f"a.{code}{packed}", "".join(pair[side] + "\n" for pair in PAIRS))
        for side, code in enumerate(("cy", "en"))
    ]
    assert load(tsv, "cy", "en") == load(jsonl, "cy", "en") == load(moses, "cy", "en") == PAIRS
    assert load(jsonl, "en", "cy") == [(b, a) for a, b in PAIRS]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.tsv", "x\ty\nx\n", "a.tsv line 2 has 1 columns instead of two"),
        ("a.tsv", "x\ty\tz\n", "line 1 has 3 columns"),
        ("a.jsonl", '{"cy": "x"}\n', "line 1 must be an object such as"),
        ("a.jsonl", '{"cy": 1, "en": "y"}\n', "line 1 must be an object such as"),
        ("a.jsonl", "[1]\n", "line 1 must be an object such as"),
        ("a.jsonl", "{\n", "line 1 is not JSON"),
        ("a.txt", "x\n", "must be a .tsv or .jsonl file"),
        (None, "", "is missing"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, name: str | None, text: str, said: str) -> None:
    file = write(tmp_path, name, text) if name else str(tmp_path / "none.tsv")
    with pytest.raises(InputError) as error:
        load(file, "cy", "en")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_two_files_must_match(tmp_path: Path) -> None:
    one, other = write(tmp_path, "a.cy", "x\ny\n"), write(tmp_path, "a.en", "x\n")
    with pytest.raises(InputError, match=r"has 2 lines and .* 1: line N of both"):
        load([one, other], "cy", "en")
    with pytest.raises(InputError, match="one for each language, not 1"):
        load([one], "cy", "en")
