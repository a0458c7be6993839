"""Slot filling: annotation to labelled tokens, answers to labelled tokens, spans, and both scorers.

An annotation marks slots in an utterance, an answer lists them:

    wake me up at [time : five am] [date : this week]   ->   time: five am; date: this week

Both become one label a token, and the score is the micro F1 over the spans that MASSIVE's own
conversion to BIO makes of the labels (FitzGerald et al., 2023): a span is a maximal run of one
label, so two touching slots of one type are one span. Tokens are white-space words; in locales
scored by character, ASCII chunks stay whole and every other character is a token.

There are two scorers. `place` is ours: each value is laid on the next place where it occurs.
`place_everywhere` repeats what the script of the paper's authors does, on gold that keeps an error
of MASSIVE's preparation script (`official=True` below); its scores stand beside published ones.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

Slot = tuple[str, str]
"""A slot type and its value, as it stands in the utterance."""

Span = tuple[str, int, int]
"""A label and the half-open range of tokens that it covers."""

OUTSIDE = "O"
_SLOT = re.compile(r"\[(\S+) : ([^\]]*)\]")


def tokenize(text: str, by_character: bool) -> list[str]:
    """White-space words; with `by_character`, every non-ASCII word is cut into its characters."""
    words = text.split()
    if not by_character:
        return words
    return [token for word in words for token in ([word] if word.isascii() else word)]


def slots(annotated: str) -> list[Slot]:
    """The slots of an annotated utterance, in order of appearance."""
    return [(slot, value) for slot, value in _SLOT.findall(annotated)]


def gold_labels(
    annotated: str, by_character: bool, *, official: bool = False
) -> tuple[list[str], list[str]]:
    """Tokens and labels, one each, of an annotated utterance.

    With `official`, as MASSIVE's `create_hf_dataset.py` prepares them: in locales scored by
    character a slot that ends in an ASCII word is not closed, so its label runs on up to the next
    bracket (117 test items in ja-JP, 4 in zh-CN).
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
    """The answer that lists the slots: `time: five am; date: this week`, or `None`."""
    return "; ".join(f"{slot}: {value}" for slot, value in slots) or "None"


def parse(answer: str) -> tuple[list[Slot], bool]:
    """The slots of an answer, and whether it is well formed.

    A part without a colon, a type or a value is left out and makes the answer ill-formed, as does
    an empty answer; `None` in any case is a well-formed answer without slots.
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


def _find(tokens: Sequence[str], value: Sequence[str], labels: Sequence[str], start: int) -> int:
    """The first free place of `value` at or after `start`, or -1."""
    width = len(value)
    for i in range(start, len(tokens) - width + 1):
        if list(tokens[i : i + width]) == list(value) and set(labels[i : i + width]) == {OUTSIDE}:
            return i
    return -1


def place(
    tokens: Sequence[str], slots: Sequence[Slot], by_character: bool
) -> tuple[list[str], list[Slot]]:
    """Labels of the tokens, and the slots that found no place.

    Left to right: a value takes the next free place after the one before it, and only where there
    is none, the first free place of the utterance (an answer out of order loses nothing).
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


def place_everywhere(tokens: Sequence[str], slots: Sequence[Slot], by_character: bool) -> list[str]:
    """Labels of the tokens as the scoring script of the paper's authors sets them.

    Every place where a value occurs is marked, whatever its case; later slots overwrite earlier
    ones; by character, values are cut into single characters, spaces and ASCII words included.
    """
    lowered = [token.lower() for token in tokens]
    labels = [OUTSIDE] * len(tokens)
    for slot, value in slots:
        words = list(value.lower()) if by_character else value.lower().split()
        width = len(words)
        for i in range(len(lowered) - width + 1):
            if width and lowered[i : i + width] == words:
                labels[i : i + width] = [slot] * width
    return labels


def spans(labels: Sequence[str]) -> list[Span]:
    """Maximal runs of one label, OUTSIDE left out."""
    found: list[Span] = []
    start = 0
    for i in range(1, len(labels) + 1):
        if i == len(labels) or labels[i] != labels[start]:
            if labels[start] != OUTSIDE:
                found.append((labels[start], start, i))
            start = i
    return found


def bio(labels: Sequence[str]) -> list[str]:
    """Labels in BIO, as MASSIVE's `convert_to_bio` writes them: B- wherever the label changes."""
    before = [OUTSIDE, *labels[:-1]]
    return [
        OUTSIDE if label == OUTSIDE else ("I-" if label == last else "B-") + label
        for last, label in zip(before, labels, strict=True)
    ]


def span_counts(gold: Sequence[str], predicted: Sequence[str]) -> tuple[int, int, int]:
    """Spans in both, spans predicted and spans of the gold labels, of one item."""
    wanted, got = set(spans(gold)), set(spans(predicted))
    return len(wanted & got), len(got), len(wanted)


@dataclass(frozen=True)
class ItemResult:
    """What one answer is worth: span counts of both scorers, and what is wrong with it."""

    counts: tuple[int, int, int]
    counts_midalign: tuple[int, int, int]
    exact: bool
    ill_formed: bool
    unknown_slot: bool
    not_in_utterance: bool


def score_item(
    annotated: str, answer: str, by_character: bool, slot_types: Collection[str]
) -> ItemResult:
    """Score one answer against one annotated utterance.

    `exact` compares the slots as a multiset of (type, value), order aside.
    """
    answered, well_formed = parse(answer)
    tokens, gold = gold_labels(annotated, by_character)
    predicted, lost = place(tokens, answered, by_character)
    tokens_official, gold_official = gold_labels(annotated, by_character, official=True)
    everywhere = place_everywhere(tokens_official, answered, by_character)
    return ItemResult(
        counts=span_counts(gold, predicted),
        counts_midalign=span_counts(gold_official, everywhere),
        exact=well_formed and Counter(answered) == Counter(slots(annotated)),
        ill_formed=not well_formed,
        unknown_slot=any(slot not in slot_types for slot, _ in answered),
        not_in_utterance=bool(lost),
    )
