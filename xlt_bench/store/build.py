"""`xlt-bench leaderboard build`: all submissions into one DuckDB file.

The file is written beside and renamed: who reads the old one goes on reading it. What is refused is
left out and reported. Without the test sets nothing can be scored from answers here (that is what
`submissions check` did before a submission was accepted); but every score must be that of the
submission's own counts, every layer the mean of its pairs, and every claim of form must hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pyarrow import csv

from xlt_bench.errors import InputError
from xlt_bench.languages import FAMILIES, LANGUAGES, other_side, units
from xlt_bench.results.atomic_write import part_folder
from xlt_bench.store.gains import gain_rows
from xlt_bench.store.rows import Entry, Rows, read_entry, relate
from xlt_bench.submissions.counts import metrics
from xlt_bench.submissions.rescore import Report, folders, refused
from xlt_bench.submissions.schema import IDENTITY
from xlt_bench.tasks import TEXT

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
    if not db.is_file():
        raise InputError(f"{db} is not there; make it with: xlt-bench leaderboard build --db {db}")
    store = duckdb.connect(":memory:")
    try:
        path = str(db.resolve()).replace("'", "''")
        store.execute(f"ATTACH '{path}' AS leaderboard (READ_ONLY); USE leaderboard")
    except duckdb.Error as error:
        line = str(error).split("\n")[0]
        raise InputError(f"{db} is no leaderboard ({line}); build it again") from None
    # A page's questions take megabytes; the default is four fifths of the machine's memory.
    store.execute("SET memory_limit = '1GB'; SET enable_external_access = false")
    store.execute("SET lock_configuration = true")
    return store


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
            "units": [
                {
                    "task": task,
                    "unit": unit,
                    "language": other_side(unit) if task == "wmt23" else unit,
                    "setting": setting,
                }
                for task in FAMILIES
                for unit, setting in units(task).items()
            ],
            "metrics": [
                {
                    "task": task,
                    "metric": metric,
                    "is_primary": metric == metrics(task)[0],
                    "higher_is_better": _higher_is_better(task, metric),
                }
                for task in FAMILIES
                for metric in metrics(task)
            ],
        },
    )
    options = csv.ConvertOptions(
        strings_can_be_null=True, null_values=[""], true_values=["yes"], false_values=["no"]
    )
    published = csv.read_csv(_HERE / "published.csv", convert_options=options)
    _insert(store, {"published": published})


def _higher_is_better(task: str, metric: str) -> bool:
    if task == "flores":
        return True
    return metric in TEXT[task].METRICS and bool(TEXT[task].METRICS[metric].higher_is_better)


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
    _insert(store, {"submissions": [one.row for one in related]})
    for gains in gain_rows(related):
        _insert(store, gains)
    return Built(len(entries), left_out)
