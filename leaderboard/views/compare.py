"""Compare: two systems item by item, with source, reference and answers side by side.

Pinned methods beyond the two stand beside them, up to four in total.
"""

from __future__ import annotations

from collections.abc import Sequence

import bidi
import choices
import pandas as pd
import pins
import streamlit as st
from names import system_names
from queries import TEXT, Stamp, TaskVersion, ask, one, stamp, submissions
from widgets import PINNED, choose, footer, nothing, page_number, part, short, unreadable

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
OF_SEVERAL = {
    **VERDICTS,
    "system": "the first is better than all others",
    "baseline": "the second is better than all others",
    "right": "all are right",
    "wrong": "all are wrong",
}
# The columns of each system.
ANSWERS = ("hypothesis", "baseline", "answer_3", "answer_4")
VALUES = ("value", "baseline_value", "value_3", "value_4")
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


def joined(systems: Sequence[str], task: str, unit: str) -> tuple[pd.DataFrame, list[str]]:
    """The items that the first two systems answered, with the answers of the others beside.

    Returns:
        The items, and the systems: those of the others that cannot be read are left out.
    """
    first, second, *others = systems
    frame, kept = table(first, second, task, unit, stamp()), [first, second]
    for other in others:
        try:
            more = table(first, other, task, unit, stamp())
        except (InputError, OSError):
            continue
        columns = {"baseline": ANSWERS[len(kept)], "baseline_value": VALUES[len(kept)]}
        frame = frame.merge(more[["id", *columns]].rename(columns=columns), on="id")
        kept.append(other)
    return frame, kept


def chosen(frame: pd.DataFrame, verdict: str, systems: int) -> pd.DataFrame:
    """The items that have a verdict."""
    answers_, values = frame[[*ANSWERS[:systems]]], frame[[*VALUES[:systems]]]
    first, second = values["value"], values["baseline_value"]
    masks = {
        "differ": answers_.ne(frame["hypothesis"], axis="index").any(axis="columns"),
        "system": first > values.drop(columns="value").max(axis="columns"),
        "baseline": second > values.drop(columns="baseline_value").max(axis="columns"),
        "right": values.min(axis="columns") >= 100,
        "wrong": values.max(axis="columns") < 100,
        "every": first == first,
    }
    return frame[masks[verdict]]


def item(row: pd.Series, names: Sequence[str]) -> None:
    """Show one item: source and reference, and the answers with their scores below."""
    parts = zip(names, VALUES, ANSWERS, strict=False)
    cells = (
        [("Source", row["source"]), ("Reference", row["reference"])],
        [(f"{short(name, 120)} ({row[value]:.0f})", row[answer]) for name, value, answer in parts],
    )
    with st.container(border=True, key=f"item-{row['id']}"):
        for line in cells:
            for column, (title, text) in zip(st.columns(len(line)), line, strict=True):
                # A title may contain a submitter's name, so it must not be Markdown.
                column.text(title)
                column.html(bidi.as_html(short_answer(text)))


def short_answer(text: object) -> str:
    """A text, cut to `LONGEST` characters."""
    if not isinstance(text, str):
        return "(the test set is missing)"
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


@part
def items(task: TaskVersion, pair: list[str], pinned: dict[str, str]) -> None:
    """Show the items of a language that two systems answered, with those of pinned methods."""
    units = ask(_UNITS, {"id": pair[0], **task.bound})
    titles = {u: f"{n} ({u})" for u, n in zip(units["unit"], units["name"], strict=True)}
    left, right = st.columns(2)
    with left:
        unit = choose("Language", list(titles), "unit", name=titles.__getitem__)
    beside = [pin for pin in pinned if pin not in pair][: PINNED - 2]
    verdicts = OF_SEVERAL if beside else VERDICTS
    with right:
        verdict = choose("Show where", list(verdicts), "verdict", name=verdicts.__getitem__)
    try:
        frame, systems = joined([*pair, *beside], task.name, unit)
    except (InputError, OSError) as error:
        remedy = "Choose another language or system"
        unreadable("The answers of these two systems cannot be read", error, remedy)
    for pin in beside:
        if pin not in systems:
            st.text(f"{pinned[pin]}: no answers to these items")
    rows = chosen(frame, verdict, len(systems))
    if rows.empty:
        nothing(f"None of the {len(frame)} items matches. Choose another filter or language.")
    if rows["source"].isna().all():
        st.info("Sources and references are in the test sets, which are missing. Download them:")
        st.code("xlt-bench data fetch", language=None)
    page = page_number(len(rows), ROWS)
    named = system_names(systems)
    headings = [named[one] for one in systems]
    for _, row in rows.iloc[(page - 1) * ROWS : page * ROWS].iterrows():
        item(row, headings)
    footer(
        f"compare-{task.name}-v{task.version}-{unit}",
        f"{task}: {len(rows)} of {len(frame)} items that "
        f"{'all' if len(systems) > 2 else 'both'} answered. In brackets: the item's "
        f"{task.item_metric}, 0 to 100. The CSV and parquet files hold all {len(rows)} items, "
        "uncut.",
        rows,
    )


task = choices.task(TEXT)
pinned = pins.systems(task)
first, second = st.columns(2)
with first:
    opening = next(iter(pinned), None)
    system = choices.system("First system", default=opening, **task.bound)[0]
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
items(task, [system, other], pinned)
