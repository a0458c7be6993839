"""`xlt-bench leaderboard build`: all submissions into one DuckDB file.

The file is written beside and renamed: who reads the old one goes on reading it. What is refused is
left out and reported. Without the test sets nothing can be scored from answers here (that is what
`submissions check` did before a submission was accepted); but every score must be that of the
submission's own counts, every layer the mean of its pairs, and every claim of form must hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pyarrow import csv

from xlt_bench.errors import InputError
from xlt_bench.languages import LANGUAGES
from xlt_bench.results.atomic_write import part_folder
from xlt_bench.store.gains import gain_rows
from xlt_bench.store.rows import Entry, Rows, read_entry, relate
from xlt_bench.submissions.report import Report, folders, refused
from xlt_bench.submissions.schema import IDENTITY
from xlt_bench.tasks.base import Task, TextTask
from xlt_bench.tasks.registry import get_task, tasks

SCHEMA_VERSION = 2
"""Of the database's tables and views; a file of another one is built again."""
_HERE = Path(__file__).parent
# What DuckDB raises where a file cannot be written, by the moment at which it finds out.
_DISK_ERRORS = (duckdb.IOException, duckdb.TransactionException, duckdb.FatalException)
_BATCH = 500  # layers of pairs that are held before they are loaded


@dataclass(frozen=True)
class Built:
    """How many submissions the file holds, and what was left out."""

    loaded: int
    refused: list[Report]


def build(submissions: Path, db: Path) -> Built:
    """Build the database from a folder of submissions. Raises InputError if there is no folder."""
    with part_folder(db) as beside:
        file = beside / "new.duckdb"
        try:
            with duckdb.connect(file, config={"temp_directory": str(beside)}) as store:
                store.execute((_HERE / "schema.sql").read_text(encoding="utf-8"))
                _insert(store, {"build": [{"schema_version": SCHEMA_VERSION}]})
                _load_tables(store)
                built = _load_submissions(store, submissions)
                store.execute((_HERE / "views.sql").read_text(encoding="utf-8"))
                # Closing would do so too, and say nothing where it fails.
                store.execute("CHECKPOINT")
        except _DISK_ERRORS as error:
            line = str(error).split("\n")[0]
            raise InputError(
                f"{db} cannot be written ({line}); nothing was changed: with room on the disk, "
                "build it again"
            ) from None
        file.replace(db)
    return built


def connect(db: Path) -> duckdb.DuckDBPyConnection:
    """Read a built file: views by their names, nothing else within reach.

    A connection stays with the file that it opened; after the next build a new one sees the new
    rows (`duckdb.connect(path)` would share the old file as long as a connection to it is open).
    Raises InputError if there is no such file.
    """
    store = _attached(db)
    if schema_version(store) != SCHEMA_VERSION:
        store.close()
        raise InputError(
            f"{db} was built by another version of xlt-bench; build it again: "
            f"xlt-bench leaderboard build --db {db}"
        )
    # A page's questions take megabytes; the default is four fifths of the machine's memory.
    store.execute("SET memory_limit = '1GB'; SET enable_external_access = false")
    store.execute("SET lock_configuration = true")
    return store


def is_current(db: Path) -> bool:
    """Whether a file is a database of this version, which `connect` takes."""
    try:
        connect(db).close()
    except InputError:
        return False
    return True


def is_leaderboard(db: Path) -> bool:
    """Whether a file is a leaderboard database of any version, which may be built again."""
    try:
        _attached(db).close()
    except InputError:
        return False
    return True


def _attached(db: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection to a leaderboard database of any version.

    Raises:
        InputError: The file is missing, or it is not a leaderboard database.
    """
    if not db.is_file():
        raise InputError(f"{db} is missing; make it with: xlt-bench leaderboard build --db {db}")
    # Without this setting, DuckDB takes a Python variable (`build`) for a table that is missing.
    store = duckdb.connect(":memory:", config={"python_enable_replacements": False})
    try:
        path = str(db.resolve()).replace("'", "''")
        store.execute(f"ATTACH '{path}' AS leaderboard (READ_ONLY); USE leaderboard")
        if not {("submissions",), ("unit_scores",)} <= set(store.execute("SHOW TABLES").fetchall()):
            raise duckdb.CatalogException("it has other tables")
    except duckdb.Error as error:
        store.close()
        line = str(error).split("\n")[0]
        raise InputError(
            f"{db} is not a leaderboard database ({line}); give another file, or build it again"
        ) from None
    return store


def schema_version(store: duckdb.DuckDBPyConnection) -> int:
    """The schema of an open database; 1 before it was written down."""
    try:
        ((version,),) = store.execute("SELECT schema_version FROM build").fetchall()
    except duckdb.CatalogException:
        return 1
    return int(version)


def _load_tables(store: duckdb.DuckDBPyConnection) -> None:
    """What does not come from submissions."""
    _insert(
        store,
        {
            "languages": [
                {
                    "code": row.code,
                    "name": row.name,
                    "flores": row.flores,
                    "script": row.script,
                    "family": row.family,
                    "resource": row.resource,
                }
                for row in LANGUAGES.values()
            ],
            "tasks": [
                {
                    "task": task.name,
                    "title": task.title,
                    "place": place,
                    "answers": task.answers,
                    "item_metric": task.item_metric if isinstance(task, TextTask) else None,
                    "ranked_by": task.ranked_by,
                    "current_version": task.version,
                }
                for place, task in enumerate(tasks().values())
            ],
            "units": [
                _unit_row(task, version, unit)
                for task in tasks().values()
                for version in task.versions
                for unit in task.test_set(version).units
            ],
            "metrics": [
                {
                    "task": task.name,
                    "metric": name,
                    "is_primary": name == task.primary,
                    "higher_is_better": metric.higher_is_better,
                }
                for task in tasks().values()
                for name, metric in task.metrics.items()
            ],
        },
    )
    options = csv.ConvertOptions(
        strings_can_be_null=True, null_values=[""], true_values=["yes"], false_values=["no"]
    )
    published = csv.read_csv(_HERE / "published.csv", convert_options=options)
    _insert(store, {"published": published})


def _unit_row(task: Task, version: int, unit: str) -> dict[str, Any]:
    test_set = task.test_set(version)
    return {
        "task": task.name,
        "version": version,
        "unit": unit,
        "language": task.language_of(unit),
        "setting": test_set.setting(unit),
        "ranked": unit in test_set.units,
    }


def _units_beyond(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Rows of the units that submissions have beyond the ranked sets of their versions."""
    found = {
        (task, entry.plan.task_versions[task], unit): None
        for entry in entries
        for task, units in entry.plan.units.items()
        for unit in units
        if unit not in get_task(task).test_set(entry.plan.task_versions[task]).units
    }
    return [_unit_row(get_task(task), version, unit) for task, version, unit in found]


def _insert(store: duckdb.DuckDBPyConnection, rows: dict[str, Any]) -> None:
    """Load rows by table, in bulk, columns by their names."""
    for table, given in rows.items():
        incoming = given if isinstance(given, pa.Table) else pa.Table.from_pylist(given)
        if incoming.num_rows:
            store.register("incoming", incoming)
            store.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
            store.unregister("incoming")


def _load_submissions(store: duckdb.DuckDBPyConnection, folder: Path) -> Built:
    entries: list[Entry] = []
    left_out: list[Report] = []
    seen: dict[str, str] = {}
    batch = Rows()
    for path in folders([folder]):
        try:
            if other := seen.get(path.name[-IDENTITY:]):
                raise InputError(f"the same answers of the same system are there already: {other}")
            entries.append(read_entry(path, len(entries), batch))
            seen[path.name[-IDENTITY:]] = path.name
        except (InputError, OSError) as error:
            if not path.parent.is_dir():
                raise InputError(
                    f"{path.parent} vanished while it was read; nothing was changed, build again"
                ) from None
            left_out.append(refused(path, error))
        if len(batch.pairs) >= _BATCH:
            _insert(store, batch.tables())
            batch = Rows()
    _insert(store, batch.tables())
    related = relate(entries)
    _insert(store, {"units": _units_beyond(entries)})
    _insert(store, {"submissions": [one.row for one in related]})
    for gains in gain_rows(related):
        _insert(store, gains)
    return Built(len(entries), left_out)
