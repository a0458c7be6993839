"""The 16 translation tests: WMT23's general task (txt without test suites), and ALMA's for three.

wmt23/{sources,references}/generaltest2023.<direction>.*; alma_human_written/<x>en/test.*.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xlt_bench.data.root import read_json, read_lines
from xlt_bench.errors import InputError

# Not in WMT23: ALMA's tests (WMT22 for cs-en, WMT21 for the other two).
FROM_ALMA = frozenset({"cs-en", "is-en", "en-is"})
# refB as sacreBLEU has it: refA may be post-edited output of a system in the task.
_REFERENCES = {"he-en": "refB", "en-he": "refB"}


@dataclass(frozen=True)
class Segment:
    """A source and its reference; `id` is the line, from 0."""

    id: str
    source: str
    reference: str


def test_segments(root: Path, direction: str) -> list[Segment]:
    """The test segments of one of the 16 directions (`en-de`), in file order."""
    return load_alma(root, direction) if direction in FROM_ALMA else load(root, direction)


test_segments.__test__ = False  # type: ignore[attr-defined]  # it is no test of pytest's


def load(root: Path, direction: str, reference: str | None = None) -> list[Segment]:
    """WMT23's own segments of a direction; `reference` is `refA` or `refB`."""
    source, target = direction.split("-")
    stem = f"generaltest2023.{direction}"
    version = reference or _REFERENCES.get(direction, "refA")
    folder = root / "wmt23"
    sources = read_lines(folder / "sources" / f"{stem}.src.{source}", "wmt23")
    path = folder / "references" / f"{stem}.ref.{version}.{target}"
    references = read_lines(path, "wmt23")
    if len(sources) != len(references):
        raise InputError(
            f"{path} has {len(references)} lines for {len(sources)} sources; get both with: "
            "xlt-bench data fetch wmt23"
        )
    pairs = enumerate(zip(sources, references, strict=True))
    return [Segment(str(i), source, reference) for i, (source, reference) in pairs]


def load_alma(root: Path, direction: str) -> list[Segment]:
    """A test of ALMA's: one JSON array of {"translation": {source code: ..., target code: ...}}."""
    source, target = direction.split("-")
    other = source if target == "en" else target
    path = root / "alma_human_written" / f"{other}en" / f"test.{direction}.json"
    rows = read_json("\n".join(read_lines(path, "alma")), path, 1, "alma")
    try:
        pairs = [(row["translation"][source], row["translation"][target]) for row in rows]
    except (KeyError, TypeError):
        raise InputError(
            f"{path} is no ALMA test of {direction}; get it with: xlt-bench data fetch alma"
        ) from None
    return [Segment(str(i), source, reference) for i, (source, reference) in enumerate(pairs)]
