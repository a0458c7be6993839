"""Reads alignment pairs and cuts them into micro-batches without false negatives (section 4.1)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from xlt_bench.data import alma, flores, iwslt, massive, parallel, tatoeba
from xlt_bench.errors import InputError
from xlt_bench.languages import language
from xlt_bench.training.corpus import count_rows, count_wrong
from xlt_bench.training.recipe_data import Alignment

DEV_SHARE = 0.1
MAX_DEV_PAIRS = 100
"""Pairs that are held out of each language pair for the dev loss: a tenth, at most this many."""

# The end of a sentence with another one after it; full-width punctuation needs no space.
_SENTENCE_END = re.compile(r"[.!?؟۔।]['\"»”’)]*\s+\S|[。！？]['\"»”’」』）)]*\s*\S")
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|vs|[ap]\.m|[A-Z])\.\s")


@dataclass(frozen=True)
class Pair:
    """Two parallel sentences."""

    languages: str
    """The language pair (`cy-en`): of the anchor, then of the candidate."""
    anchor: str
    candidate: str
    """The translation, mostly English."""


Rows = list[tuple[str, str]]


def is_one_sentence(text: str) -> bool:
    """Apply the paper's filter (appendix B).

    Args:
        text: A text in any language.

    Returns:
        Whether it is a single sentence: neither empty nor several.
    """
    return bool(text.strip()) and not _SENTENCE_END.search(_ABBREVIATION.sub("", text))


def load_pairs(root: Path, alignment: Alignment) -> dict[str, list[Pair]]:
    """Read the pairs of a recipe.

    Args:
        root: The data folder.
        alignment: The recipe's section.

    Returns:
        Distinct pairs of single sentences, by language pair.

    Raises:
        InputError: If data are missing, or a language pair has no such pair.
    """
    return keep_pairs(read_rows(root, alignment), alignment)


def read_rows(root: Path, alignment: Alignment) -> dict[str, Rows]:
    """Read all rows of a recipe's corpora, as they are.

    Args:
        root: The data folder.
        alignment: The recipe's section.

    Returns:
        Both sides of each row, by language pair.

    Raises:
        InputError: If data are missing.
    """
    return {name: _rows(root, alignment, name) for name in alignment.pairs}


def keep_pairs(rows: Mapping[str, Rows], alignment: Alignment) -> dict[str, list[Pair]]:
    """Keep distinct pairs of single sentences, as many of each language pair as the recipe says.

    Args:
        rows: What `read_rows` returned.
        alignment: The recipe's section.

    Returns:
        Pairs by language pair.

    Raises:
        InputError: If a language pair has no such pair.
    """
    found = {}
    for name, corpus in rows.items():
        distinct = dict.fromkeys(
            (a.strip(), b.strip())
            for a, b in corpus
            if is_one_sentence(a) and is_one_sentence(b) and a.strip() != b.strip()
        )
        if not distinct:
            data = alignment.data if isinstance(alignment.data, str) else "the file"
            raise InputError(f"alignment.pairs: {data} has no sentence pairs for {name}")
        found[name] = [Pair(name, a, b) for a, b in distinct][: alignment.items]
    return found


def count_pairs(rows: Mapping[str, Rows], alignment: Alignment) -> dict[str, int]:
    """Count what is odd in the corpora of a recipe.

    Args:
        rows: What `read_rows` returned.
        alignment: The recipe's section.

    Returns:
        Pairs by language pair and reason for which they are left out (`alignment cy-en, several
        sentences`), and texts of the kept ones in a wrong script or language, by side (`alignment
        cy-en cy, wrong script`). Faults that do not occur are left out.
    """
    found: dict[str, int] = {}
    spoken = {code for name in rows for code in name.split("-")}
    for name, kept in keep_pairs(rows, alignment).items():
        counts = count_rows(rows[name])
        full = [(a.strip(), b.strip()) for a, b in rows[name] if a.strip() and b.strip()]
        one = [row for row in full if all(map(is_one_sentence, row))]
        counts["several sentences"] = len(full) - len(one)
        counts["equal sides"] = sum(a == b for a, b in one)
        found |= {f"alignment {name}, {fault}": n for fault, n in counts.items() if n}
        for code, texts in zip(
            name.split("-"), ([p.anchor for p in kept], [p.candidate for p in kept]), strict=True
        ):
            wrong = count_wrong(texts, code, spoken - {code})
            found |= {f"alignment {name} {code}, {fault}": n for fault, n in wrong.items() if n}
    return found


def _rows(root: Path, alignment: Alignment, name: str) -> list[tuple[str, str]]:
    """Sentence pairs of a language pair; without English they are matched by equal English."""
    first, second = name.split("-")
    data = alignment.data
    if not isinstance(data, str):
        files, turned = alignment.files(name)
        if turned:
            return [(a, b) for b, a in parallel.load(files, second, first)]
        return parallel.load(files, first, second)
    if data == "iwslt2017":
        return iwslt.load_train(root, first, second)
    if data in ("flores", "massive"):
        a, b = _lines(root, data, first), _lines(root, data, second)
        if len(a) != len(b):
            raise InputError(
                f"alignment.pairs: {data} has {len(a)} rows of {first} and {len(b)} of {second}"
            )
        return list(zip(a, b, strict=True))
    if second == "en":
        return _with_english(root, data, first)
    if first == "en":
        return [(english, other) for other, english in _with_english(root, data, second)]
    by_english = defaultdict(list)
    for other, english in _with_english(root, data, second):
        by_english[english].append(other)
    return [
        (anchor, candidate)
        for anchor, english in _with_english(root, data, first)
        for candidate in by_english[english][:1]
    ]


@lru_cache(maxsize=64)  # otherwise all pairs of 20 languages would read each file 19 times
def _with_english(root: Path, data: str, code: str) -> list[tuple[str, str]]:
    if data == "tatoeba":
        return tatoeba.load_challenge(root, code)
    if data == "tatoeba-laser":
        return tatoeba.load_laser(root, code)
    return [(row.source, row.reference) for row in alma.load_train(root, f"{code}-en")]


def _lines(root: Path, data: str, code: str) -> list[str]:
    """Sentences of a language; row N has the same meaning in all languages."""
    row = language(code)
    if data == "flores":
        return flores.load(root, row.flores)
    if row.massive is None:
        raise InputError(f"alignment.pairs: MASSIVE has no {code}")
    return [utterance.text for utterance in massive.load(root, row.massive, "train")]


def shuffled(pairs: dict[str, list[Pair]], seed: int) -> dict[str, list[Pair]]:
    """Give each anchor the candidate of another pair of its language pair.

    Args:
        pairs: Pairs by language pair.
        seed: The recipe's seed, on which the order depends.

    Returns:
        Pairs of the same sentences, by language pair, none a pair of the given ones: the few
        anchors that would get another translation of their own are left out.
    """
    found = {}
    for name, rows in pairs.items():
        order = np.random.default_rng([seed, len(rows), 13]).permutation(len(rows))
        given = {(row.anchor, row.candidate) for row in rows}
        # Along one cycle through all rows, so that no row gets its own.
        new = {i: rows[after].candidate for i, after in zip(order, np.roll(order, 1), strict=True)}
        mixed = [Pair(name, row.anchor, new[i]) for i, row in enumerate(rows)]
        found[name] = [row for row in mixed if (row.anchor, row.candidate) not in given]
    return found


def split_dev(pairs: dict[str, list[Pair]], seed: int) -> tuple[dict[str, list[Pair]], list[Pair]]:
    """Hold out dev pairs.

    No training pair shares a sentence with a held-out pair of its language pair, or is a held-out
    pair of another in the other order (`en-cy` of `cy-en`).

    Args:
        pairs: Pairs by language pair.
        seed: The recipe's seed, on which the choice depends.

    Returns:
        Training pairs by language pair, and all held-out pairs.

    Raises:
        InputError: If a language pair has no training pair left.
    """
    held = {
        name: _held_out(rows, np.random.default_rng([seed, len(rows)]))
        for name, rows in pairs.items()
    }
    kept_out = {frozenset((p.anchor, p.candidate)) for rows in held.values() for p in rows}
    train, dev = {}, []
    for name, rows in pairs.items():
        used = {side for pair in held[name] for side in (pair.anchor, pair.candidate)}
        left = [
            row
            for row in rows
            if not used & {row.anchor, row.candidate}
            and frozenset((row.anchor, row.candidate)) not in kept_out
        ]
        if not left:
            raise InputError(f"alignment.pairs: {name} has too few pairs: all are dev pairs")
        train[name] = left
        dev += held[name]
    return train, dev


def _held_out(rows: Sequence[Pair], rng: np.random.Generator) -> list[Pair]:
    count = min(MAX_DEV_PAIRS, int(DEV_SHARE * len(rows)))
    return [rows[i] for i in sorted(rng.permutation(len(rows))[:count])]


def batches(pairs: dict[str, list[Pair]], size: int, seed: int) -> Iterator[list[Pair]]:
    """Draw micro-batches in which no sentence occurs twice and languages have equal shares.

    A pair that shares a sentence with another one in the micro-batch waits for a later one, so that
    no row has its own translation among its negatives.

    Args:
        pairs: Training pairs by language pair.
        size: Pairs of a micro-batch.
        seed: The recipe's seed, on which the draws depend.

    Yields:
        Micro-batches without end.

    Raises:
        InputError: If the pairs cannot fill a micro-batch.
    """
    rng = np.random.default_rng([seed, 7])
    queues = {name: _shuffled(rows, rng) for name, rows in pairs.items()}
    names, longest = list(queues), max(map(len, pairs.values()))
    waiting: list[Pair] = []
    while True:
        batch: list[Pair] = []
        used: set[str] = set()
        still_waiting: list[Pair] = []
        for pair in waiting:
            (batch if len(batch) < size and _take(pair, used) else still_waiting).append(pair)
        tries = 0
        while len(batch) < size:
            pair = next(queues[names[rng.integers(len(names))]])
            (batch if _take(pair, used) else still_waiting).append(pair)
            tries += 1
            if tries > 10 * (size + longest):
                raise InputError(
                    f"training.micro_batch_size: the alignment data cannot fill a micro-batch of "
                    f"{size} pairs without repeating a sentence; use a smaller one"
                )
        waiting = still_waiting[-size:]
        yield batch


def _take(pair: Pair, used: set[str]) -> bool:
    """Mark both sentences as used, unless one already is; returns whether they were marked."""
    if pair.anchor in used or pair.candidate in used:
        return False
    used.update((pair.anchor, pair.candidate))
    return True


def _shuffled(rows: Sequence[Pair], rng: np.random.Generator) -> Iterator[Pair]:
    while True:
        for i in rng.permutation(len(rows)):
            yield rows[i]


def dev_batches(pairs: Sequence[Pair], size: int, least: int = 2) -> list[list[Pair]]:
    """Cut held-out pairs into micro-batches of one language pair, without repeated sentences.

    Args:
        pairs: Held-out pairs.
        size: Pairs of a micro-batch, at most.
        least: Pairs of a micro-batch, at least; smaller ones are left out.

    Returns:
        The micro-batches.
    """
    found = []
    by_name = defaultdict(list)
    for pair in pairs:
        by_name[pair.languages].append(pair)
    for rows in by_name.values():
        for start in range(0, len(rows), size):
            used: set[str] = set()
            batch = [pair for pair in rows[start : start + size] if _take(pair, used)]
            found += [batch] if len(batch) >= least else []
    return found
