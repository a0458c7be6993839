"""MASSIVE 1.1 (FitzGerald et al., 2023): massive/1.1/data/<locale>.jsonl."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xlt_bench.data.root import read_json, read_lines
from xlt_bench.errors import InputError

Split = Literal["train", "validation", "test"]
_PARTITIONS = {"train": "train", "validation": "dev", "test": "test"}


@dataclass(frozen=True)
class Utterance:
    """One command; `annotated` is the text with its slots as `[type : value]`."""

    id: str
    locale: str
    split: Split
    text: str
    annotated: str


def load(root: Path, locale: str, split: Split) -> list[Utterance]:
    """The utterances of a locale and split, in file order. Raises InputError for a bad file."""
    path = root / "massive" / "1.1" / "data" / f"{locale}.jsonl"
    rows = []
    for number, line in enumerate(read_lines(path, "massive"), start=1):
        row = read_json(line, path, number, "massive")
        try:
            if row["partition"] == _PARTITIONS[split]:
                rows.append(Utterance(row["id"], locale, split, row["utt"], row["annot_utt"]))
        except (KeyError, TypeError):
            raise InputError(
                f"{path} line {number} is no MASSIVE 1.1 row; get it with: "
                "xlt-bench data fetch massive"
            ) from None
    return rows
