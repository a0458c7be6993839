"""Choosing systems among any number: at most fifty are offered, the rest are found by words."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st
from queries import TASKS, ask, like
from widgets import SUBMIT, choose, nothing, several, short, words

OFFERED = 50
_FOUND = """
SELECT s.id, s.name, s.model, count(*) OVER () AS total
FROM submissions s
WHERE (s.superseded_by IS NULL OR s.id = ANY($kept::VARCHAR[]))
    AND ($task = '' OR s.number IN (SELECT number FROM runs WHERE task = $task))
    AND ($base = '' OR s.base_model = $base)
    AND s.id <> $without
    AND (s.id = ANY($kept::VARCHAR[]) OR s.name ILIKE $words ESCAPE '!'
        OR s.id ILIKE $words ESCAPE '!' OR s.model ILIKE $words ESCAPE '!')
ORDER BY s.id = ANY($kept::VARCHAR[]) DESC, s.adapter IS NULL, s.created DESC, s.id
LIMIT $most
"""


def task(*without: str) -> str:
    """A task of the benchmark."""
    return choose(
        "Task", [one for one in TASKS if one not in without], "task", name=TASKS.__getitem__
    )


def _found(label: str, key: str, kept: list[str], **filters: str) -> dict[str, str]:
    given = {"task": "", "base": "", "without": "", **filters, "kept": kept, "most": OFFERED}
    found = ask(_FOUND, {**given, "words": "%"})
    total = int(found["total"].iloc[0]) if len(found) else 0
    if total > OFFERED:
        text = words(f"Find: {label.lower()}", f"{key}_find", f"one of {total}: name, model or id")
        found = ask(_FOUND, {**given, "words": like(text)})
    return labels(found["id"], found["name"])


def labels(ids: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Labels by id; equal names are told apart by the end of the id."""
    cut = [short(name) for name in names]
    return {
        one: f"{name} · {one[-10:]}" if cut.count(name) > 1 else name
        for one, name in zip(ids, cut, strict=True)
    }


def system(
    label: str, key: str = "system", *, default: str | None = None, empty: str = "", **filters: str
) -> tuple[str, str]:
    """The id of one submission and its label; without any, the page says so and ends."""
    wanted = [one for one in (st.query_params.get(key, ""), default or "") if one]
    names = _found(label, key, wanted, **filters)
    if not names:
        nothing(
            empty or "No submission has this yet. Evaluate a model and submit the run:",
            SUBMIT,
        )
    chosen = choose(label, list(names), key, default=default, name=names.__getitem__)
    return chosen, names[chosen]


def systems(label: str, key: str, most: int, **filters: str) -> dict[str, str]:
    """Labels by id of up to `most` submissions; at first the newest three."""
    names = _found(label, key, st.query_params.get_all(key), **filters)
    chosen = several(
        label, list(names), key, default=list(names)[:3], name=names.__getitem__, most=most
    )
    return {one: names[one] for one in chosen}
