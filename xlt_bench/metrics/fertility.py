"""Fertility: how many tokens a tokenizer needs for a language (Rust et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xlt_bench.languages import language

UNSPACED_SCRIPTS = frozenset({"Japanese", "Han", "Thai", "Khmer"})
"""Scripts without white space between words, by their name in the language table."""


@dataclass(frozen=True)
class Fertility:
    """The fertility of a tokenizer on a language."""

    tokens_per_character: float
    tokens_per_word: float | None
    """None for scripts without white space between words."""


def fertility(
    count_tokens: Callable[[list[str]], Sequence[int]], sentences: Sequence[str], code: str
) -> Fertility:
    """Compute the fertility of a tokenizer.

    Both ratios are of totals, so a long sentence weighs more than a short one. Characters are code
    points, white space between words included; words are separated by white space.

    Args:
        count_tokens: Returns the number of tokens of each sentence, without special tokens (in
            transformers, add_special_tokens=False): a BOS would distort short sentences.
        sentences: The sentences.
        code: Their language, a code of the language table.

    Returns:
        Tokens per character and per word.

    Raises:
        ValueError: If there are no characters, or `count_tokens` returns another number of counts.
    """
    counts = count_tokens(list(sentences))
    if len(counts) != len(sentences):
        raise ValueError(f"{len(counts)} token counts for {len(sentences)} sentences")
    characters = sum(len(sentence.strip()) for sentence in sentences)
    if not characters:
        raise ValueError("fertility needs at least one character")
    words = sum(len(sentence.split()) for sentence in sentences)
    spaced = language(code).script not in UNSPACED_SCRIPTS
    return Fertility(sum(counts) / characters, sum(counts) / words if spaced else None)
