"""A source and its translation, and reading two files that are parallel line by line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xlt_bench.data.root import read_lines
from xlt_bench.errors import InputError


@dataclass(frozen=True)
class Segment:
    """A source and its reference; `id` is the line, from 0."""

    id: str
    source: str
    reference: str


def segments(pairs: Iterable[tuple[str, str]]) -> list[Segment]:
    """Pairs of (source, reference), numbered from 0."""
    return [Segment(str(i), source, reference) for i, (source, reference) in enumerate(pairs)]


def read_pairs(first: Path, second: Path, dataset: str) -> list[tuple[str, str]]:
    """The lines of two parallel files. Raises InputError where they are not of one length."""
    left, right = read_lines(first, dataset), read_lines(second, dataset)
    if len(left) != len(right):
        raise InputError(
            f"{second} has {len(right)} lines for {len(left)} of {first.name}; delete both, then: "
            f"xlt-bench data fetch {dataset}"
        )
    return list(zip(left, right, strict=True))
