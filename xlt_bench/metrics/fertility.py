"""Fertility: how many tokens a tokenizer spends on a language (Rust et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xlt_bench.languages import language

UNSPACED_SCRIPTS = frozenset({"Japanese", "Han", "Thai", "Khmer"})
"""Scripts that put no white space between words, by their name in the language table."""


@dataclass(frozen=True)
class Fertility:
    """Tokens a character and tokens a word; the latter is None in scripts without word spaces."""

    tokens_per_character: float
    tokens_per_word: float | None


def fertility(
    count_tokens: Callable[[list[str]], Sequence[int]], sentences: Sequence[str], code: str
) -> Fertility:
    """The fertility of a tokenizer on sentences of a language (its code in the language table).

    `count_tokens` gives the number of tokens of each sentence WITHOUT special tokens (for
    transformers: add_special_tokens=False); a BOS would weigh on short sentences. Characters are
    code points, spaces between words included; words are white-space separated. Both ratios are of
    totals, so a long sentence weighs more than a short one. Raises ValueError if there is no
    character to divide by, or not one count a sentence.
    """
    counts = count_tokens(list(sentences))
    if len(counts) != len(sentences):
        raise ValueError(f"{len(counts)} token counts for {len(sentences)} sentences")
    characters = sum(len(sentence.strip()) for sentence in sentences)
    if not characters:
        raise ValueError("no characters: fertility needs text")
    words = sum(len(sentence.split()) for sentence in sentences)
    spaced = language(code).script not in UNSPACED_SCRIPTS
    return Fertility(sum(counts) / characters, sum(counts) / words if spaced else None)
