"""Segments of a translation test, and a reader of two files that are parallel line by line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xlt_bench.data.root import read_sentences
from xlt_bench.errors import InputError


@dataclass(frozen=True)
class Segment:
    """A source and its reference; `id` is the line number, from 0."""

    id: str
    source: str
    reference: str


def segments(pairs: Iterable[tuple[str, str]]) -> list[Segment]:
    """Number pairs of (source, reference) from 0."""
    return [Segment(str(i), source, reference) for i, (source, reference) in enumerate(pairs)]


def read_pairs(first: Path, second: Path, dataset: str) -> list[tuple[str, str]]:
    """The lines of two parallel files, as pairs.

    Raises:
        InputError: A file is missing or broken, or the two differ in length.
    """
    left, right = read_sentences(first, dataset), read_sentences(second, dataset)
    if len(left) != len(right):
        raise InputError(
            f"{second} has {len(right)} lines and {first.name} {len(left)}; delete both, then: "
            f"xlt-bench data fetch {dataset}"
        )
    return list(zip(left, right, strict=True))
