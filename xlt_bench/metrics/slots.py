"""Slot F1: labels the tokens of an utterance by its slots, and counts spans.

An annotation marks slots in an utterance, an answer lists them:

    wake me up at [time : five am] [date : this week]   ->   time: five am; date: this week

Both are turned into one label for each token, and the score is the micro F1 over spans as MASSIVE
converts labels to BIO (FitzGerald et al., 2023): a span is a maximal run of one label, so two
adjacent slots of one type are one span. Tokens are words at white space; in locales scored by
character, ASCII words are tokens and so is every other character.

`slot_f1` gives each value of an answer the next place where it occurs. `slot_f1_midalign`, for
comparison with published scores, reads and places answers as the script of the paper's authors does
(`metrics.midalign`), on gold labels that repeat an error of MASSIVE's preparation script
(`official=True`).

tokenize, slots, gold_labels  read an annotation
render, parse                 write and read an answer
normalised                    slots in Unicode's normal form C
place                         label the tokens by an answer
spans, bio, span_counts       count spans; `entities.f1` turns summed counts into F1
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import normalize

Slot = tuple[str, str]
"""A slot type and its value, as it occurs in the utterance."""

Span = tuple[str, int, int]
"""A label, and the start and end (exclusive) of its tokens."""

OUTSIDE = "O"
_SLOT = re.compile(r"\[(\S+) : ([^\]]*)\]")


def tokenize(text: str, by_character: bool) -> list[str]:
    """Split a text into tokens.

    Args:
        text: The text.
        by_character: Split words that are not ASCII into characters.

    Returns:
        The tokens.
    """
    words = text.split()
    if not by_character:
        return words
    return [token for word in words for token in ([word] if word.isascii() else word)]


def slots(annotated: str) -> list[Slot]:
    """List the slots of an annotated utterance.

    Args:
        annotated: The annotation.

    Returns:
        The slots, in order of appearance.
    """
    return [(slot, value) for slot, value in _SLOT.findall(annotated)]


def gold_labels(
    annotated: str, by_character: bool, *, official: bool = False
) -> tuple[list[str], list[str]]:
    """Label the tokens of an annotated utterance.

    Args:
        annotated: The annotation.
        by_character: Whether the locale is scored by character.
        official: Label as MASSIVE's `create_hf_dataset.py` does: in locales scored by character a
            slot that ends in an ASCII word is not closed, so its label continues up to the next
            bracket (117 test items in ja-JP, 4 in zh-CN).

    Returns:
        The tokens, and a label for each.
    """
    tokens: list[str] = []
    labels: list[str] = []
    running = OUTSIDE

    def add(text: str, label: str) -> None:
        new = tokenize(text, by_character)
        tokens.extend(new)
        labels.extend([label] * len(new))

    end = 0
    for match in _SLOT.finditer(annotated):
        add(annotated[end : match.start()], running)
        slot, value = match.groups()
        add(value, slot)
        unclosed = official and by_character and value.split() and value.split()[-1].isascii()
        running = slot if unclosed else OUTSIDE
        end = match.end()
    add(annotated[end:], running)
    return tokens, labels


def render(slots: Sequence[Slot]) -> str:
    """Write the answer that lists some slots.

    Args:
        slots: The slots, in order.

    Returns:
        Such as `time: five am; date: this week`; `None` without slots.
    """
    return "; ".join(f"{slot}: {value}" for slot, value in slots) or "None"


def parse(answer: str) -> tuple[list[Slot], bool]:
    """Read the slots of an answer.

    A part without a colon, a type or a value is left out and makes the answer ill-formed, as does
    an empty answer. `None`, in upper or lower case, is well formed and has no slots.

    Args:
        answer: Any string.

    Returns:
        The slots, and whether the answer is well formed.
    """
    if answer.strip().lower() == "none":
        return [], True
    found: list[Slot] = []
    well_formed = True
    for part in answer.split(";"):
        slot, colon, value = part.partition(":")
        if colon and slot.strip() and value.strip():
            found.append((slot.strip(), value.strip()))
        else:
            well_formed = False
    return found, well_formed


def normalised(slots: Sequence[Slot]) -> list[Slot]:
    """Slots whose values are in Unicode's normal form C (NFC).

    Many tokenizers normalise text, so that models cannot repeat the characters of an utterance:
    those of Qwen, Cohere and GPT-NeoX write 54 gold answers in Hindi and 11 in Urdu differently.
    """
    return [(slot, normalize("NFC", value)) for slot, value in slots]


def _find(tokens: Sequence[str], value: Sequence[str], labels: Sequence[str], start: int) -> int:
    """The first place of `value` at or after `start` that has no label yet, or -1."""
    width = len(value)
    for i in range(start, len(tokens) - width + 1):
        if list(tokens[i : i + width]) == list(value) and set(labels[i : i + width]) == {OUTSIDE}:
            return i
    return -1


def place(
    tokens: Sequence[str], slots: Sequence[Slot], by_character: bool
) -> tuple[list[str], list[Slot]]:
    """Label tokens by an answer, each value once, as `slot_f1` does.

    From left to right, a value takes the next free place after the previous value. If there is
    none, it takes the first free place of the utterance, so that order does not matter.

    Args:
        tokens: The tokens of the utterance.
        slots: The slots of the answer.
        by_character: Whether the locale is scored by character.

    Returns:
        The labels, and the slots whose value was not found.
    """
    labels = [OUTSIDE] * len(tokens)
    lost: list[Slot] = []
    start = 0
    for slot, value in slots:
        words = tokenize(value, by_character)
        at = _find(tokens, words, labels, start)
        if at < 0:
            at = _find(tokens, words, labels, 0)
        if at < 0:
            lost.append((slot, value))
            continue
        start = at + len(words)
        labels[at:start] = [slot] * len(words)
    return labels, lost


def spans(labels: Sequence[str]) -> list[Span]:
    """Find the spans: maximal runs of one label other than OUTSIDE.

    Args:
        labels: The labels of an utterance.

    Returns:
        The spans, from left to right.
    """
    found: list[Span] = []
    start = 0
    for i in range(1, len(labels) + 1):
        if i == len(labels) or labels[i] != labels[start]:
            if labels[start] != OUTSIDE:
                found.append((labels[start], start, i))
            start = i
    return found


def bio(labels: Sequence[str]) -> list[str]:
    """Convert labels to BIO as MASSIVE's `convert_to_bio` does: B- wherever the label changes.

    Args:
        labels: The labels of an utterance.

    Returns:
        The BIO tags, for other scorers such as seqeval.
    """
    before = [OUTSIDE, *labels[:-1]]
    return [
        OUTSIDE if label == OUTSIDE else ("I-" if label == last else "B-") + label
        for last, label in zip(before, labels, strict=True)
    ]


def span_counts(gold: Sequence[str], predicted: Sequence[str]) -> tuple[int, int, int]:
    """Count the spans of an item.

    Args:
        gold: The gold labels.
        predicted: The predicted labels.

    Returns:
        Correct, predicted and gold spans.
    """
    wanted, got = set(spans(gold)), set(spans(predicted))
    return len(wanted & got), len(got), len(wanted)
