"""Compare: two systems item by item, with source, reference and both answers side by side."""

from __future__ import annotations

import bidi
import choices
import pandas as pd
import pins
import streamlit as st
from names import system_names
from queries import TEXT, Stamp, ask, one, stamp, submissions
from widgets import choose, footer, nothing, page_number, short, unreadable

from xlt_bench.errors import InputError
from xlt_bench.store.on_demand import answers

ROWS = 10
LONGEST = 2_000  # characters of an answer that the page shows; a download has them all
VERDICTS = {
    "differ": "the answers differ",
    "system": "the first is better",
    "baseline": "the second is better",
    "right": "both are right",
    "wrong": "both are wrong",
    "every": "every item",
}
_UNITS = """
SELECT DISTINCT u.unit, t.name
FROM unit_scores u JOIN submissions s USING (number)
JOIN units n USING (task, unit) JOIN languages t ON t.code = n.language
WHERE s.id = $id AND u.task = $task AND n.version = $version ORDER BY u.unit
"""
_BASELINE = """
SELECT baseline AS id FROM baselines
WHERE submission = $id AND task = $task AND version = $version AND is_default
"""


@st.cache_data(max_entries=20, ttl=60, show_spinner="Reading the answers …")
def table(system: str, baseline: str, task: str, unit: str, built: Stamp) -> pd.DataFrame:
    """Every item of a unit with both answers. Kept for a minute, as the files may change."""
    found = answers(submissions(), system, baseline, task, unit)
    return pd.DataFrame([vars(row) for row in found])


def chosen(frame: pd.DataFrame, verdict: str) -> pd.DataFrame:
    """The items that have a verdict."""
    ours, theirs = frame["value"], frame["baseline_value"]
    masks = {
        "differ": frame["hypothesis"] != frame["baseline"],
        "system": ours > theirs,
        "baseline": theirs > ours,
        "right": (ours >= 100) & (theirs >= 100),
        "wrong": (ours < 100) & (theirs < 100),
        "every": ours == ours,
    }
    return frame[masks[verdict]]


def item(row: pd.Series, names: tuple[str, str]) -> None:
    """Show one item: source and reference, and the two answers with their scores below."""
    scores = (f"{row['value']:.0f}", f"{row['baseline_value']:.0f}")
    cells = (
        ("Source", row["source"]),
        ("Reference", row["reference"]),
        (f"{short(names[0])} ({scores[0]})", row["hypothesis"]),
        (f"{short(names[1])} ({scores[1]})", row["baseline"]),
    )
    with st.container(border=True, key=f"item-{row['id']}"):
        for pair in (cells[:2], cells[2:]):
            for column, (title, text) in zip(st.columns(2), pair, strict=True):
                # A title may contain a submitter's name, so it must not be Markdown.
                column.text(title)
                column.html(bidi.as_html(short_answer(text)))


def short_answer(text: object) -> str:
    """A text, cut to `LONGEST` characters."""
    if not isinstance(text, str):
        return "(the test set is missing)"
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


task = choices.task(TEXT)
pinned = list(pins.systems(task))
first, second = st.columns(2)
with first:
    default = pinned[0] if pinned else None
    system = choices.system("First system", default=default, **task.bound)[0]
known = one(_BASELINE, {"id": system, **task.bound})
with second:
    usual = known["id"] if known else None
    other = choices.system(
        "Second system",
        "baseline",
        default=next((pin for pin in pinned if pin != system), usual),
        **task.bound,
        without=system,
        empty=f"There is only one submission of {task}. Submit another one to compare with:",
    )[0]
units = ask(_UNITS, {"id": system, **task.bound})
titles = {u: f"{n} ({u})" for u, n in zip(units["unit"], units["name"], strict=True)}
left, right = st.columns(2)
with left:
    unit = choose("Language", list(titles), "unit", name=titles.__getitem__)
with right:
    verdict = choose("Show where", list(VERDICTS), "verdict", name=VERDICTS.__getitem__)
try:
    frame = table(system, other, task.name, unit, stamp())
except (InputError, OSError) as error:
    remedy = "Choose another language or system"
    unreadable("The answers of these two systems cannot be read", error, remedy)
rows = chosen(frame, verdict)
if rows.empty:
    nothing(f"None of the {len(frame)} items matches. Choose another filter or language.")
if rows["source"].isna().all():
    st.info("Sources and references are in the test sets, which are missing. Download them:")
    st.code("xlt-bench data fetch", language=None)
page = page_number(len(rows), ROWS)
named = system_names([system, other], with_base=False)
headings = (named[system], named[other])
for _, row in rows.iloc[(page - 1) * ROWS : page * ROWS].iterrows():
    item(row, headings)
footer(
    f"compare-{task.name}-v{task.version}-{unit}",
    f"{task}: {len(rows)} of {len(frame)} items that both answered. In brackets: the item's "
    f"{task.item_metric}, 0 to 100. The CSV and parquet files hold all {len(rows)} items, uncut.",
    rows,
)
