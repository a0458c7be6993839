"""Entity F1: writes and reads answers that list named entities as JSON, and scores them.

An answer (the paper's appendix D.2) is one JSON object with the entities and their positions:

    {"Results": [{"TypeName": "PER", "Text": "Ada", "Start": 0, "End": 3}]}

Anything else is counted as invalid, and as an answer without entities. `find_entities` reads it
with less rigour, for `entity_f1_lenient`.

render_entities  entities to an answer
parse_entities   an answer to entities
find_entities    an answer that may not be valid to entities
normalised       entities whose texts are in Unicode's normal form C
entity_counts    counts of a sentence, by `span` (type, start, end) or by `text` (type, text)
f1               micro F1 of summed counts
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NoReturn
from unicodedata import normalize

import numpy as np

from xlt_bench.metrics.significance import Floats

Entity = tuple[str, str, int, int]
"""Type, text, start and end (exclusive) in the sentence, in code points."""

Key = Literal["span", "text"]
"""What must agree: `span` is (type, start, end), `text` is (type, text)."""

_KEYS: tuple[tuple[str, type], ...] = (
    ("TypeName", str),
    ("Text", str),
    ("Start", int),
    ("End", int),
)

_RESULTS = re.compile(r'"Results"\s*:\s*\[')
_BETWEEN = re.compile(r"[\s,]*")
_INTEGER = re.compile(r"\s*-?[0-9]{1,18}\s*")
_DECODER = json.JSONDecoder()


def render_entities(entities: Iterable[Entity]) -> str:
    """Write the answer that lists some entities.

    Args:
        entities: The entities, in order.

    Returns:
        JSON on one line; characters beyond ASCII are not escaped.
    """
    names = [name for name, _ in _KEYS]
    results = [dict(zip(names, entity, strict=True)) for entity in entities]
    return json.dumps({"Results": results}, ensure_ascii=False)


def parse_entities(hypothesis: str) -> tuple[list[Entity], bool]:
    """Read the entities of an answer.

    White space around the answer, one Markdown code fence (with or without the word json) and
    additional keys are tolerated; of a repeated key the last counts, as in Python. Anything else,
    NaN and Infinity included, is invalid. Types and offsets are not checked against the sentence:
    a wrong one is a wrong prediction.

    Args:
        hypothesis: Any string.

    Returns:
        The entities in the answer's order, none if it is invalid; and whether it is valid.
    """
    try:
        answer = json.loads(_unfenced(hypothesis), parse_constant=_refuse)
    except (ValueError, RecursionError):
        # ValueError: not JSON, or an integer of thousands of digits. RecursionError: deep nesting.
        return [], False
    results = answer.get("Results") if isinstance(answer, dict) else None
    if not isinstance(results, list):
        return [], False
    entities = [_entity(result) for result in results]
    valid = [entity for entity in entities if entity is not None]
    return (valid, True) if len(valid) == len(entities) else ([], False)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _unfenced(text: str) -> str:
    """The text without white space and a code fence around it."""
    text = text.strip()
    if len(text) < 6 or not (text.startswith("```") and text.endswith("```")):
        return text
    inner = text[3:-3]
    return inner[4:] if inner[:4].lower() == "json" else inner


def _entity(result: Any) -> Entity | None:
    """The entity of an element of Results; None if a key is missing or has another type."""
    if not isinstance(result, dict):
        return None
    # type(), not isinstance(): JSON's true is not an offset, although Python's True is an int.
    if any(type(result.get(name)) is not kind for name, kind in _KEYS):
        return None
    return result["TypeName"], result["Text"], result["Start"], result["End"]


def find_entities(hypothesis: str) -> list[Entity]:
    """Read the entities of an answer that may not be valid.

    They are those of the first list `Results` in the answer, whatever is around it; the list need
    not be closed. An element that is not an entity is left out, and the reading ends at an element
    that is not JSON. Offsets may be strings (`"3"`) and whole floats (`3.0`).

    Args:
        hypothesis: Any string.

    Returns:
        The entities in the answer's order; for a valid answer, those of `parse_entities`.
    """
    found, valid = parse_entities(hypothesis)
    if valid:
        return found
    entities = [_entity(_whole_offsets(element)) for element in _elements(hypothesis)]
    return [entity for entity in entities if entity is not None]


def _elements(text: str) -> Iterator[Any]:
    """The elements of the first list `Results` in a text, up to the first that is not JSON."""
    start = _RESULTS.search(text)
    place = start.end() if start else len(text)
    while (between := _BETWEEN.match(text, place)) and between.end() < len(text):
        try:
            element, place = _DECODER.raw_decode(text, between.end())
        except (ValueError, RecursionError):
            return
        yield element


def _whole_offsets(result: Any) -> Any:
    """An element of Results with offsets as integers, where they are whole numbers."""
    if not isinstance(result, dict):
        return result
    return result | {name: _whole(result[name]) for name in ("Start", "End") if name in result}


def _whole(offset: Any) -> Any:
    if isinstance(offset, str) and _INTEGER.fullmatch(offset):
        return int(offset)
    return int(offset) if isinstance(offset, float) and offset.is_integer() else offset


def normalised(entities: Iterable[Entity]) -> list[Entity]:
    """Entities whose texts are in Unicode's normal form C; offsets stay those of the sentence."""
    return [(kind, normalize("NFC", text), start, end) for kind, text, start, end in entities]


def entity_counts(
    gold: Iterable[Entity], predicted: Iterable[Entity], key: Key
) -> tuple[int, int, int]:
    """Count the entities of a sentence.

    Entities are compared as multisets: repeating a prediction does not match a gold entity twice,
    and with `text` two mentions of the same text need two predictions.

    Args:
        gold: The gold entities.
        predicted: The predicted entities.
        key: What must agree.

    Returns:
        True positives, predicted and gold entities.
    """
    wanted, got = _multiset(gold, key), _multiset(predicted, key)
    return (wanted & got).total(), got.total(), wanted.total()


def _multiset(entities: Iterable[Entity], key: Key) -> Counter[tuple[str | int, ...]]:
    if key == "span":
        return Counter((kind, start, end) for kind, _, start, end in entities)
    return Counter((kind, text) for kind, text, _, _ in entities)


def f1(sums: Floats) -> Floats:
    """Compute micro F1.

    Args:
        sums: (..., 3): sums of true positives, predicted and gold.

    Returns:
        (...): 0 to 100. 0 if there is nothing gold and nothing predicted, as in seqeval
        (zero_division=0), so that a set without entities does not look solved.
    """
    both = sums[..., 1] + sums[..., 2]
    return np.divide(200.0 * sums[..., 0], both, out=np.zeros(np.shape(both)), where=both != 0)
