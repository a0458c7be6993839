"""Reads the 16 translation tests: 13 of WMT23's general task (no test suites) and three of ALMA's.

wmt23/{sources,references}/generaltest2023.<direction>.*; alma_human_written/<x>en/test.*.json.
"""

from __future__ import annotations

from pathlib import Path

from xlt_bench.data import alma
from xlt_bench.data.segments import Segment as Segment
from xlt_bench.data.segments import read_pairs, segments
from xlt_bench.errors import unknown

# Not in WMT23; read from ALMA's tests (WMT22 for cs-en, WMT21 for the other two).
FROM_ALMA = frozenset({"cs-en", "is-en", "en-is"})
_CODES = ("cs", "de", "he", "is", "ja", "ru", "uk", "zh")
ALL_DIRECTIONS = (*(f"{code}-en" for code in _CODES), *(f"en-{code}" for code in _CODES))
# WMT23's own 13 of the 16.
DIRECTIONS = tuple(name for name in ALL_DIRECTIONS if name not in FROM_ALMA)
# refB, as in sacreBLEU: refA may be the post-edited output of a system in the task.
_REFERENCES = {"he-en": "refB", "en-he": "refB"}


def test_segments(root: Path, direction: str) -> list[Segment]:
    """The test segments of one of the 16 directions, in file order.

    Args:
        root: The data folder.
        direction: Source and target, such as `en-de`.

    Raises:
        InputError: The direction is unknown, or its file is missing or broken.
    """
    return alma.load_test(root, direction) if direction in FROM_ALMA else load(root, direction)


def references(direction: str) -> tuple[str, ...]:
    """The names of WMT23's references for a direction, the default first."""
    return ("refB", "refA") if direction in _REFERENCES else ("refA",)


def load(root: Path, direction: str, reference: str | None = None) -> list[Segment]:
    """The segments of one of WMT23's own directions; those of de-en and en-de are paragraphs.

    Args:
        root: The data folder.
        direction: Source and target, such as `en-de`.
        reference: `refA` or, for Hebrew, `refB`. The default is `refB` for Hebrew, else `refA`.

    Raises:
        InputError: The direction or reference is unknown, or a file is missing or broken.
    """
    if direction not in DIRECTIONS:
        raise unknown("WMT23 direction", direction, DIRECTIONS)
    version = reference or references(direction)[0]
    if version not in references(direction):
        raise unknown(f"reference of {direction}", version, references(direction))
    source, target = direction.split("-")
    stem = f"generaltest2023.{direction}"
    sources = root / "wmt23" / "sources" / f"{stem}.src.{source}"
    path = root / "wmt23" / "references" / f"{stem}.ref.{version}.{target}"
    return segments(read_pairs(sources, path, "wmt23"))
