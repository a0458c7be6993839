"""Counts the test items that a training text contains in part, by n-grams.

A test item is contained if 8 words in a row (20 characters in languages written without spaces) of
it are in one training text; a shorter item, of at least 4 words (10 characters), if all of it is.
Case, punctuation and white space do not matter. GPT-3's authors (arXiv 2005.14165, appendix C) used
13 words, more than most of these test items have.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from xlt_bench.data.root import content_digest
from xlt_bench.errors import InputError
from xlt_bench.languages import LANGUAGES, language
from xlt_bench.tasks.base import Task, TextTask
from xlt_bench.tasks.registry import RETRIEVAL, tasks

_WORDS, _FEWEST_WORDS = 8, 4
_CHARACTERS, _FEWEST_CHARACTERS = 20, 10
_WITHOUT_SPACES = frozenset({"Han", "Japanese", "Thai", "Khmer", "Lao", "Myanmar", "Tibetan"})
MANY_FLORES = 10
"""Sentences of a language of FLORES dev from which a text counts as trained on it: one in 100."""


class _LettersAndDigits(dict[int, int]):
    """Maps letters, digits and marks to themselves and the rest to a space, for `str.translate`."""

    def __missing__(self, point: int) -> int:
        character = chr(point)
        kept = character.isalnum() or unicodedata.category(character)[0] == "M"
        self[point] = point if kept else ord(" ")
        return self[point]


_KEPT = _LettersAndDigits()


def _tokens(text: str, code: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = folded.translate(_KEPT).split()
    return list("".join(words)) if _by_character(code) else words


def _by_character(code: str) -> bool:
    return language(code).script in _WITHOUT_SPACES


def _sizes(code: str) -> tuple[int, int]:
    """The tokens of an n-gram, and the fewest of a shorter item."""
    if _by_character(code):
        return _CHARACTERS, _FEWEST_CHARACTERS
    return _WORDS, _FEWEST_WORDS


def overlaps(root: Path, texts: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Count the items of each test set that training texts contain in part.

    Args:
        root: The data folder; test sets that are not there are left out.
        texts: Training texts, each with its language (a code of the language table).

    Returns:
        The number of items by test set (`massive/de`, `retrieval/sw`) that is there and in a
        language of the texts; 0 if there are none. Data that several tasks test on count once.
    """
    by_language: dict[str, set[str]] = defaultdict(set)
    for code, text in texts:
        by_language[code].add(text)
    found: dict[str, int] = {}
    for code in (code for code in LANGUAGES if code in by_language):
        tests = dict(_test_sets(root, code))
        hits = _contained(tests, by_language[code], code)
        for name in tests:
            found[name] = max(found.get(name, 0), len(hits[name]))
    return found


def _contained(
    tests: dict[str, list[tuple[str, ...]]], texts: Iterable[str], code: str
) -> dict[str, set[int]]:
    """The numbers of the items that are contained, by test set."""
    size, fewest = _sizes(code)
    index: dict[str, set[tuple[str, int]]] = defaultdict(set)
    lengths = set()
    for name, items in tests.items():
        for number, tokens in (
            (number, _tokens(side, code)) for number, item in enumerate(items) for side in item
        ):
            length = min(size, len(tokens))
            if length >= fewest:
                lengths.add(length)
                for gram in _grams(tokens, length):
                    index[gram].add((name, number))
    hits: dict[str, set[int]] = defaultdict(set)
    for text in texts if index else ():
        tokens = _tokens(text, code)
        for length in lengths:
            for gram in _grams(tokens, length):
                for name, number in index.get(gram, ()):
                    hits[name].add(number)
    return hits


def _grams(tokens: list[str], size: int) -> Iterator[str]:
    return (" ".join(tokens[i : i + size]) for i in range(len(tokens) - size + 1))


def _test_sets(root: Path, code: str) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """The test sets in a language that are there: their names, and the texts of each item."""
    seen = set()
    for task in tasks().values():
        if task.of_lm_eval:  # its data may come from the hub
            continue
        for unit in task.units():
            if code not in task.languages_of(unit):
                continue
            try:
                sentences = _sentences(task, root, unit)
            except InputError:  # it is missing, or broken, which `data check` tells
                if not root.is_dir():  # the whole folder disappeared
                    raise
                continue
            if (digest := content_digest(sentences)) not in seen:
                seen.add(digest)
                yield f"{task.name}/{unit}", sentences


def _sentences(task: Task, root: Path, unit: str) -> list[tuple[str, ...]]:
    items = task.load(root, unit)
    if not isinstance(task, TextTask):
        return [(str(item),) for item in items]
    if len(task.languages_of(unit)) > 1:  # either side may be in the language
        return [(task.sentence(item), item.target) for item in items]
    return [(task.sentence(item),) for item in items]


def holds_flores(found: Mapping[str, int]) -> bool:
    """Whether training texts contain so much of FLORES dev that retrieval is not a test.

    Args:
        found: What `overlaps` returns.
    """
    return any(
        number >= MANY_FLORES for name, number in found.items() if name.startswith(f"{RETRIEVAL}/")
    )


def notes(found: Mapping[str, int]) -> list[str]:
    """What a user should know of the test sets before a long training.

    Args:
        found: What `overlaps` returns.

    Returns:
        A sentence, if a training text contains test items.
    """
    parts = [f"{number:,} of {name}" for name, number in found.items() if number]
    shown = ", ".join(parts[:8]) + (f" and of {len(parts) - 8} more" if len(parts) > 8 else "")
    return [f"the training text contains test items in part: {shown}"] if parts else []
