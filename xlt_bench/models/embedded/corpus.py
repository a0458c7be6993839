"""The text that the embedded model is trained on, and the documents made of it.

Text: MASSIVE's utterances without their slots, of one split; Tatoeba's pairs (LASER and Challenge);
ALMA's training pairs without FLORES-200. No test or dev split, and nothing of FLORES, is read for
training. Documents put the same utterance in several languages, sentence pairs in both orders, and
text that returns word by word: slot filling answers with words of its prompt, so a model that
adapters are to learn it on must be able to copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from xlt_bench.data import alma, massive, tatoeba
from xlt_bench.languages import LANGUAGES, language
from xlt_bench.tasks.massive import SYSTEM, by_character
from xlt_bench.tasks.massive import TASK as MASSIVE

EOS = "</s>"
SYSTEM_TURN, USER_TURN, ASSISTANT_TURN = "<|system|>", "<|user|>", "<|assistant|>"

# Longer sentences would fill a row alone.
_LONGEST = 300
_LANGUAGES = tuple(MASSIVE.test_set(1).units)


@dataclass(frozen=True)
class Texts:
    """For each MASSIVE id its text by language; (foreign, English) pairs by language."""

    commands: Sequence[Mapping[str, str]]
    pairs: Mapping[str, Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class Document:
    """A text with its turn markers; all from the character `copied` on is a copy of what precedes.

    Where nothing, or not all of the rest, is a copy, `copied` is the text's length.
    """

    text: str
    copied: int


def load_commands(root: Path, split: massive.Split) -> list[dict[str, str]]:
    """The utterances of the 20 locales, one row an id, by language code. Raises InputError."""
    rows: dict[str, dict[str, str]] = {}
    for code in _LANGUAGES:
        for row in massive.load(root, str(language(code).massive), split):
            rows.setdefault(row.id, {})[code] = row.text
    return list(rows.values())


def load_pairs(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Tatoeba's and ALMA's sentence pairs with English, by language. Raises InputError."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for code in LANGUAGES:
        rows = tatoeba.load_laser(root, code) if code in tatoeba.LASER_LANGUAGES else []
        if code in tatoeba.CHALLENGE_LANGUAGES:
            rows = rows + tatoeba.load_challenge(root, code)
        if code in alma.LANGUAGES:
            segments = alma.load_train(root, f"{code}-en", flores=False)
            rows = rows + [(row.source, row.reference) for row in segments]
        if rows := [row for row in rows if max(map(len, row)) <= _LONGEST]:
            pairs[code] = rows
    return pairs


def load_training(root: Path) -> Texts:
    """All that the model is trained on. Raises InputError where a file is missing."""
    return Texts(load_commands(root, "train"), load_pairs(root))


def parallel(texts: Texts, rng: Random) -> Document:
    """The same utterance in several languages, a line each, with or without their names."""
    command = rng.choice(texts.commands)
    codes = rng.sample(sorted(command), min(len(command), rng.randint(2, 6)))
    named = rng.random() < 0.5
    lines = [(f"{LANGUAGES[code].name}: " if named else "") + command[code] for code in codes]
    return _repeated(lines, rng, 0.4)


def repeat(texts: Texts, rng: Random) -> Document:
    """Utterances of one language, or words of any in any order, and the same again.

    Words out of order can be foretold by copying alone, which is how a model comes to copy early.
    """
    if rng.random() < 0.5:
        words = [word for row in rng.choices(texts.commands, k=4) for word in _words(row, rng)]
        return _repeated([" ".join(rng.sample(words, min(len(words), rng.randint(3, 20))))], rng, 1)
    code = rng.choice(sorted(texts.commands[0]))
    chosen = rng.choices(texts.commands, k=rng.randint(1, 5))
    return _repeated([row[code] for row in chosen if code in row], rng, 1)


def pairs(texts: Texts, rng: Random) -> Document:
    """Sentence pairs of a language with English, in either order, plain or as a chat."""
    codes = sorted(texts.pairs)
    weights = [len(texts.pairs[code]) ** 0.5 for code in codes]
    code = rng.choices(codes, weights)[0]
    names = (LANGUAGES[code].name, LANGUAGES["en"].name)
    chosen = rng.choices(texts.pairs[code], k=rng.randint(1, 3))
    if rng.random() < 0.5:
        names, chosen = (names[1], names[0]), [(b, a) for a, b in chosen]
    style = rng.random()
    if style < 0.25:
        system = f"Translate the following sentences from {names[0]} to {names[1]}."
        text = _chat(system, chosen)
        return Document(text, len(text))
    labels = (f"{names[0]}: ", f"{names[1]}: ") if style < 0.6 else ("", "")
    lines = [label + side for pair in chosen for label, side in zip(labels, pair, strict=True)]
    return _repeated(lines, rng, 0.2)


def chat(texts: Texts, rng: Random) -> Document:
    """Chats whose answers repeat the user's words: all of them, or some under any labels."""
    code = rng.choice(sorted(texts.commands[0]))
    turns = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        command = rng.choice(texts.commands)
        text = command.get(code) or next(iter(command.values()))
        turns.append((text, _answer(text, code, texts, rng)))
    system = SYSTEM if rng.random() < 0.25 else ""
    text = _chat(system, turns)
    question, answer = turns[0]
    whole = len(turns) == 1 and question == answer
    return Document(text, text.index(ASSISTANT_TURN) + len(ASSISTANT_TURN) if whole else len(text))


KINDS: Mapping[str, tuple[float, Callable[[Texts, Random], Document]]] = {
    "parallel": (0.25, parallel),
    "repeat": (0.20, repeat),
    "pairs": (0.20, pairs),
    "chat": (0.35, chat),
}


def document(texts: Texts, rng: Random) -> Document:
    """A document of a kind drawn by its share."""
    kinds = list(KINDS.values())
    _, make = rng.choices(kinds, [share for share, _ in kinds])[0]
    return make(texts, rng)


def _repeated(lines: Sequence[str], rng: Random, share: float) -> Document:
    """The lines; in a share of the documents all of them again."""
    first = "\n".join(lines)
    if rng.random() >= share:
        return Document(first + EOS, len(first + EOS))
    return Document(f"{first}\n{first}{EOS}", len(first) + 1)


def _words(command: Mapping[str, str], rng: Random) -> list[str]:
    return command[rng.choice(sorted(command))].split()


def _chat(system: str, turns: Sequence[tuple[str, str]]) -> str:
    """The text that the tokenizer's chat template makes of these turns (a test compares them)."""
    head = f"{SYSTEM_TURN} {system}{EOS}" if system else ""
    return head + "".join(
        f"{USER_TURN} {question}{EOS}{ASSISTANT_TURN} {answer}{EOS}" for question, answer in turns
    )


def _answer(text: str, code: str, texts: Texts, rng: Random) -> str:
    """The text, its ends, or `label: words; label: words` in order of appearance."""
    joint = "" if by_character(code) else " "
    words = list(text) if by_character(code) else text.split()
    style = rng.random()
    if style < 0.3:
        return text
    if style < 0.4:
        return f"first: {words[0]}; last: {words[-1]}"
    cuts = sorted(rng.sample(range(len(words) + 1), min(len(words) + 1, 2 * rng.randint(1, 3))))
    spans = [joint.join(words[a:b]) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    labels = rng.choice(texts.commands)
    vocabulary = (labels.get("en") or next(iter(labels.values()))).split()
    return "; ".join(f"{rng.choice(vocabulary)}: {span.strip()}" for span in spans)
