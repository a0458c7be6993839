"""Computes content digests of the data sets, and reads the pinned ones from digests.json.

A digest is computed over parsed rows, so plain and .gz files have the same one, as have MASSIVE's
original and rebuilt files. A unit is a locale (massive), a FLORES code (flores), a treebank (uner),
a direction (wmt23, alma), a language code (tatoeba) or NTREX's code (ntrex).

Only `data.pin` writes digests.json, from a data folder whose files are known to be right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from xlt_bench.data import alma, flores, massive, ntrex, tatoeba, uner, wmt23
from xlt_bench.data.root import content_digest
from xlt_bench.errors import unknown
from xlt_bench.languages import LANGUAGES

PATH = Path(__file__).with_name("digests.json")


@dataclass(frozen=True)
class Content:
    """The number of rows of a split, and their digest (first 16 hex digits of a sha256)."""

    rows: int
    digest: str


def units(dataset: str) -> dict[str, tuple[str, ...]]:
    """Every unit of a data set with its splits, pinned or not.

    Raises:
        InputError: The data set is unknown.
    """
    if dataset not in _UNITS:
        raise unknown("data set", dataset, _UNITS)
    return _UNITS[dataset]


def rows(dataset: str, unit: str, split: str, root: Path) -> list[Any]:
    """The typed rows of a split.

    Raises:
        InputError: The data set, unit or split is unknown, or a file is missing or broken.
    """
    if unit not in units(dataset):
        raise unknown(f"unit of {dataset}", unit, units(dataset))
    if split not in units(dataset)[unit]:
        raise unknown(f"split of {dataset} {unit}", split, units(dataset)[unit])
    return list(_READERS[dataset](root, unit, split))


def digest(dataset: str, unit: str, split: str, root: Path) -> str:
    """The content digest of a split, as a run states it.

    Raises:
        InputError: As for `rows`.
    """
    return content_digest(rows(dataset, unit, split, root))


def contents(dataset: str, unit: str, root: Path) -> Iterator[tuple[str, Content]]:
    """Yield each split of a unit with its content.

    Raises:
        InputError: A file is missing or broken.
    """
    if dataset == "massive":  # one file holds all splits: parse it once
        everything = massive.load_all(root, unit)
        for split in units(dataset)[unit]:
            found = [row for row in everything if row.split == split]
            yield split, Content(len(found), content_digest(found))
        return
    for split in units(dataset)[unit]:
        found = rows(dataset, unit, split, root)
        yield split, Content(len(found), content_digest(found))


def pinned(dataset: str) -> Mapping[str, Mapping[str, Content]]:
    """The pinned content of a data set, by unit and split.

    Raises:
        InputError: The data set is unknown.
    """
    units(dataset)
    table = _stored()["content"].get(dataset, {})  # a new data set has none
    return {u: {s: Content(*value) for s, value in splits.items()} for u, splits in table.items()}


def file_sums() -> Mapping[str, str]:
    """sha256 of the publishers' uncompressed files, by path relative to the data folder."""
    sums: dict[str, str] = _stored()["files"]
    return sums


@cache
def _stored() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return stored


def _read_alma(root: Path, unit: str, split: str) -> list[Any]:
    read = {"test": alma.load_test, "validation": alma.load_validation, "train": alma.load_train}
    return read[split](root, unit)


def _read_tatoeba(root: Path, unit: str, split: str) -> list[Any]:
    return tatoeba.load_laser(root, unit) if split == "laser_v1" else _whole_challenge(root, unit)


def _whole_challenge(root: Path, unit: str) -> list[Any]:
    """All pairs of a folder with their labels, including those that the default labels drop."""
    _, _, labelled = tatoeba.challenge_files(unit)
    if not labelled:
        return tatoeba.load_challenge(root, unit)
    labels = tatoeba.challenge_labels(root, unit)
    pairs = tatoeba.load_challenge(root, unit, set(labels))
    return [(*pair, label) for pair, label in zip(pairs, labels, strict=True)]


_READERS: dict[str, Any] = {
    "massive": massive.load,
    "flores": flores.load,
    "uner": uner.load,
    "wmt23": wmt23.load,
    "alma": _read_alma,
    "tatoeba": _read_tatoeba,
    "ntrex": lambda root, unit, _split: ntrex.load(root, unit),
}
_TRAIN_ON = ("train", "validation", "test")
_UNITS: dict[str, dict[str, tuple[str, ...]]] = {
    "massive": dict.fromkeys(massive.LOCALES, _TRAIN_ON),
    "flores": {row.flores: ("dev", "devtest") for row in LANGUAGES.values()},
    "uner": dict.fromkeys(uner.TREEBANKS, _TRAIN_ON),
    # WMT23 has one split per reference.
    "wmt23": {direction: wmt23.references(direction) for direction in wmt23.DIRECTIONS},
    "alma": {
        f"{x}-en": _TRAIN_ON if x in alma.VALIDATED else ("train", "test") for x in alma.LANGUAGES
    }
    | {f"en-{x}": ("test",) for x in alma.LANGUAGES},
    "tatoeba": {
        code: tuple(
            split
            for split, codes in (
                ("laser_v1", tatoeba.LASER_LANGUAGES),
                ("challenge", tatoeba.CHALLENGE_LANGUAGES),
            )
            if code in codes
        )
        for code in sorted({*tatoeba.LASER_LANGUAGES, *tatoeba.CHALLENGE_LANGUAGES})
    },
    "ntrex": {row.ntrex: ("test",) for row in LANGUAGES.values() if row.ntrex},
}
