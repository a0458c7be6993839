"""Reads MASSIVE 1.1 (FitzGerald et al., 2023): massive/1.1/data/<locale>.jsonl."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

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


@dataclass(frozen=True)
class Command:
    """A user's command and what it is for, such as `alarm_set`."""

    id: str
    locale: str
    split: Split
    text: str
    intent: str


_Row = TypeVar("_Row", Utterance, Command)


def load(root: Path, locale: str, split: Split) -> list[Utterance]:
    """The utterances of a locale and split, in file order.

    Raises:
        InputError: The locale's file is missing or broken. Lines of other splits are not looked at.
    """
    rows = _rows(root, locale, Utterance, "annot_utt", _others(split))
    return [row for row in rows if row.split == split]


def load_intents(root: Path, locale: str, split: Split) -> list[Command]:
    """The commands of a locale and split with their intents, in file order.

    Raises:
        InputError: The locale's file is missing or broken. Lines of other splits are not looked at.
    """
    rows = _rows(root, locale, Command, "intent", _others(split))
    return [row for row in rows if row.split == split]


def load_all(root: Path, locale: str) -> list[Utterance]:
    """The 16,521 utterances of a locale, all splits, in file order.

    Raises:
        InputError: The locale's file is missing or broken.
    """
    return _rows(root, locale, Utterance, "annot_utt")


def _others(split: Split) -> tuple[str, ...]:
    """What the lines of the other splits contain."""
    # As the publisher writes it; a quote within a text would be escaped.
    return tuple(f'"partition": "{name}"' for name in _SPLITS if _SPLITS[name] != split)


def _rows(
    root: Path, locale: str, kind: type[_Row], label: str, without: tuple[str, ...] = ()
) -> list[_Row]:
    """The rows of a locale with one of their labels, leaving out lines that contain a `without`."""
    path = root / "massive" / "1.1" / "data" / f"{locale}.jsonl"
    rows = []
    for number, line in enumerate(read_lines(path, "massive"), start=1):
        if any(text in line for text in without):
            continue
        row = read_json(line, path, number, "massive")
        try:
            split = _SPLITS[row["partition"]]
            texts = row["id"], row["utt"], row[label]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError(f"id, utt and {label} must be strings")
            rows.append(kind(texts[0], locale, split, *texts[1:]))
        except (KeyError, TypeError):
            raise InputError(
                f"{path} line {number} is not a MASSIVE 1.1 row; delete the file, then: "
                "xlt-bench data fetch massive"
            ) from None
    return rows
