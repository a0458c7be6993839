"""Reads Universal NER v1 (Mayhew et al., 2024): uner/UNER_<treebank>/<prefix>-ud-<split>.iob2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xlt_bench.data.root import read_lines
from xlt_bench.errors import InputError, unknown

Split = Literal["train", "validation", "test"]
SPLITS = {"train": "train", "validation": "dev", "test": "test"}
# The prefix of each treebank's file names.
TREEBANKS = {
    "Chinese-GSD": "zh_gsd",
    "Chinese-GSDSIMP": "zh_gsdsimp",
    "Croatian-SET": "hr_set",
    "Danish-DDT": "da_ddt",
    "English-EWT": "en_ewt",
    "Portuguese-Bosque": "pt_bosque",
    "Serbian-SET": "sr_set",
    "Slovak-SNK": "sk_snk",
    "Swedish-Talbanken": "sv_talbanken",
}
# English train from the repository's first commit, read if the released file is missing.
PRERELEASE = "en_ewt-ud-train.PRERELEASE-20221202.iob2"
# OTH (hr, sr) and stray B-O tags are not entities, as in the official loader.
_TYPES = frozenset({"PER", "ORG", "LOC"})


@dataclass(frozen=True)
class Entity:
    """A named entity: its type, its text and its characters in the sentence, [start, end)."""

    type: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Sentence:
    """A sentence, as in its `# text` comment, with its entities in order."""

    id: str
    text: str
    entities: tuple[Entity, ...]


def load(root: Path, treebank: str, split: Split) -> list[Sentence]:
    """The sentences of a treebank's split, in file order.

    Args:
        root: The data folder.
        treebank: A name such as `Danish-DDT`.
        split: `train`, `validation` or `test`.

    Raises:
        InputError: The treebank is unknown, or its file is missing or broken.
    """
    path = file(root, treebank, split)
    return [_sentence(block, path) for block in _blocks(read_lines(path, "uner"))]


def find(root: Path, treebank: str, split: Split, sentence_id: str) -> Sentence | None:
    """One sentence of a treebank's split, without parsing the others; None if it is not there.

    Args:
        root: The data folder.
        treebank: A name such as `Danish-DDT`.
        split: `train`, `validation` or `test`.
        sentence_id: Its `sent_id`.

    Raises:
        InputError: The treebank is unknown, or its file is missing or broken.
    """
    path = file(root, treebank, split)
    blocks = _blocks(read_lines(path, "uner"))
    # A comment may have more spaces around its equals sign: the parsed sentence decides.
    near = (
        block for block in blocks if any(line[0] == "#" and sentence_id in line for line in block)
    )
    return next((s for s in (_sentence(b, path) for b in near) if s.id == sentence_id), None)


def is_prerelease(root: Path) -> bool:
    """Whether English train is read from the pre-release, because the release is missing."""
    folder = root / "uner" / "UNER_English-EWT"
    return _exists(folder / PRERELEASE) and not _exists(folder / "en_ewt-ud-train.iob2")


def file(root: Path, treebank: str, split: Split) -> Path:
    """The file that a split is read from.

    Raises:
        InputError: The treebank is unknown.
    """
    if treebank not in TREEBANKS:
        raise unknown("treebank", treebank, TREEBANKS)
    folder = root / "uner" / f"UNER_{treebank}"
    # The released English train file is the one to use. The pre-release has 17 entities fewer; for
    # dev and test, where both are available, their entities agree with an F1 of 0.99 and 0.96.
    if treebank == "English-EWT" and split == "train" and is_prerelease(root):
        return folder / PRERELEASE
    return folder / f"{TREEBANKS[treebank]}-ud-{SPLITS[split]}.iob2"


def _exists(path: Path) -> bool:
    return path.exists() or path.with_name(path.name + ".gz").exists()


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    block: list[str] = []
    for line in [*lines, ""]:
        if line:
            block.append(line)
        elif block:
            yield block
            block = []


def _sentence(block: list[str], path: Path) -> Sentence:
    comments = dict(
        line[1:].strip().split(" = ", 1) for line in block if line[0] == "#" and " = " in line
    )
    try:
        sentence_id, text = comments["sent_id"], comments["text"]
        rows = [line.split("\t") for line in block if line[0] != "#"]
        places = _places([row[1] for row in rows], text)
        tags = [row[2] for row in rows]
    except (KeyError, IndexError, ValueError):
        raise InputError(
            f"{path}: the sentence at {block[0]!r} is not in UNER's IOB2 format; delete the "
            "file, then: xlt-bench data fetch uner"
        ) from None
    return Sentence(sentence_id, text, tuple(_entities(tags, places, text)))


def _places(forms: list[str], text: str) -> list[tuple[int, int]]:
    """The (start, end) of each form in the text, searched left to right: there is no SpaceAfter."""
    places, end = [], 0
    for form in forms:
        start = text.index(form, end)
        end = start + len(form)
        places.append((start, end))
    return places


def _entities(tags: list[str], places: list[tuple[int, int]], text: str) -> Iterator[Entity]:
    """The entities of IOB2 tags; an I- that continues no entity starts one, as in seqeval."""
    kind, start, end = "", 0, 0
    for tag, place in [*zip(tags, places, strict=True), ("O", (0, 0))]:
        prefix, _, new = tag.partition("-")
        new = new if new in _TYPES else ""
        if kind and prefix == "I" and new == kind:
            end = place[1]
            continue
        if kind:
            yield Entity(kind, text[start:end], start, end)
        kind, (start, end) = new, place
