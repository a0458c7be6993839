"""Gains: a system over a baseline by language, and all systems of its base model."""

from __future__ import annotations

import charts
import choices
import method_rows
import pandas as pd
import pins
import streamlit as st
from names import TICKED, axis_names
from queries import Stamp, TaskVersion, ask, describe, one, stamp, submissions, unit_labels
from specs import show
from widgets import ROWS, choose, figures, footer, page_number, paged, part, short, unreadable

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
SELECT u.unit, l.name AS language_name, l.script, l.family, l.resource, u.setting, u.ranked
FROM units u JOIN languages l ON l.code = u.language
WHERE u.task = $task AND u.version = $version ORDER BY u.rowid
"""
_STORED = """
SELECT unit, aligned, gain AS value, low, high, p, p_holm, significant, n
FROM significance
WHERE submission = $system AND baseline = $baseline AND task = $task AND version = $version
"""
_MEANS = """
SELECT split, gain AS value, low, high, len(units) AS units FROM gain_means
WHERE submission = $system AND baseline = $baseline AND task = $task AND version = $version
"""
# The systems of one base model that have stored gains, ordered by the gain in the ranking mean.
_SYSTEMS = """
SELECT s.id, s.name, count(*) OVER () AS total
FROM submissions s
JOIN gain_means g ON g.submission = s.id
JOIN runs r ON r.number = s.number AND r.task = g.task
WHERE g.task = $task AND g.version = $version AND g.split = $split AND g.is_default
    AND r.superseded_by IS NULL AND s.base_model = $base
ORDER BY g.gain DESC, s.id LIMIT $most OFFSET $skip
"""
_HEAT = """
SELECT submission, baseline, unit, aligned, gain, low, high, p_holm, significant
FROM significance
WHERE task = $task AND version = $version AND is_default AND ranked AND submission = ANY($ids)
"""


@st.cache_data(max_entries=200, show_spinner="Testing the gains …")
def tested(
    system: str, baseline: str, task: str, built: Stamp
) -> tuple[list[dict[str, object]], list[dict[str, object]], list[str]]:
    """The gains over a baseline without stored tests: by unit, by split, and notes.

    They are computed from the counts. `built` is part of the cache's key, because another build
    may have other submissions.
    """
    found, notes = paired_gains(submissions(), system, baseline, task)
    means = [
        {
            "split": mean.split,
            "value": mean.gain.value,
            "low": mean.gain.low,
            "high": mean.gain.high,
            "units": len(mean.units),
        }
        for mean in found.means
    ]
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
    return rows, means, notes


def gains(
    system: str, baseline: str, task: TaskVersion
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """A row for each unit and one for each split, with tests stored or computed now, and notes."""
    given = {"system": system, "baseline": baseline, **task.bound}
    rows, means = ask(_STORED, given), ask(_MEANS, given)
    notes: list[str] = []
    if rows.empty:
        try:
            found, split_means, notes = tested(system, baseline, task.name, stamp())
        except (InputError, OSError) as error:
            what = "These two systems cannot be compared"
            unreadable(what, error, "Choose another baseline")
        rows, means = pd.DataFrame(found), pd.DataFrame(split_means)
    rows = rows.merge(ask(_LANGUAGES, task.bound), on="unit")
    describe(rows)
    rows["mark"] = rows["significant"].map({True: "*", False: ""})
    return rows, means, notes


def headline(rows: pd.DataFrame, means: pd.DataFrame) -> None:
    """Show the mean gain of each split, and how many ranked languages gain and lose."""
    splits = means.set_index("split").to_dict("index") if len(means) else {}
    shown = [
        (
            f"Mean gain, {split}",
            f"{found['value']:+.1f}",
            f"{found['low']:+.1f} to {found['high']:+.1f}, {found['units']} units",
        )
        for split in ("transfer", "aligned", "supervised")
        if (found := splits.get(split))
    ]
    if not {"transfer", "supervised"} & set(splits) and (found := splits.get("all")):
        interval = f"{found['low']:+.1f} to {found['high']:+.1f}, {found['units']} units"
        shown.insert(0, ("Mean gain", f"{found['value']:+.1f}", interval))
    ranked = rows[rows["ranked"]]
    for label, chosen in (
        ("Languages that gain", ranked["value"] > 0),
        ("Languages that lose", ranked["value"] < 0),
    ):
        sure = int((chosen & ranked["significant"]).sum())
        shown.append((label, f"{int(chosen.sum())} of {len(ranked)}", f"{sure} significant"))
    figures(*shown)


@part
def by_language(
    task: TaskVersion, metric: str, rows: pd.DataFrame, means: pd.DataFrame, names: tuple[str, str]
) -> None:
    """Show the gains of a system by language; `names` are its own and its baseline's."""
    left, right = st.columns([4, 1])
    with left:
        st.text(f"{names[0]}\nagainst {names[1]}")
        headline(rows, means)
    with right:
        colour = choose("Colour by", list(COLOURS), "colour", name=COLOURS.__getitem__)
    shown = rows.assign(shown=charts.few(rows[colour]))
    caption = (
        f"{task}: gain in {metric}, with the 95 % interval of a paired bootstrap over items; "
        "* p < 0.05 after Holm's correction over the languages shown."
    )
    if not rows["ranked"].all():
        caption += " Languages beyond the ranked set are in no count and in no mean."
    chart = charts.gains(shown, "gain", COLOURS[colour])
    show(chart, caption)
    table = rows.drop(columns=["label", "mark"])
    title = " against ".join(names)
    footer(f"gains-{task.name}-v{task.version}", caption, table, chart, title)


def side_by_side(task: TaskVersion) -> None:
    """Show the pinned methods together, by language, each over its own baseline."""
    names, metric = pins.pinned(), method_rows.primary(task)
    rows = [
        {**cell, "method": names[row.method], "over": group.note}
        for group in method_rows.groups(task, metric)
        for row in group.rows
        if row.method in names
        for cell in row.cells
    ]
    frame = pd.DataFrame(rows)
    if frame.empty or frame["method"].nunique() < 2:
        return
    st.header("Pinned methods side by side")
    frame = frame.rename(columns={"gain": "value", "language": "language_name"})
    frame["label"] = unit_labels(frame)
    caption = (
        f"{task}: gain in {metric} of each pinned method over its own baseline, by language, with "
        "95 % intervals; the languages are ordered by the gain of the first method."
    )
    chart = charts.side_by_side(frame, list(names.values()), f"gain in {metric}")
    show(chart, caption)
    footer(f"gains-pinned-{task.name}-v{task.version}", caption, frame.drop(columns="label"), chart)


@part
def heat(task: TaskVersion, base: str) -> None:
    """Show the systems of a base model by ranked language, each over its default baseline."""
    given = {**task.bound, "base": base, "split": task.ranked_by}
    systems = paged(lambda page: ask(_SYSTEMS, {**given, "most": ROWS, "skip": ROWS * (page - 1)}))
    if systems.empty:
        return
    st.header("All systems of this base model")
    page_number(int(systems["total"].iloc[0]))
    names = axis_names(systems["id"])
    frame = ask(_HEAT, {**task.bound, "ids": list(names)})
    units = ask(_LANGUAGES, task.bound)
    frame = frame.merge(units[["unit", "language_name"]], on="unit")
    frame["label"] = unit_labels(frame)
    frame["system"] = frame["submission"].map(names)
    order = [unit for unit in units["unit"] if unit in set(frame["unit"])]
    caption = (
        f"{task}: gain of each system over its default baseline in the ranked languages, the best "
        "mean gain first. Blue: a gain; vermilion: a loss; * p < 0.05 after Holm's correction. "
        f"{TICKED}"
    )
    chart = charts.heat(frame, list(names.values()), order)
    show(chart, caption)
    rows = frame.drop(columns=["label"])
    footer(f"gains-systems-{task.name}-v{task.version}", caption, rows, chart)


task = choices.task()
left, right = st.columns(2)
with left:
    first = next(iter(pins.systems(task)), None)
    system, name = choices.system("System", default=first, **task.bound)
facts = one(
    "SELECT s.base_model, b.baseline FROM submissions s "
    "LEFT JOIN baselines b ON b.submission = s.id AND b.task = $task AND b.version = $version "
    "AND b.is_default WHERE s.id = $id",
    {"id": system, **task.bound},
)
assert facts is not None  # the select box offers only what the database has
with right:
    baseline, baseline_name = choices.system(
        "Baseline",
        "baseline",
        default=facts["baseline"],
        **task.bound,
        base=facts["base_model"],
        without=system,
        empty="There is nothing to compare with: no other submission of this base model has "
        f"{task}. Submit the bare model as well:",
    )
rows, means, notes = gains(system, baseline, task)
by_language(task, method_rows.primary(task), rows, means, (name, baseline_name))
for note in notes:
    st.text(short(note, 400))
side_by_side(task)
heat(task, facts["base_model"])
