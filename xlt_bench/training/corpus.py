"""Counts what is odd in a training corpus, for the adapter's card and the notes of `train`."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

from xlt_bench.languages import language
from xlt_bench.metrics.translation import is_identifiable, is_wrong_language

LOOKED_AT = 1000
"""Texts of a side whose language is looked at, evenly spaced: the identifier takes a while."""
NOTED = 0.05
"""The share of odd texts from which `train` prints a note."""

# How Unicode begins the names of a script's letters, where it does not use the table's word.
_LETTERS = {
    "Han": ("CJK",),
    "Japanese": ("CJK", "HIRAGANA", "KATAKANA"),
    "Hangul": ("HANGUL", "CJK"),
}


@cache
def _is_of(character: str, prefixes: tuple[str, ...]) -> bool:
    return unicodedata.name(character, "").startswith(prefixes)


def is_wrong_script(text: str, code: str) -> bool:
    """Whether fewer than half of a text's letters are of its language's script.

    Args:
        text: A text; without letters it is right.
        code: A code of the language table.
    """
    script = language(code).script
    prefixes = _LETTERS.get(script, (script.upper(),))
    letters = [character for character in text if character.isalpha()]
    return 2 * sum(_is_of(character, prefixes) for character in letters) < len(letters)


def count_wrong(texts: Sequence[str], code: str, others: Iterable[str]) -> dict[str, int]:
    """Count texts that are not in their language, among at most `LOOKED_AT`.

    Args:
        texts: Texts that should be in the language.
        code: A code of the language table.
        others: The languages that it may be mistaken for: those of the same training.

    Returns:
        `looked at`, `wrong script` and `wrong language`, which leaves the former out; the last is
        absent if the identifier does not know the language.
    """
    sample = texts[:: -(-len(texts) // LOOKED_AT)] if texts else []
    right = [text for text in sample if not is_wrong_script(text, code)]
    found = {"looked at": len(sample), "wrong script": len(sample) - len(right)}
    if is_identifiable(code):
        candidates = tuple(sorted({*others, "en"}))
        found["wrong language"] = sum(is_wrong_language(text, code, candidates) for text in right)
    return found


def count_rows(rows: Iterable[tuple[str, str]]) -> Counter[str]:
    """Count pairs whose texts are missing or that occur more than once.

    Args:
        rows: Pairs of texts.

    Returns:
        `read`, `empty` (a blank side) and `repeated` (the same pair again).
    """
    found: Counter[str] = Counter()
    seen = set()
    for first, second in rows:
        row = first.strip(), second.strip()
        found["read"] += 1
        if not all(row):
            found["empty"] += 1
        elif row in seen:
            found["repeated"] += 1
        seen.add(row)
    return found


def notes(counts: dict[str, int]) -> list[str]:
    """What a user should look at before a long training.

    Args:
        counts: The card's counts: `<corpus>, looked at`, `<corpus>, wrong script` and so on.

    Returns:
        A sentence for each corpus of which a twentieth or more is not in its language.
    """
    found = []
    for key, number in counts.items():
        corpus, _, fault = key.rpartition(", ")
        looked_at = counts.get(f"{corpus}, looked at", 0)
        if fault in ("wrong script", "wrong language") and number >= max(1, NOTED * looked_at):
            found.append(f"{number} of {looked_at} texts of {corpus} are in a {fault}")
    return found
