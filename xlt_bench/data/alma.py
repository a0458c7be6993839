"""ALMA's human-written parallel data (Xu et al., 2024): tests, validation and training text.

alma_human_written/<x>en/: test.<direction>.json, valid.<x>-en.json, train.<x>-en.{<x>,en}.
Tests: WMT22, Icelandic WMT21. Training: WMT17-20 tests and FLORES-200; Icelandic FLORES alone.
"""

from __future__ import annotations

from pathlib import Path

from xlt_bench.data.root import read_json, read_lines
from xlt_bench.data.segments import Segment, read_pairs, segments
from xlt_bench.errors import InputError, unknown

LANGUAGES = ("cs", "de", "is", "ru", "zh")
VALIDATED = ("cs", "de", "ru", "zh")
# Every training text ends with FLORES-200: dev (997 lines), then devtest (1,012).
FLORES_LINES = 997 + 1012


def load_test(root: Path, direction: str) -> list[Segment]:
    """The test segments of a direction (`cs-en` or `en-cs`), in file order. Raises InputError."""
    return _load_json(root, direction, f"test.{direction}.json")


def load_validation(root: Path, pair: str) -> list[Segment]:
    """The 1,002 validation segments of a pair, in the order of its two codes (`cs-en`, `en-cs`).

    Icelandic has none. Raises InputError.
    """
    other = _other(pair)
    if other not in VALIDATED:
        raise unknown("language of ALMA's validation files", other, VALIDATED)
    return _load_json(root, pair, f"valid.{other}-en.json")


def load_train(root: Path, pair: str, flores: bool = True) -> list[Segment]:
    """The training segments of a pair, in the order of its two codes. Raises InputError.

    All of FLORES-200's dev and devtest is in them: leave it out with `flores=False` where an
    adapter is to be tested on FLORES retrieval (of Icelandic nothing is left then).
    """
    other = _other(pair)
    folder, stem = root / "alma_human_written" / f"{other}en", f"train.{other}-en"
    rows = read_pairs(folder / f"{stem}.{other}", folder / f"{stem}.en", "alma")
    if pair.startswith("en-"):
        rows = [(english, foreign) for foreign, english in rows]
    return segments(rows if flores else rows[:-FLORES_LINES])


def _other(pair: str) -> str:
    """The language other than English of a pair. Raises InputError for a pair ALMA lacks."""
    pairs = {f"{code}-en": code for code in LANGUAGES} | {f"en-{code}": code for code in LANGUAGES}
    if pair not in pairs:
        raise unknown("ALMA pair", pair, pairs)
    return pairs[pair]


def _load_json(root: Path, pair: str, name: str) -> list[Segment]:
    """Of one JSON array of {"translation": {code: text, code: text}}."""
    path = root / "alma_human_written" / f"{_other(pair)}en" / name
    source, target = pair.split("-")
    rows = read_json("\n".join(read_lines(path, "alma")), path, 1, "alma")
    try:
        pairs = [(row["translation"][source], row["translation"][target]) for row in rows]
    except (KeyError, TypeError):
        raise InputError(
            f"{path} is no ALMA file of {pair}; delete it, then: xlt-bench data fetch alma"
        ) from None
    return segments(pairs)
