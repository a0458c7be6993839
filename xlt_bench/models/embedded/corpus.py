"""Reads the text that the embedded model is trained on, and makes documents of it.

Text: MASSIVE's training utterances without their slots, the text of UNER's train splits without its
entities, Tatoeba's pairs (LASER and Challenge), ALMA's training pairs without FLORES-200, and
messages of free programs with their translations. No test or dev split is read for training.
Documents show the same utterance in several languages, sentence pairs in both orders, and text that
is repeated, plainly or as JSON: the answers of slot filling and named entities are words of the
prompt, so the model must be able to copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from xlt_bench.data import alma, massive, tatoeba, uner
from xlt_bench.languages import LANGUAGES, language
from xlt_bench.metrics.entities import render_entities
from xlt_bench.models.embedded.messages import load_messages
from xlt_bench.tasks import retrieval
from xlt_bench.tasks.massive import SYSTEM, by_character
from xlt_bench.tasks.massive import TASK as MASSIVE
from xlt_bench.tasks.uner import TASK as UNER

EOS = "</s>"
SYSTEM_TURN, USER_TURN, ASSISTANT_TURN = "<|system|>", "<|user|>", "<|assistant|>"

# Characters; longer sentences would fill a row.
_LONGEST = 300
_LONGEST_TRANSLATION = 120
_LANGUAGES = tuple(MASSIVE.test_set(1).units)


@dataclass(frozen=True)
class Texts:
    """The text that documents are made of."""

    commands: Sequence[Mapping[str, str]]
    """MASSIVE's utterances: for each id the text by language."""
    pairs: Mapping[str, Sequence[tuple[str, str]]]
    """(foreign, English) sentences by language."""
    sentences: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """UNER's sentences by language."""


@dataclass(frozen=True)
class Document:
    """A training document."""

    text: str
    """The text with its turn markers."""
    copied: int
    """Everything from this character on is a copy of what precedes it; the length if nothing is."""


def load_commands(root: Path, split: massive.Split) -> list[dict[str, str]]:
    """Read MASSIVE's utterances.

    Args:
        root: The data folder.
        split: The split.

    Returns:
        For each id the utterances by language code.

    Raises:
        InputError: If a file is missing.
    """
    rows: dict[str, dict[str, str]] = {}
    for code in _LANGUAGES:
        for row in massive.load(root, str(language(code).massive), split):
            rows.setdefault(row.id, {})[code] = row.text
    return list(rows.values())


def load_pairs(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Read Tatoeba's and ALMA's sentence pairs.

    Args:
        root: The data folder.

    Returns:
        (foreign, English) sentences by language code.

    Raises:
        InputError: If a file is missing.
    """
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


def load_training(root: Path, messages: Path) -> Texts:
    """Read the training text of the model.

    Args:
        root: The data folder.
        messages: A folder of unpacked packages (`load_messages`).

    Returns:
        Utterances, sentence pairs and sentences.

    Raises:
        InputError: If a file is missing.
    """
    pairs = load_pairs(root)
    languages = sorted({*pairs, *retrieval.TASK.test_set(1).units} - {"en"})
    for code, more in load_messages(messages, languages).items():
        pairs[code] = [*pairs.get(code, []), *more]
    return Texts(load_commands(root, "train"), pairs, load_sentences(root, "train"))


def load_unseen(root: Path) -> Texts:
    """Read text that the model is not trained on: the validation splits of MASSIVE and UNER.

    Args:
        root: The data folder.

    Returns:
        Utterances and sentences, without pairs.

    Raises:
        InputError: If a file is missing.
    """
    return Texts(load_commands(root, "validation"), {}, load_sentences(root, "validation"))


def load_sentences(root: Path, split: uner.Split) -> dict[str, list[str]]:
    """Read the text of UNER's sentences.

    Args:
        root: The data folder.
        split: The split.

    Returns:
        Sentences by language code.

    Raises:
        InputError: If a file is missing.
    """
    return {
        code: [
            sentence.text
            for sentence in uner.load(root, str(language(code).uner), split)
            if len(sentence.text) <= _LONGEST
        ]
        for code in UNER.test_set(1).units
    }


def parallel(texts: Texts, rng: Random) -> Document:
    """Make a document of one utterance in several languages, each on a line.

    Args:
        texts: The text.
        rng: The source of random choices.
    """
    command = rng.choice(texts.commands)
    codes = rng.sample(sorted(command), min(len(command), rng.randint(2, 6)))
    named = rng.random() < 0.5
    lines = [(f"{LANGUAGES[code].name}: " if named else "") + command[code] for code in codes]
    return _repeated(lines, rng, 0.4)


def repeat(texts: Texts, rng: Random) -> Document:
    """Make a document of utterances, or of shuffled words of any language, that is said twice.

    Shuffled words can be predicted only by copying, so that the model learns to copy early.

    Args:
        texts: The text.
        rng: The source of random choices.
    """
    if rng.random() < 0.5:
        words = [word for row in rng.choices(texts.commands, k=4) for word in _words(row, rng)]
        return _repeated([" ".join(rng.sample(words, min(len(words), rng.randint(3, 20))))], rng, 1)
    code = rng.choice(sorted(texts.commands[0]))
    chosen = rng.choices(texts.commands, k=rng.randint(1, 5))
    return _repeated([row[code] for row in chosen if code in row], rng, 1)


def pairs(texts: Texts, rng: Random) -> Document:
    """Make a document of sentence pairs with English, in either order, plain or as a chat.

    Args:
        texts: The text.
        rng: The source of random choices.
    """
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
    """Make a chat whose answers repeat the user's words: all, or some with labels.

    Args:
        texts: The text.
        rng: The source of random choices.
    """
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


def entities(texts: Texts, rng: Random) -> Document:
    """Make a chat that answers a sentence with words of it in the JSON of UNER's answers.

    Types and words are chosen at random.

    Args:
        texts: The text.
        rng: The source of random choices.
    """
    code = rng.choice(sorted(texts.sentences))
    turns = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        sentence = rng.choice(texts.sentences[code])
        turns.append((sentence, _json_answer(sentence, rng)))
    text = _chat("", turns)
    return Document(text, len(text))


# The share of each kind of document, and the function that makes one.
KINDS: Mapping[str, tuple[float, Callable[[Texts, Random], Document]]] = {
    "parallel": (0.12, parallel),
    "repeat": (0.10, repeat),
    "pairs": (0.43, pairs),
    "chat": (0.20, chat),
    "entities": (0.15, entities),
}


def document(texts: Texts, rng: Random) -> Document:
    """Draw a kind by its share, and make a document of it.

    Args:
        texts: The text.
        rng: The source of random choices.
    """
    kinds = list(KINDS.values())
    _, make = rng.choices(kinds, [share for share, _ in kinds])[0]
    return make(texts, rng)


def translations(texts: Texts, rng: Random, number: int) -> list[tuple[str, str]]:
    """Draw translations of English, of which one to three make a pair of at most 120 characters.

    FLORES-200's sentences are longer than those of the training text. The pairs of a draw are made
    of as many sentences each, so that their lengths are alike.

    Args:
        texts: The text.
        rng: The source of random choices.
        number: How many pairs to draw.

    Returns:
        (foreign, English) texts in any languages.
    """
    parts = rng.choice((1, 1, 2, 3))
    codes = sorted({*texts.pairs, *texts.commands[0]} - {"en"})
    drawn: list[tuple[str, str]] = []
    while len(drawn) < number:
        pair = _translation(texts, rng, rng.choice(codes), parts)
        if max(map(len, pair)) <= _LONGEST_TRANSLATION:
            drawn.append(pair)
    return drawn


def _translation(texts: Texts, rng: Random, code: str, parts: int) -> tuple[str, str]:
    """Draw `parts` sentences or utterances of a language, and join them and their translations."""
    command = code not in texts.pairs or (code in texts.commands[0] and rng.random() < 0.2)
    if command:
        rows = [row for row in rng.choices(texts.commands, k=parts) if {code, "en"} <= row.keys()]
        chosen = [(row[code], row["en"]) for row in rows]
    else:
        chosen = rng.choices(texts.pairs[code], k=parts)
    return " ".join(a for a, _ in chosen), " ".join(b for _, b in chosen)


def _repeated(lines: Sequence[str], rng: Random, share: float) -> Document:
    """Make a document of the lines, which are said twice with probability `share`."""
    first = "\n".join(lines)
    if rng.random() >= share:
        return Document(first + EOS, len(first + EOS))
    return Document(f"{first}\n{first}{EOS}", len(first) + 1)


def _words(command: Mapping[str, str], rng: Random) -> list[str]:
    return command[rng.choice(sorted(command))].split()


def _chat(system: str, turns: Sequence[tuple[str, str]]) -> str:
    """Render turns as the tokenizer's chat template does (a test compares them)."""
    head = f"{SYSTEM_TURN} {system}{EOS}" if system else ""
    return head + "".join(
        f"{USER_TURN} {question}{EOS}{ASSISTANT_TURN} {answer}{EOS}" for question, answer in turns
    )


def _answer(text: str, code: str, texts: Texts, rng: Random) -> str:
    """Answer with the text, its first and last word, or `label: words; label: words`."""
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


def _json_answer(sentence: str, rng: Random) -> str:
    """Answer with up to four spans of words, in order, as entities of random types."""
    starts = [i for i, character in enumerate(sentence) if i == 0 or sentence[i - 1] == " "]
    if len(starts) == 1:  # no spaces: any character may start a span
        starts = list(range(len(sentence)))
    ends = [*(start - 1 for start in starts[1:]), len(sentence)]
    found, at = [], 0
    for _ in range(rng.choice((0, 1, 1, 2, 3, 4))):
        if at >= len(starts):
            break
        first = rng.randrange(at, len(starts))
        last = min(len(starts) - 1, first + rng.choice((0, 0, 1, 2)))
        start, end = starts[first], max(ends[last], starts[first] + 1)
        text = sentence[start:end].strip(" .,;:!?()")
        if text:
            start = sentence.index(text, start)
            kind = rng.choice(("PER", "ORG", "LOC"))
            found.append((kind, text, start, start + len(text)))
        at = last + 1
    return render_entities(found)
