"""Select boxes for a task and its version, and for submissions.

A box offers at most fifty submissions; a text field beside it finds the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import streamlit as st
from names import system_names
from queries import TaskVersion, ask, like, tasks
from widgets import SUBMIT, PageEndsError, choose, nothing, several, tabs, words, wrong

OFFERED = 50
_FOUND = """
SELECT s.id, s.name, s.model, count(*) OVER () AS total
FROM submissions s
WHERE (s.superseded_by IS NULL OR s.id = ANY($kept::VARCHAR[]))
    AND ($task = '' OR s.number IN (
        SELECT number FROM runs
        WHERE task = $task AND version = $version
            AND (superseded_by IS NULL OR s.id = ANY($kept::VARCHAR[]))
    ))
    AND ($base = '' OR s.base_model = $base)
    AND s.id <> $without
    AND (NOT $with_points OR s.id IN (
        SELECT submission FROM transfer_points WHERE task = $task AND version = $version
    ))
    AND (s.id = ANY($kept::VARCHAR[]) OR s.name ILIKE $words ESCAPE '!'
        OR s.id ILIKE $words ESCAPE '!' OR s.model ILIKE $words ESCAPE '!')
ORDER BY s.id = ANY($kept::VARCHAR[]) DESC, s.adapter IS NULL, s.created DESC, s.id
LIMIT $most
"""


def task(answers: str | None = None) -> TaskVersion:
    """The chosen task at the chosen version; a box with a single option is not shown.

    Args:
        answers: Offer only the tasks with this kind of answers; None for all.
    """
    offered = {one.name: one for one in tasks(answers)}
    if not offered:
        nothing("The database has no such task. Build it again.")
    with st.container(horizontal=True):
        found = next(iter(offered.values()))
        if len(offered) > 1:
            found = offered[tabs("Task", list(offered), "task", name=lambda n: offered[n].title)]
        if len(found.versions) < 2:
            return found
        versions, default = [str(one) for one in found.versions], str(found.version)
        chosen = choose("Version", versions, "version", default=default, name=lambda n: f"v{n}")
    return dataclasses.replace(found, version=int(chosen))


def ranks_all() -> bool:
    """Whether places are among all rows; if not, among the verified ones alone."""
    names = {"verified": "Places among verified rows", "all": "among all rows"}
    return tabs("Places", list(names), "places", name=names.__getitem__) == "all"


def no_places() -> None:
    """Say why no row has a place, where nothing is verified yet."""
    st.caption(
        "Nothing here is verified yet, so no row has a place. All rows are shown, marked as "
        "self-reported; *among all rows* gives their places."
    )


def _found(label: str, key: str, kept: list[str], **filters: Any) -> dict[str, str]:
    given = {"task": "", "version": 0, "base": "", "without": "", "with_points": False, **filters}
    given |= {"kept": kept, "most": OFFERED}
    found = ask(_FOUND, {**given, "words": "%"})
    total = int(found["total"].iloc[0]) if len(found) else 0
    if total > OFFERED:
        text = words(f"Find: {label.lower()}", f"{key}_find", f"one of {total}: name, model or id")
        if text:
            found = ask(_FOUND, {**given, "words": like(text)})
    return system_names(found["id"])


def system(
    label: str, key: str = "system", *, default: str | None = None, empty: str = "", **filters: Any
) -> tuple[str, str]:
    """The id of the chosen submission, and its name. Ends the page if there is none to choose.

    Args:
        label: The label of the select box.
        key: Its key in the URL.
        default: The id that is chosen at first; else the newest.
        empty: What the page says if there is none.
        filters: `task` and `version`, `base` (a base model), `without` (an id) and `with_points`
            (only systems with scores and retrieval accuracies of the same languages).
    """
    asked = st.query_params.get(key, "")
    names = _found(label, key, [one for one in (asked, default or "") if one], **filters)
    if not names:
        nothing(
            empty or "No submission has this yet. Evaluate a model and submit the run:",
            SUBMIT,
        )
    if asked and asked not in names:
        # Another system in its place would pass for the one that was asked for.
        wrong(key, asked)
        st.selectbox(
            label, list(names), None, key=f"{key} instead", format_func=names.__getitem__,
            on_change=_instead, args=(key,), placeholder="Choose another one",
        )  # fmt: skip
        raise PageEndsError
    chosen = choose(label, list(names), key, default=default, name=names.__getitem__)
    return chosen, system_names([chosen])[chosen]


def _instead(key: str) -> None:
    st.query_params[key] = st.session_state[f"{key} instead"] or ""


def systems(
    label: str, key: str, most: int, *, default: Sequence[str] = (), **filters: Any
) -> dict[str, str]:
    """Labels by id of up to `most` chosen submissions; at first those of `default`."""
    names = _found(label, key, [*st.query_params.get_all(key), *default], **filters)
    chosen = several(label, list(names), key, default=default, name=names.__getitem__, most=most)
    return system_names(chosen)
