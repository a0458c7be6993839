"""The database as the pages see it: read-only, opened again when it was rebuilt, rows by page."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import streamlit as st

from xlt_bench.errors import InputError
from xlt_bench.store.build import build, connect

TASKS = {
    "massive": "Slot filling (MASSIVE)",
    "wmt23": "Translation (WMT23)",
    "uner": "Named entities (UNER)",
    "flores": "Retrieval (FLORES-200)",
}
_BUILDING = threading.Lock()
# Pages are computed in threads of one process: many at once only get in each other's way.
TURNS = threading.Semaphore(2)
Version = tuple[str, int, int]


def database() -> Path:
    """The DuckDB file."""
    return Path(os.environ.get("XLT_BENCH_LEADERBOARD", "build/leaderboard.duckdb"))


def submissions() -> Path:
    """The folder that it is built from."""
    return Path(os.environ.get("XLT_BENCH_SUBMISSIONS", "submissions"))


def version() -> Version:
    """Which file this is: a build renames a new one into place."""
    found = database().stat()
    return str(database()), found.st_ino, found.st_mtime_ns


def ensure() -> None:
    """Build the database where there is none yet; what cannot be done is said in the page."""
    with _BUILDING:
        if database().is_file():
            return
        try:
            with st.spinner("The database is built from the submissions, once …"):
                built = build(submissions(), database())
        except (InputError, OSError) as error:
            st.info("There is no leaderboard yet, and none could be built:")
            st.text(str(error))
            st.code("xlt-bench leaderboard build --submissions DIR --db FILE", language=None)
            st.stop()
    if built.refused:
        st.warning(f"{len(built.refused)} submissions were left out; to see why:")
        st.code("xlt-bench leaderboard build", language=None)


@st.cache_resource(max_entries=1, show_spinner=False)
def _open(version: Version) -> duckdb.DuckDBPyConnection:
    return connect(database())


def ask(query: str, given: dict[str, Any] | None = None) -> pd.DataFrame:
    """The rows of a query over the views of store/views.sql; values are bound, never pasted."""
    frame: pd.DataFrame = _rows(query, given).to_pandas()
    return frame


def one(query: str, given: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """The first row of a query."""
    found: list[dict[str, Any]] = _rows(query, given).slice(0, 1).to_pylist()
    return found[0] if found else None


def _rows(query: str, given: dict[str, Any] | None) -> pa.Table:
    # A cursor of its own: pages of several visitors run at once.
    with _open(version()).cursor() as cursor:
        cursor.execute("USE leaderboard")
        return cursor.sql(query, params=given or {}).to_arrow_table()


def metrics(task: str) -> list[str]:
    """The metrics of a task that have scores, the one that ranks it first (and always)."""
    query = (
        "SELECT metric FROM metrics WHERE task = $task AND (is_primary OR metric IN "
        "(SELECT metric FROM mean_scores WHERE task = $task)) ORDER BY is_primary DESC, metric"
    )
    return ask(query, {"task": task})["metric"].tolist()


def like(words: str) -> str:
    """A pattern that finds the words themselves (ESCAPE '!')."""
    for special in "!%_":
        words = words.replace(special, "!" + special)
    return f"%{words}%"


def describe(frame: pd.DataFrame) -> None:
    """Give rows a unit their `label` and `group`, as the charts want them."""
    frame["label"] = unit_labels(frame)
    placed = zip(frame["setting"], frame["aligned"], strict=True)
    frame["group"] = [group(setting, aligned) for setting, aligned in placed]


def group(setting: str | None, aligned: bool) -> str:
    """Where a unit stands in a chart; alignment is the adapter's and goes before the setting."""
    return "aligned" if aligned else setting or "not aligned"


def unit_labels(frame: pd.DataFrame) -> list[str]:
    """`Swahili (sw)`, `German (en-de)`."""
    pairs = zip(frame["language_name"], frame["unit"], strict=True)
    return [f"{name} ({unit})" for name, unit in pairs]
