"""Gains: a system against a baseline, language by language, and all systems of its base model."""

from __future__ import annotations

import charts
import choices
import pandas as pd
import streamlit as st
from queries import Version, ask, describe, one, submissions, unit_labels, version
from widgets import ROWS, choose, figures, footer, nothing, page_number, short

from xlt_bench.errors import InputError
from xlt_bench.metrics.paired import ALPHA
from xlt_bench.store.on_demand import paired_gains

COLOURS = {
    "group": "setting",
    "script": "script",
    "family": "language family",
    "resource": "resource level",
}
_LANGUAGES = """
SELECT u.unit, l.name AS language_name, l.script, l.family, l.resource, u.setting
FROM units u JOIN languages l ON l.code = u.language WHERE u.task = $task
"""
_STORED = """
SELECT unit, aligned, gain AS value, low, high, p, p_holm, significant, n
FROM significance WHERE submission = $system AND baseline = $baseline AND task = $task
"""
# All systems of one base model with their stored gains, by the gain that the ranking is about.
_SYSTEMS = """
SELECT s.id, s.name, count(*) OVER () AS total
FROM submissions s JOIN gain_means g ON g.submission = s.id
WHERE g.task = $task AND g.split = $split AND s.superseded_by IS NULL AND s.base_model = $base
ORDER BY g.gain DESC, s.id LIMIT $most OFFSET $skip
"""
_HEAT = """
SELECT submission, baseline, unit, aligned, gain, low, high, p_holm, significant
FROM significance WHERE task = $task AND submission = ANY($ids)
"""


@st.cache_data(max_entries=200, show_spinner="The gains are tested …")
def tested(
    system: str, baseline: str, task: str, built: Version
) -> tuple[list[dict[str, object]], list[str]]:
    """The gains over a baseline that the database has no test against, from the counts.

    `built` is a part of the cache's key: another build may have other submissions.
    """
    found, notes = paired_gains(submissions(), system, baseline, task)
    rows = [
        {
            "unit": row.unit,
            "aligned": row.aligned,
            "value": row.gain.value,
            "low": row.gain.low,
            "high": row.gain.high,
            "p": row.gain.p,
            "p_holm": row.p_holm,
            "significant": row.p_holm < ALPHA,
            "n": row.n,
        }
        for row in found.units
    ]
    return rows, notes


def gains(system: str, baseline: str, task: str) -> tuple[pd.DataFrame, list[str]]:
    """A row a unit: the stored test, else the test now."""
    given = {"system": system, "baseline": baseline, "task": task}
    rows = ask(_STORED, given)
    notes: list[str] = []
    if rows.empty:
        try:
            found, notes = tested(system, baseline, task, version())
        except (InputError, OSError) as error:
            st.info("These two cannot be compared here:")
            st.text(short(str(error), 400))
            nothing(
                "Choose another baseline, or give the folder of submissions: serve --submissions."
            )
        rows = pd.DataFrame(found)
    rows = rows.merge(ask(_LANGUAGES, {"task": task}), on="unit")
    describe(rows)
    rows["mark"] = rows["significant"].map({True: "*", False: ""})
    return rows, notes


def counts(rows: pd.DataFrame) -> None:
    """How many languages gain and lose, and for how many that is more than chance."""
    shown = []
    for label, chosen in (
        ("Languages that gain", rows["value"] > 0),
        ("Languages that lose", rows["value"] < 0),
    ):
        sure = int((chosen & rows["significant"]).sum())
        shown.append((label, int(chosen.sum()), f"{sure} significant"))
    figures(*shown, ("Mean gain", f"{rows['value'].mean():+.1f}", f"{len(rows)} units"))


def heat(task: str, base: str) -> None:
    """Systems of a base model by languages, each against its default baseline."""
    given = {"task": task, "base": base, "split": "all" if task == "flores" else "transfer"}
    total = ask(_SYSTEMS, {**given, "most": 1, "skip": 0})
    if total.empty:
        return
    st.subheader("All systems of this base model")
    page = page_number(int(total["total"].iloc[0]))
    systems = ask(_SYSTEMS, {**given, "most": ROWS, "skip": (page - 1) * ROWS})
    names = choices.labels(systems["id"], systems["name"])
    frame = ask(_HEAT, {"task": task, "ids": list(names)})
    units = ask(_LANGUAGES, {"task": task})
    frame = frame.merge(units[["unit", "language_name"]], on="unit")
    frame["label"] = unit_labels(frame)
    frame["system"] = frame["submission"].map(names)
    order = [unit for unit in units["unit"] if unit in set(frame["unit"])]
    caption = (
        "Gain of each system over its own default baseline: blue gains, vermilion loses, * p < "
        "0.05 after Holm's correction. Best mean gain first."
    )
    st.altair_chart(charts.heat(frame, list(names.values()), order), alt=caption)
    footer(f"gains-systems-{task}", caption, frame.drop(columns=["label"]))


task = choices.task()
left, middle, right = st.columns([2, 2, 1])
with left:
    system, name = choices.system("System", task=task)
facts = one(
    "SELECT s.base_model, b.id AS baseline FROM submissions s "
    "LEFT JOIN submissions b ON b.number = s.baseline WHERE s.id = $id",
    {"id": system},
)
assert facts is not None  # a picker offers what is there
with middle:
    baseline, baseline_name = choices.system(
        "Baseline",
        "baseline",
        default=facts["baseline"],
        task=task,
        base=facts["base_model"],
        without=system,
        empty="There is nothing to compare with: no other submission of this base model has this "
        "task. Submit the bare model as well:",
    )
with right:
    colour = choose("Colour by", list(COLOURS), "colour", name=COLOURS.__getitem__)
rows, notes = gains(system, baseline, task)
metric = ask("SELECT metric FROM metrics WHERE task = $task AND is_primary", {"task": task})
st.text(f"{name}\nagainst {baseline_name}")
counts(rows)
rows["shown"] = charts.few(rows[colour])
caption = (
    f"Gain in {metric['metric'].iloc[0]}, with the 95 % interval of a paired bootstrap over items; "
    "* p < 0.05 after Holm's correction over the languages shown."
)
st.altair_chart(charts.gains(rows, "gain", COLOURS[colour]), alt=caption)
for note in notes:
    st.text(short(note, 400))
footer(f"gains-{task}", caption, rows.drop(columns=["label", "mark", "shown"]))
heat(task, facts["base_model"])
