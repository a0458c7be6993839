"""Queries of the pages: a read-only connection, reopened after each build, and what pages share."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import charts
import duckdb
import pandas as pd
import pyarrow as pa
import streamlit as st

from xlt_bench.errors import InputError
from xlt_bench.store.build import build, connect, is_current, is_leaderboard

TEXT, NEIGHBOURS = "text", "neighbours"  # the kinds of answers, as in the table `tasks`
_BUILDING = threading.Lock()


class Turns:
    """Lets some threads run at once and the others wait; a thread may enter again."""

    def __init__(self, most: int) -> None:
        self._free = threading.Semaphore(most)
        self._own = threading.local()

    def __enter__(self) -> None:
        self._own.depth = getattr(self._own, "depth", 0) + 1
        if self._own.depth == 1:
            self._free.acquire()

    def __exit__(self, *error: object) -> None:
        self._own.depth -= 1
        if not self._own.depth:
            self._free.release()


# Pages run in threads of one process; more than two at once slow each other down.
TURNS = Turns(2)
Stamp = tuple[str, int, int]
_TASKS = """
SELECT task AS name, title, answers, item_metric, ranked_by, on_flores_dev, current_version,
    (SELECT list(DISTINCT version ORDER BY version DESC) FROM runs r WHERE r.task = t.task)
    AS versions
FROM tasks t ORDER BY place
"""


@dataclass(frozen=True)
class TaskVersion:
    """A version of a task, as the database has it.

    Attributes:
        name: The task's name in records and URLs.
        title: Its title for people.
        answers: `text` or `neighbours`.
        item_metric: The metric of single answers; None where answers are not text.
        ranked_by: The split whose mean gives places.
        on_flores_dev: Whether adapters trained on FLORES dev have seen its sentences.
        version: The version that a page shows.
        versions: The versions that have submissions, newest first.
    """

    name: str
    title: str
    answers: str
    item_metric: str | None
    ranked_by: str
    on_flores_dev: bool
    version: int
    versions: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"

    @property
    def bound(self) -> dict[str, Any]:
        """The values of `$task` and `$version` in a query."""
        return {"task": self.name, "version": self.version}


def database() -> Path:
    """The DuckDB file."""
    return Path(os.environ.get("XLT_BENCH_LEADERBOARD", "build/leaderboard.duckdb"))


def submissions() -> Path:
    """The folder that the database is built from."""
    return Path(os.environ.get("XLT_BENCH_SUBMISSIONS", "submissions"))


def stamp() -> Stamp:
    """Identifies the database file; it changes with every build, which renames a new file."""
    found = database().stat()
    return str(database()), found.st_ino, found.st_mtime_ns


def ensure() -> None:
    """Build the database if it is missing or has another schema.

    If that fails, the page shows the error and ends.
    """
    with _BUILDING:
        exists = database().is_file()
        if exists and _is_current(stamp()):
            return
        if exists and not is_leaderboard(database()):
            st.info("This file is not a leaderboard database; give another one with --db:")
            st.text(str(database()))
            st.stop()
        doing = "Building the database from the submissions …"
        if exists:
            doing = f"Another version of xlt-bench built this database. {doing}"
        try:
            with st.spinner(doing):
                built = build(submissions(), database())
        except (InputError, OSError) as error:
            st.info("The database could not be built:")
            st.text(str(error))
            st.code("xlt-bench leaderboard build --submissions DIR --db FILE", language=None)
            st.stop()
    if built.refused:
        st.warning(f"{len(built.refused)} submissions were left out. This command says why:")
        st.code("xlt-bench leaderboard build --submissions DIR --db FILE", language=None)


@st.cache_data(max_entries=1, show_spinner=False)
def _is_current(stamp: Stamp) -> bool:
    return is_current(database())


@st.cache_resource(max_entries=1, show_spinner=False)
def _open(stamp: Stamp) -> duckdb.DuckDBPyConnection:
    return connect(database())


def ask(query: str, given: dict[str, Any] | None = None) -> pd.DataFrame:
    """The rows of a query over the views of store/views.sql.

    Args:
        query: SQL with named parameters (`$task`). Never paste a value into it.
        given: The values of exactly these parameters.
    """
    frame: pd.DataFrame = _rows(query, given).to_pandas()
    return frame


def records(query: str, given: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The rows of a query as dicts, with None for NULL."""
    found: list[dict[str, Any]] = _rows(query, given).to_pylist()
    return found


def one(query: str, given: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """The first row of a query, None if there is none."""
    found: list[dict[str, Any]] = _rows(query, given).slice(0, 1).to_pylist()
    return found[0] if found else None


def _rows(query: str, given: dict[str, Any] | None) -> pa.Table:
    return _asked(stamp(), query, given or {})


@st.cache_resource(max_entries=500, show_spinner=False)
def _asked(stamp: Stamp, query: str, given: dict[str, Any]) -> pa.Table:
    """The answer of a query, asked once; Arrow tables cannot be changed, so pages share them."""
    # Each query gets its own cursor, since pages of several visitors run at once.
    with _open(stamp).cursor() as cursor:
        cursor.execute("USE leaderboard")
        return cursor.sql(query, params=given).to_arrow_table()


def tasks(answers: str | None = None) -> list[TaskVersion]:
    """The tasks in the order of the database, each at the version that is shown by default.

    That is the current version if it has submissions, else the newest version that has some.
    Tasks without submissions are left out, unless none has any.

    Args:
        answers: Only the tasks with this kind of answers; None for all.
    """
    found = []
    for row in _rows(_TASKS, None).to_pylist():
        current, versions = row.pop("current_version"), tuple(row.pop("versions") or ())
        shown = versions[0] if versions and current not in versions else current
        if answers in (None, row["answers"]):
            found.append(TaskVersion(**row, version=shown, versions=versions))
    return [task for task in found if task.versions] or found


def metrics(task: TaskVersion) -> list[str]:
    """The metrics that have scores, first the one that ranks the task, which is always there."""
    query = (
        "SELECT metric FROM metrics WHERE task = $task AND (is_primary OR metric IN "
        "(SELECT metric FROM unit_scores JOIN runs USING (number, task) "
        "WHERE task = $task AND version = $version)) ORDER BY is_primary DESC, metric"
    )
    return ask(query, task.bound)["metric"].tolist()


def like(words: str) -> str:
    """A pattern for `ILIKE ... ESCAPE '!'` that matches the words literally."""
    for special in "!%_":
        words = words.replace(special, "!" + special)
    return f"%{words}%"


def describe(frame: pd.DataFrame) -> None:
    """Add the columns `label` and `group` of the charts to rows that each show one unit."""
    frame["label"] = unit_labels(frame)
    placed = zip(frame["setting"], frame["aligned"], frame["ranked"], strict=True)
    frame["group"] = [group(*one) for one in placed]


def group(setting: object, aligned: bool, ranked: bool) -> str:
    """The group of a unit in a chart; `aligned` depends on the adapter and precedes the setting.

    Args:
        setting: The setting of the unit. A task without settings has None, or NaN in a frame.
        aligned: Whether the adapter was aligned on the unit's language.
        ranked: Whether the unit is in the ranked set.
    """
    if not ranked:
        return charts.BEYOND
    if aligned:
        return "aligned"
    return setting if isinstance(setting, str) else "not aligned"


def unit_labels(frame: pd.DataFrame) -> list[str]:
    """`Swahili (sw)`, `German (en-de)`."""
    pairs = zip(frame["language_name"], frame["unit"], strict=True)
    return [f"{name} ({unit})" for name, unit in pairs]
