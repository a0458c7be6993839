"""Submission: its record, the command that repeats it, and its files."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import choices
import pandas as pd
import pins
import queries
import streamlit as st
from queries import TEXT, ask, one, submissions
from widgets import choose, footer, part, short

from xlt_bench.errors import InputError
from xlt_bench.submissions.safe_read import read_model
from xlt_bench.submissions.schema import SUBMISSION, Submission

_FACTS = """
SELECT s.* EXCLUDE (number, bare, superseded_by),
    (SELECT list(DISTINCT baseline ORDER BY baseline) FROM baselines
        WHERE submission = s.id AND is_default) AS compared_with,
    n.id AS superseded_by, record
FROM submissions s
JOIN records USING (number)
LEFT JOIN submissions n ON n.number = s.superseded_by
WHERE s.id = $id
"""
_TASKS = """
SELECT r.task, t.title, t.answers, r.version, r.complete, array_to_string(r.lacks, ' ') AS lacks
FROM runs r JOIN submissions s USING (number) JOIN tasks t USING (task)
WHERE s.id = $id ORDER BY t.place
"""
_MEANS = """
SELECT task, version, split, metric, value, low, high, place, place_all, len(units) AS units,
    array_to_string(missing, ' ') AS missing
FROM split_means WHERE submission = $id ORDER BY ALL
"""
_PARTS = ("model", "adapter", "versions", "hardware", "seconds", "batch_sizes", "signatures")


def facts(row: dict[str, Any]) -> pd.DataFrame:
    """One line for each fact that is known."""
    left_out = ("record", "command", "notes")
    told = [(key, as_text(value)) for key, value in row.items() if key not in left_out]
    lines = [(key.replace("_", " "), value) for key, value in told]
    return pd.DataFrame([line for line in lines if line[1]], columns=["what", "value"])


def beside(pinned: dict[str, str]) -> pd.DataFrame:
    """The facts of several submissions, a column each, where these differ."""
    columns = {
        f"{name} · {one_[-6:]}": facts(one(_FACTS, {"id": one_}) or {}).set_index("what")["value"]
        for one_, name in pinned.items()
    }
    table = pd.DataFrame(columns).fillna("")
    return table[table.nunique(axis="columns") > 1].reset_index(names="what")


def as_text(value: Any) -> str:
    """A value of a record as text, empty where it is not known."""
    if value is None or value is pd.NaT or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {as_text(part)}" for key, part in value.items())
    if hasattr(value, "__iter__") and not isinstance(value, str):
        return ", ".join(as_text(part) for part in value)
    return str(value)


def record(given: dict[str, Any]) -> None:
    """Show the rest of the record, part by part."""
    st.header("Record")
    for name in _PARTS:
        values = given.get(name)
        if isinstance(values, dict) and values:
            with st.expander(name):
                lines = [(key, as_text(value)) for key, value in values.items()]
                st.dataframe(pd.DataFrame(lines, columns=["what", "value"]), hide_index=True)
    with st.expander("the whole record, without its scores"):
        st.code(json.dumps(given, indent=1, ensure_ascii=False), language=None, wrap_lines=True)


@part
def files(folder: Path) -> None:
    """List the files of a submission, and offer one for download."""
    st.header("Files")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if not paths:
        st.info("The files are missing. Give the folder of submissions:")
        st.code("xlt-bench leaderboard serve --submissions DIR", language=None)
        return
    names = [path.relative_to(folder).as_posix() for path in paths]
    listed = pd.DataFrame({"file": names, "bytes": [path.stat().st_size for path in paths]})
    st.dataframe(listed, hide_index=True, alt="Files of the submission")
    with suppress(InputError):  # changed since the build
        if stored := read_model(folder / SUBMISSION, Submission).artifacts:
            size = sum(one.size for one in stored.values())
            st.caption(
                f"The answers, {len(stored)} files of {size:,} bytes, are in an artifact store."
            )
    chosen = choose("File", names, "file", default="record.json")
    st.download_button(
        "Download the file", (folder / chosen).read_bytes, Path(chosen).name, on_click="ignore"
    )


pinned = {one: text for task in queries.tasks() for one, text in pins.systems(task).items()}
chosen, name = choices.system("Submission", "system", default=next(iter(pinned), None))
row = one(_FACTS, {"id": chosen})
assert row is not None  # the select box offers only what the database has
st.text(name)
if row["name"] != name:
    st.text(f"Submitted as {short(row['name'], 400)}")
if row["superseded_by"]:
    st.info("A newer run of the same system supersedes this one:")
    st.text(row["superseded_by"])
if row["url"]:
    st.link_button("Its page", row["url"], icon=":material/open_in_new:")
if row["notes"]:
    st.text(row["notes"])
st.dataframe(
    facts({**row, "name": short(row["name"], 400)}), hide_index=True, height="content", alt="Facts"
)
if len(pinned) > 1:
    st.header("Pinned methods side by side")
    st.dataframe(beside(pinned), hide_index=True, height="content", alt="Facts of pinned methods")
st.header("The command that repeats it")
st.code(row["command"], language=None, wrap_lines=True)
st.header("Tasks and means")
tasks = ask(_TASKS, {"id": chosen})
listed = tasks.drop(columns=["task", "answers"]).rename(columns={"title": "task"})
st.dataframe(listed, hide_index=True, placeholder="", alt="Tasks")
means = ask(_MEANS, {"id": chosen})
rounded = {end: st.column_config.NumberColumn(format="%.1f") for end in ("value", "low", "high")}
st.dataframe(means, hide_index=True, placeholder="", column_config=rounded, alt="Means")
footer(
    f"means-{chosen}",
    "Unweighted means by split with 95 % intervals, by the version of each task; missing units are "
    'in no mean. The page Gains shows the gains over the submission in the row "compared with".',
    means,
)
with st.container(horizontal=True):
    for page, label, offered in (
        ("gains", "Its gains", tasks),
        ("compare", "Its answers", tasks[tasks["answers"] == TEXT]),
    ):
        if not offered.empty:
            first = offered.iloc[0]
            given = {"system": chosen, "task": first["task"], "version": str(first["version"])}
            icon = ":material/arrow_forward:"
            st.page_link(f"views/{page}.py", label=label, icon=icon, query_params=given)
record(json.loads(row["record"]))
files(submissions() / chosen)
