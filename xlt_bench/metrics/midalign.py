"""`slot_f1_midalign`: reads and places slot answers as the script of the paper's authors does.

The rules are those of `scripts/eval_massive.py` in github dannigt/mid-align at c3fa8ef. They differ
from `slots.parse` and `slots.place`, which `slot_f1` uses:

- An answer is one line. The script reads a file with one answer per line, so what follows a line
  break would belong to the next item; here it is left out.
- Slots are separated by `"; "`, and each must have exactly one `": "`. Others are left out. Types
  and values are not stripped: `time : five` has the type `"time "`, which is never right.
- A value is looked up without regard to case. Every place where it occurs is labelled, and later
  slots overwrite earlier ones.
- In locales scored by character, a value is split into single characters, including its spaces and
  ASCII words, so an ASCII word of several letters is never found.
- The type `Other` labels tokens as outside.

The script stops at a value that is only white space in a locale scored by word; here, it is found
nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from xlt_bench.metrics.slots import OUTSIDE, Slot

Words = list[str]
"""A value as it is compared with the tokens: split, and in lower case."""

_SCRIPT_OUTSIDE = "Other"
_LINE_BREAK = re.compile(r"\r\n|\r|\n")  # Python's universal newlines


def read(answer: str, by_character: bool) -> list[tuple[str, Words]]:
    """Read the slots of an answer.

    Args:
        answer: Any string.
        by_character: Whether the locale is scored by character.

    Returns:
        The types and the words of their values, in order.
    """
    line = _LINE_BREAK.split(answer, maxsplit=1)[0].strip()
    if line.lower() == "none":
        return []
    parts = [part.split(": ") for part in line.split("; ")]
    pairs = [(part[0], part[1]) for part in parts if len(part) == 2]
    # Swapped, so that the type "O" of an answer is not taken for our OUTSIDE.
    names = {_SCRIPT_OUTSIDE: OUTSIDE, OUTSIDE: _SCRIPT_OUTSIDE}
    return [
        (names.get(slot, slot), [word.lower() for word in _split(value, by_character)])
        for slot, value in pairs
    ]


def _split(value: str, by_character: bool) -> Words:
    return list(value) if by_character else value.split()


def words_of(slots: Sequence[Slot], by_character: bool) -> list[tuple[str, Words]]:
    """The slots that `slots.parse` read, for `place`: how version 1 of the task read answers."""
    return [(slot, _split(value.lower(), by_character)) for slot, value in slots]


def place(tokens: Sequence[str], slots: Sequence[tuple[str, Words]]) -> list[str]:
    """Label tokens by an answer.

    Args:
        tokens: The tokens of the utterance.
        slots: What `read` returned.

    Returns:
        The labels.
    """
    lowered = [token.lower() for token in tokens]
    labels = [OUTSIDE] * len(tokens)
    for slot, words in slots:
        width = len(words)
        for i in range(len(lowered) - width + 1):
            if width and lowered[i : i + width] == words:
                labels[i : i + width] = [slot] * width
    return labels
