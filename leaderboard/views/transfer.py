"""Transfer: what the gain of a system consists of, and how far scores carry over."""

from __future__ import annotations

from typing import Any

import charts
import choices
import pins
import streamlit as st
from names import system_names
from queries import TEXT, TaskVersion, ask, one, unit_labels
from specs import show
from widgets import ROWS, SUBMIT, figures, footer, nothing, page_number, paged, part

PARTS = {
    "content": "answers of both are well-formed",
    "format": "of one of the two",
    "neither": "of neither",
}
_OPENING = """
SELECT g.submission FROM transfer_measure_means g
JOIN submissions s ON s.id = g.submission
WHERE g.task = $task AND g.version = $version AND g.split = $split AND g.is_default
    AND s.superseded_by IS NULL
ORDER BY g.baseline_kind = 'sft' DESC, len(s.alignment_languages) > 0 DESC, s.created DESC, s.id
LIMIT 1
"""
_BASELINE = """
SELECT baseline, kind FROM baselines
WHERE submission = $system AND task = $task AND version = $version AND is_default
"""
_UNITS = """
SELECT unit, language_name, setting, aligned, ranked, measure, value, baseline_value, difference,
    low, high, p_holm, significant, n
FROM transfer_measures
WHERE submission = $system AND task = $task AND version = $version AND is_default
ORDER BY measure, unit
"""
_MEANS = """
SELECT measure, value, baseline_value, difference, low, high FROM transfer_measure_means
WHERE submission = $system AND task = $task AND version = $version AND is_default
    AND split = $split
"""
_GAP = """
SELECT value, low, high FROM gaps_closed
WHERE submission = $system AND task = $task AND version = $version AND split = $split
"""
# A row a system: its measures in the mean that ranks the task.
_SYSTEMS = """
SELECT g.submission, any_value(g.baseline_kind) AS over, any_value(m.gain) AS gain,
    any_value(m.low) AS low, any_value(m.high) AS high,
    max(g.value) FILTER (g.measure = 'content') AS content,
    max(g.value) FILTER (g.measure = 'format') AS format,
    max(g.value) FILTER (g.measure = 'neither') AS neither,
    max(g.value) FILTER (g.measure = 'relative_transfer') AS relative_transfer,
    max(g.baseline_value) FILTER (g.measure = 'relative_transfer') AS relative_transfer_baseline,
    max(g.value) FILTER (g.measure = 'consistency') AS consistency,
    max(g.baseline_value) FILTER (g.measure = 'consistency') AS consistency_baseline,
    (SELECT max(c.value) FROM gaps_closed c WHERE c.submission = g.submission
        AND c.task = $task AND c.version = $version AND c.split = $split) AS gap_closed,
    count(*) OVER () AS total
FROM transfer_measure_means g
JOIN submissions s ON s.id = g.submission
JOIN gain_means m ON m.submission = g.submission AND m.task = g.task AND m.version = g.version
    AND m.split = g.split AND m.baseline = g.baseline AND m.is_default
WHERE g.task = $task AND g.version = $version AND g.split = $split AND g.is_default
    AND s.superseded_by IS NULL
GROUP BY g.submission
ORDER BY gain DESC, g.submission LIMIT $most OFFSET $skip
"""


def headline(given: dict[str, Any]) -> None:
    """Show the means of the ranking split, each beside the baseline's or with its interval."""
    found = {row["measure"]: row for row in ask(_MEANS, given).to_dict("records")}
    shown = []
    for measure, label in (("content", "Content"), ("format", "Format"), ("neither", "Neither")):
        if row := found.get(measure):
            interval = f"95 %: {row['low']:+.1f} to {row['high']:+.1f}"
            shown.append((label, f"{row['value']:+.1f}", interval))
    for measure, label in (
        ("relative_transfer", "Relative transfer"),
        ("consistency", "Consistency"),
    ):
        if row := found.get(measure):
            remark = f"baseline {row['baseline_value']:.1f}; 95 % of the difference: "
            remark += f"{row['low']:+.1f} to {row['high']:+.1f}"
            shown.append((label, f"{row['value']:.1f} %", remark))
    if gap := one(_GAP, given):
        bounded = gap["low"] is not None
        remark = f"95 %: {gap['low']:.0f} to {gap['high']:.0f}" if bounded else "no bounds"
        shown.append(("Gap to the oracle closed", f"{gap['value']:.0f} %", remark))
    figures(*shown)


def of_one(task: TaskVersion, given: dict[str, Any], name: str) -> None:
    """Show the measures of a system by language."""
    rows = ask(_UNITS, given)
    rows["label"] = unit_labels(rows)
    drawn = rows[rows["measure"].isin(PARTS) & rows["ranked"]].copy()
    drawn["measure"] = drawn["measure"].map(lambda part: f"{part}: {PARTS[part]}")
    caption = (
        f"{task}: the parts of the gain by language, in points; they add up to the gain. What "
        "comes from form cannot be more than the part of items where one answer is ill-formed."
    )
    chart = None
    if len(drawn):
        names = [f"{part}: {text}" for part, text in PARTS.items()]
        chart = charts.parts(drawn, names, "points of the gain")
        show(chart, caption)
    else:
        caption = f"{task}: relative transfer by language, in per cent of the supervised mean."
        st.dataframe(rows[["language_name", "measure", "value", "baseline_value"]], hide_index=True)
    table = rows.drop(columns=["label"])
    footer(f"transfer-{task.name}-v{task.version}", caption, table, chart, name)


@part
def of_all(task: TaskVersion) -> None:
    """Show a row a system."""
    st.header("All systems")
    given = {**task.bound, "split": task.ranked_by}
    frame = paged(lambda page: ask(_SYSTEMS, {**given, "most": ROWS, "skip": ROWS * (page - 1)}))
    page_number(int(frame["total"].iloc[0]))
    frame = frame.drop(columns="total")
    names = system_names(frame["submission"])
    frame.insert(0, "system", frame["submission"].map(names))
    shown = frame.drop(columns="submission").dropna(axis="columns", how="all")
    numbers = {name: st.column_config.NumberColumn(format="%.1f") for name in shown.columns[2:]}
    st.dataframe(shown, hide_index=True, column_config=numbers)
    caption = (
        f"{task}: means over the {task.ranked_by} languages, each system over its default "
        "baseline. Relative transfer rises also where the supervised score falls: read it beside "
        "the gain. Consistency is over the items that both have right in English."
    )
    footer(f"transfer-systems-{task.name}-v{task.version}", caption, frame)


task = choices.task(TEXT)
found = one(_OPENING, {**task.bound, "split": task.ranked_by})
if found is None:
    nothing(
        "No system of this task has a baseline yet. Submit the bare model or the SFT as well, "
        "evaluated on the same items:",
        SUBMIT,
    )
pinned = next(iter(pins.systems(task)), None)
system, name = choices.system("System", default=pinned or str(found["submission"]), **task.bound)
given = {"system": system, **task.bound}
baseline = one(_BASELINE, given)
if baseline is None:
    st.info("This system has no baseline, so it has no gain to break down.")
else:
    st.text(f"{name}\nagainst {system_names([baseline['baseline']])[baseline['baseline']]}")
    headline({**given, "split": task.ranked_by})
    of_one(task, given, name)
of_all(task)
