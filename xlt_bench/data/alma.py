"""Reads ALMA's human-written parallel data (Xu et al., 2024): test, validation and training text.

alma_human_written/<x>en/: test.<direction>.json, valid.<x>-en.json, train.<x>-en.{<x>,en}.
Tests are WMT22's (WMT21's for Icelandic). Training text is the WMT17-20 tests and FLORES-200; for
Icelandic it is FLORES-200 alone.
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
    """The test segments of a direction, in file order.

    Args:
        root: The data folder.
        direction: Source and target, such as `cs-en` or `en-cs`.

    Raises:
        InputError: ALMA lacks the direction, or its file is missing or broken.
    """
    return _load_json(root, direction, f"test.{direction}.json")


def load_validation(root: Path, pair: str) -> list[Segment]:
    """The 1,002 validation segments of a pair, in file order.

    Args:
        root: The data folder.
        pair: Source and target, such as `cs-en` or `en-cs`.

    Raises:
        InputError: ALMA lacks the pair or (Icelandic) its validation text, or the file is missing
            or broken.
    """
    other = _other(pair)
    if other not in VALIDATED:
        raise unknown("language of ALMA's validation files", other, VALIDATED)
    return _load_json(root, pair, f"valid.{other}-en.json")


def load_train(root: Path, pair: str, flores: bool = True) -> list[Segment]:
    """The training segments of a pair, in file order.

    Args:
        root: The data folder.
        pair: Source and target, such as `cs-en` or `en-cs`.
        flores: Whether to keep FLORES-200's dev and devtest, which every file contains. Set it to
            False for an adapter that will be tested on FLORES retrieval; for Icelandic, no
            segments are left then.

    Raises:
        InputError: ALMA lacks the pair, or a file is missing or broken.
    """
    other = _other(pair)
    folder, stem = root / "alma_human_written" / f"{other}en", f"train.{other}-en"
    rows = read_pairs(folder / f"{stem}.{other}", folder / f"{stem}.en", "alma")
    if pair.startswith("en-"):
        rows = [(english, foreign) for foreign, english in rows]
    return segments(rows if flores else rows[:-FLORES_LINES])


def _other(pair: str) -> str:
    """The non-English language of a pair. Raises InputError for a pair that ALMA lacks."""
    pairs = {f"{code}-en": code for code in LANGUAGES} | {f"en-{code}": code for code in LANGUAGES}
    if pair not in pairs:
        raise unknown("ALMA pair", pair, pairs)
    return pairs[pair]


def _load_json(root: Path, pair: str, name: str) -> list[Segment]:
    """Read a JSON array of {"translation": {code: text, code: text}}."""
    path = root / "alma_human_written" / f"{_other(pair)}en" / name
    source, target = pair.split("-")
    rows = read_json("\n".join(read_lines(path, "alma")), path, 1, "alma")
    try:
        pairs = [(row["translation"][source], row["translation"][target]) for row in rows]
    except (KeyError, TypeError):
        raise InputError(
            f"{path} is not an ALMA file for {pair}; delete it, then: xlt-bench data fetch alma"
        ) from None
    return segments(pairs)
