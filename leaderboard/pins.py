"""Pinned methods, which every page compares: up to four, in the URL."""

from __future__ import annotations

import streamlit as st
from names import SHORT, Parts, badged, bases, distinct, method_parts
from queries import TaskVersion, records
from widgets import PINNED, carry, remember, wrong

_METHODS = """
SELECT m.*, max(s.name) AS name, bool_and(s.rank_class = 'verified') AS verified
FROM methods m JOIN submissions s USING (method)
WHERE left(m.method, 12) = ANY($pins::VARCHAR[]) GROUP BY ALL
"""
_SYSTEMS = """
SELECT y.submission FROM method_systems y
WHERE left(y.method, 12) = $pin AND y.task = $task AND y.version = $version AND y.current
ORDER BY y.item_limit IS NOT NULL, y.seed, y.submission LIMIT 1
"""


def pinned() -> dict[str, str]:
    """Names of the pinned methods by id, in the order in which they were pinned.

    The page says so if the URL has a method that is not here.
    """
    asked = [one for one in dict.fromkeys(st.query_params.get_all("pin")) if one]
    if not asked:
        return {}
    known = bases()
    rows = {str(row["method"])[:SHORT]: row for row in records(_METHODS, {"pins": asked})}
    found: dict[str, Parts] = {
        pin: {"base": known[row["base_model"]].name, **method_parts(row)}
        for pin, row in rows.items()
    }
    for one in asked:
        if one not in found:
            wrong("pin", one)
    kept = [one for one in asked if one in found]
    if not kept:
        return {}
    remember("pin", kept)
    names = distinct({one: found[one] for one in kept})
    # A method is verified if all of its systems are.
    badges = {one: "verified" if rows[one]["verified"] else "self-reported" for one in kept}
    return {one: badged(name, badges[one]) for one, name in names.items()}


def toggle(pin: str) -> None:
    """Pin a method, or take its pin away. A fifth pin replaces the first one."""
    pins = [one for one in dict.fromkeys(st.query_params.get_all("pin")) if one]
    pins = [one for one in pins if one != pin] if pin in pins else [*pins, pin][-PINNED:]
    carry("pin", pins or "")


def bar() -> None:
    """Show the pinned methods, each with a button that takes its pin away."""
    names = pinned()
    if not names:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="pins"):
        st.text("Pinned:", width="content")
        for pin, name in names.items():
            # The label is Markdown, so a name must not be in it: it is the text beside.
            st.text(name, width="content")
            st.button(
                "Unpin", key=f"unpin {pin}", type="tertiary", icon=":material/close:",
                on_click=toggle, args=(pin,),
            )  # fmt: skip


def systems(task: TaskVersion) -> dict[str, str]:
    """A submission of each pinned method in a task version, by the name of the method."""
    found = {}
    for pin, name in pinned().items():
        for row in records(_SYSTEMS, {"pin": pin, **task.bound}):
            found[row["submission"]] = name
    return found
