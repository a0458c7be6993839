"""Families: the mean gain of each method in each language family, or script."""

from __future__ import annotations

import charts
import choices
import method_rows
import pandas as pd
import pins
import streamlit as st
from names import TICKED, distinct, ticked
from rows import Row
from specs import show
from widgets import SUBMIT, choose, footer, nothing

MOST = 40  # methods of a chart


def means(rows: list[Row], by: str) -> pd.DataFrame:
    """The mean gain of each row in each family or script, over the languages that it has."""
    names = distinct({row.id: {**row.parts, "items": f"{row.items} items"} for row in rows})
    names = {row.id: ticked(names[row.id], row.badges[0][0]) for row in rows}
    cells = pd.DataFrame([{"system": names[row.id], **cell} for row in rows for cell in row.cells])
    grouped = cells.groupby(["system", by], sort=False)
    frame = grouped.agg(gain=("gain", "mean"), languages=("unit", "nunique")).reset_index()
    frame["unit"] = [f"{one} ({n})" for one, n in zip(frame[by], frame["languages"], strict=True)]
    return frame


task = choices.task()
metric = method_rows.primary(task)
found = [
    (group, row)
    for group in method_rows.groups(task, metric)
    for row in group.rows
    if row.id and row.cells
]
if not found:
    nothing("No method of this task has a baseline yet, so there is no gain to show.", SUBMIT)
bases = {row.base: row.parts["base"] for _, row in found}
left, right = st.columns([3, 1])
with left:
    base = choose("Base model", list(bases), "base", name=bases.__getitem__)
with right:
    by = choose("By", ["family", "script"], "by")
pinned = pins.pinned()
rows = [row for _, row in found if row.base == base or row.method in pinned]
rows.sort(key=lambda row: row.method not in pinned)
frame = means(rows[:MOST], by)
sizes = frame.groupby("unit")["languages"].max().sort_values(ascending=False)
order = list(dict.fromkeys(frame["system"]))
chart = charts.heat(
    frame.assign(significant=False, p_holm=None, label=frame["unit"]), order, list(sizes.index)
)
caption = (
    f"{task}: mean gain in {metric} over the languages of each {by}, of each method over its own "
    "baseline; in brackets the number of languages. Where that is one, the mean is one language. "
    f"{TICKED}"
)
show(chart, caption)
footer(f"families-{task.name}-v{task.version}-{by}", caption, frame.drop(columns="unit"), chart)
