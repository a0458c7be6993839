"""Named entities as Universal NER asks for them: JSON answers to entities, and entity F1.

The answer (the paper's Appendix D.2) is one JSON object that lists the entities with their place:

    {"Results": [{"TypeName": "PER", "Text": "Ada", "Start": 0, "End": 3}]}

An answer that is anything else counts as no entities and is counted as invalid. F1 is micro F1
over the test set, computed from sums of (true positives, predicted, gold).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, NoReturn

import numpy as np

from xlt_bench.metrics.significance import Floats

Entity = tuple[str, str, int, int]
"""Type, text, and the half-open range of characters that the text takes in the sentence."""

Key = Literal["span", "text"]
"""What must agree: `span` is (type, start, end), `text` is (type, text)."""

_KEYS: tuple[tuple[str, type], ...] = (
    ("TypeName", str),
    ("Text", str),
    ("Start", int),
    ("End", int),
)


def render_entities(entities: Iterable[Entity]) -> str:
    """The answer that lists the entities: compact JSON on one line, characters as they are."""
    names = [name for name, _ in _KEYS]
    results = [dict(zip(names, entity, strict=True)) for entity in entities]
    return json.dumps({"Results": results}, ensure_ascii=False)


def parse_entities(hypothesis: str) -> tuple[list[Entity], bool]:
    """The entities of an answer in its order, and whether the answer is valid.

    White space around the answer and one Markdown code fence (with or without the word json) are
    tolerated, and so are keys besides the four; of a repeated key the last counts, as everywhere
    in Python. Anything else, NaN and Infinity included, is invalid and gives no entities. Offsets
    are not checked against the sentence, and types are taken as they come: a wrong one is a wrong
    prediction. Raises nothing, whatever the string.
    """
    try:
        answer = json.loads(_unfenced(hypothesis), parse_constant=_refuse)
    except (ValueError, RecursionError):
        # ValueError: no JSON, or an integer of thousands of digits. RecursionError: hostile depth.
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
    """The text without surrounding white space and without a code fence around it."""
    text = text.strip()
    if len(text) < 6 or not (text.startswith("```") and text.endswith("```")):
        return text
    inner = text[3:-3]
    return inner[4:] if inner[:4].lower() == "json" else inner


def _entity(result: Any) -> Entity | None:
    """The entity of one element of Results, None where a key lacks or has another type."""
    if not isinstance(result, dict):
        return None
    # type() and not isinstance(): JSON's true is no offset, though Python's True is an int.
    if any(type(result.get(name)) is not kind for name, kind in _KEYS):
        return None
    return result["TypeName"], result["Text"], result["Start"], result["End"]


def entity_counts(
    gold: Iterable[Entity], predicted: Iterable[Entity], key: Key
) -> tuple[int, int, int]:
    """True positives, predicted and gold entities of one sentence.

    Entities are multisets: a prediction repeated twice matches one gold entity once, and two
    mentions of one text need two predictions under `text`.
    """
    wanted, got = _multiset(gold, key), _multiset(predicted, key)
    return (wanted & got).total(), got.total(), wanted.total()


def _multiset(entities: Iterable[Entity], key: Key) -> Counter[tuple[str | int, ...]]:
    if key == "span":
        return Counter((kind, start, end) for kind, _, start, end in entities)
    return Counter((kind, text) for kind, text, _, _ in entities)


def f1(sums: Floats) -> Floats:
    """Micro F1, 0 to 100: sums (..., 3) of (true positives, predicted, gold) to (...).

    0 where it is undefined, as in seqeval (zero_division=0): also where the whole set has no
    entity and none was predicted, so that a set without entities cannot look solved.
    """
    both = sums[..., 1] + sums[..., 2]
    return np.divide(200.0 * sums[..., 0], both, out=np.zeros(np.shape(both)), where=both != 0)
