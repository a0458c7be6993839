"""Reads MASSIVE 1.1 (FitzGerald et al., 2023): massive/1.1/data/<locale>.jsonl."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xlt_bench.data.root import read_json, read_lines
from xlt_bench.errors import InputError
from xlt_bench.languages import LANGUAGES

LOCALES = tuple(row.massive for row in LANGUAGES.values() if row.massive)
SPLIT_BY_CHARACTER = frozenset({"ja-JP", "zh-CN", "zh-TW"})
"""Locales scored by character, with ASCII words whole (`char_split_locales` in MASSIVE's code)."""
Split = Literal["train", "validation", "test"]
# MASSIVE calls a split a partition, and its "dev" is our validation.
_SPLITS: dict[str, Split] = {"train": "train", "dev": "validation", "test": "test"}


@dataclass(frozen=True)
class Utterance:
    """A user's command; `annotated` is the text with its slots as `[type : value]`."""

    id: str
    locale: str
    split: Split
    text: str
    annotated: str


def load(root: Path, locale: str, split: Split) -> list[Utterance]:
    """The utterances of a locale and split, in file order.

    Raises:
        InputError: The locale's file is missing or broken. Lines of other splits are not looked at.
    """
    # As the publisher writes it; a quote within a text would be escaped.
    others = tuple(f'"partition": "{name}"' for name in _SPLITS if _SPLITS[name] != split)
    return [row for row in _rows(root, locale, others) if row.split == split]


def load_all(root: Path, locale: str) -> list[Utterance]:
    """The 16,521 utterances of a locale, all splits, in file order.

    Raises:
        InputError: The locale's file is missing or broken.
    """
    return _rows(root, locale)


def _rows(root: Path, locale: str, without: tuple[str, ...] = ()) -> list[Utterance]:
    """The utterances of a locale, but for lines that contain one of some texts."""
    path = root / "massive" / "1.1" / "data" / f"{locale}.jsonl"
    rows = []
    for number, line in enumerate(read_lines(path, "massive"), start=1):
        if any(text in line for text in without):
            continue
        row = read_json(line, path, number, "massive")
        try:
            split = _SPLITS[row["partition"]]
            texts = row["id"], row["utt"], row["annot_utt"]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("id, utt and annot_utt must be strings")
            rows.append(Utterance(texts[0], locale, split, *texts[1:]))
        except (KeyError, TypeError):
            raise InputError(
                f"{path} line {number} is not a MASSIVE 1.1 row; delete the file, then: "
                "xlt-bench data fetch massive"
            ) from None
    return rows
