"""Builds the leaderboard's DuckDB file from a folder of submissions, and opens it.

A temporary file is written and renamed, so readers of the old file are not disturbed. Rows of
submissions that have not changed are taken from the old file. Invalid
submissions are left out and reported. A build needs no test sets: it compares scores with counts
and layers with their pairs. `submissions check` has compared the counts with the answers before.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import duckdb
import pyarrow as pa

from xlt_bench.errors import InputError
from xlt_bench.results.atomic_write import part_folder
from xlt_bench.store.baselines import Baseline, bare_retrieval, baselines
from xlt_bench.store.gains import chunks, gain_rows
from xlt_bench.store.measures import gap_rows
from xlt_bench.store.methods import methods
from xlt_bench.store.places import MeanReplicates, Means, means_of, places
from xlt_bench.store.reference import reference_rows, unit_row
from xlt_bench.store.reuse import Earlier, code_digest
from xlt_bench.store.rows import Alike, Entry, Read, Rows, Source, read_entry, relate
from xlt_bench.store.workers import MOST, cores, ordered
from xlt_bench.submissions.accepted import Register, held_among, read_register
from xlt_bench.submissions.report import Report, list_submissions, refused
from xlt_bench.submissions.schema import ID, IDENTITY, stated_system
from xlt_bench.submissions.validate import open_package
from xlt_bench.tasks.registry import get_task

SCHEMA_VERSION = 10
"""The schema of tables and views; a file of another schema must be rebuilt."""
_HERE = Path(__file__).parent
# DuckDB raises one of these if a file cannot be written, depending on when it notices; the last if
# what exceeds its memory does not fit on the disk.
_DISK_ERRORS = (
    duckdb.IOException,
    duckdb.TransactionException,
    duckdb.FatalException,
    duckdb.OutOfMemoryException,
)
_BATCH = 500  # layers of pairs that are inserted at a time
_MANY = 200  # submissions for which processes are started
_MEMORY = "500MB"  # of DuckDB, whose default is 80 % of the machine's; what takes more is on disk


@dataclass(frozen=True)
class Built:
    """The result of a build: the number of submissions in the file, and those left out.

    `refused` are the submissions that are not valid, and those held for the maintainers.
    """

    loaded: int
    refused: list[Report]


def build(submissions: Path, db: Path, *, fewer: bool = False) -> Built:
    """Build the database.

    Args:
        submissions: The folder of submissions.
        db: The file to write; it is replaced if it exists.
        fewer: Whether to replace a database that has submissions which are not in the folder.

    Raises:
        InputError: The folder is missing, submissions of the file are no longer in it (an
            interrupted pull), or the file cannot be written.
    """
    with part_folder(db) as staging:
        try:
            file, built, loaded = _build_on(db, submissions, staging)
        except _DISK_ERRORS as error:
            line = str(error).split("\n")[0]
            raise InputError(
                f"cannot write {db} ({line}): nothing was changed; free disk space, then build it "
                "again"
            ) from None
        if not fewer:
            _check_none_lost(db, built, loaded)
        file.replace(db)
    return built


def _build_on(db: Path, submissions: Path, staging: Path) -> tuple[Path, Built, set[str]]:
    """Write a new file, with rows of the earlier one unless that turns out to be damaged."""
    if db.exists():
        file = staging / "new.duckdb"
        try:
            return file, *_write(file, submissions, db)
        except duckdb.Error:
            file.unlink(missing_ok=True)
    file = staging / "fresh.duckdb"
    return file, *_write(file, submissions, None)


def _write(file: Path, submissions: Path, earlier_db: Path | None) -> tuple[Built, set[str]]:
    """Write a database; returns what was loaded, and the ids."""
    with duckdb.connect(
        file, config={"temp_directory": str(file.parent), "memory_limit": _MEMORY}
    ) as store:
        store.execute((_HERE / "schema.sql").read_text(encoding="utf-8"))
        about = {"schema_version": SCHEMA_VERSION, "code": code_digest()}
        _insert(store, {"build": [about]})
        _insert(store, reference_rows())
        earlier = Earlier(store, earlier_db)
        with TemporaryFile(dir=file.parent) as scratch:
            built = _load_submissions(store, submissions, earlier, scratch)
        earlier.close()
        loaded = {name for (name,) in store.execute("SELECT id FROM submissions").fetchall()}
        store.execute((_HERE / "views.sql").read_text(encoding="utf-8"))
        # Closing does this too, but ignores errors.
        store.execute("CHECKPOINT")
    return built, loaded


def _check_none_lost(db: Path, built: Built, loaded: set[str]) -> None:
    """Raise InputError if a database has submissions that are not loaded from the folder."""
    if not is_current(db):  # missing, or of no use to this release
        return
    try:
        with connect(db) as store:
            before = {name for (name,) in store.execute("SELECT id FROM submissions").fetchall()}
    except duckdb.Error:  # damaged
        return
    if lost := sorted(before - loaded):
        why = next((f" ({one.detail})" for one in built.refused if one.name == lost[0]), "")
        raise InputError(
            f"{db} has {len(before)} submissions, of which {len(lost)} would be lost, such as "
            f"{lost[0]}{why}: nothing was changed; complete the folder (git pull), or pass --fewer"
        )


def connect(db: Path) -> duckdb.DuckDBPyConnection:
    """Open a built file read-only, without access to other files.

    A connection keeps reading the file that it opened; open a new one after a build. (With
    `duckdb.connect(path)`, a new connection would share the old file while another is open.)

    Raises:
        InputError: The file is missing, not a leaderboard database, or of another schema.
    """
    store = _attached(db)
    try:
        version = schema_version(store)
    except duckdb.Error as error:
        store.close()
        line = str(error).split("\n")[0]
        raise InputError(f"{db} is damaged ({line}); delete it, and build it again") from None
    if version != SCHEMA_VERSION:
        store.close()
        raise InputError(
            f"{db} was built by another version of xlt-bench; build it again: "
            f"xlt-bench leaderboard build --db {db}"
        )
    # Queries of the app take megabytes; DuckDB's default limit is 80 % of the machine's memory.
    store.execute("SET memory_limit = '1GB'; SET enable_external_access = false")
    store.execute("SET lock_configuration = true")
    return store


def is_current(db: Path) -> bool:
    """Whether a file is a leaderboard database of the current schema."""
    try:
        connect(db).close()
    except InputError:
        return False
    return True


def is_leaderboard(db: Path) -> bool:
    """Whether a file is a leaderboard database of any schema."""
    try:
        _attached(db).close()
    except InputError:
        return False
    return True


def _attached(db: Path) -> duckdb.DuckDBPyConnection:
    """Open a leaderboard database of any schema read-only.

    Raises:
        InputError: The file is missing, or it is not a leaderboard database.
    """
    if not db.is_file():
        raise InputError(f"{db} is missing; build it with: xlt-bench leaderboard build --db {db}")
    # Without this setting, DuckDB reads a Python variable (`build`) in place of a missing table.
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
    """The schema of an open database; 1, which had no such table, if it does not say."""
    try:
        found = store.execute("SELECT schema_version FROM build").fetchone()
    except (duckdb.CatalogException, duckdb.BinderException):
        return 1
    return int(found[0]) if found else 1


def _units_beyond(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Rows of the evaluated units beyond the ranked sets of their task versions."""
    found = {
        (task, entry.plan.task_versions[task], unit): None
        for entry in entries
        for task, units in entry.plan.units.items()
        for unit in units
        if unit not in get_task(task).test_set(entry.plan.task_versions[task]).units
    }
    return [unit_row(get_task(task), version, unit) for task, version, unit in found]


def _submission_rows(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    bare: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.plan.adapter is None:
            bare.setdefault(entry.row["base_model"], []).append(entry)
    return [
        {**entry.row, "bare": bare_retrieval(entry, bare.get(entry.row["base_model"], []))}
        for entry in entries
    ]


def _insert(store: duckdb.DuckDBPyConnection, rows: dict[str, Any]) -> None:
    """Insert rows by table, matching columns by name."""
    for table, given in rows.items():
        incoming = given if isinstance(given, pa.Table) else pa.Table.from_pylist(given)
        if incoming.num_rows:
            store.register("incoming", incoming)
            store.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
            store.unregister("incoming")


def _left_out_row(report: Report) -> dict[str, str]:
    return {"name": report.name, "state": report.state, "detail": report.detail}


def _held(paths: Sequence[Path], register: Register) -> dict[str, str]:
    """Why submissions are held, by id. Only systems with several submissions are opened."""
    by_system: dict[str, list[Path]] = {}
    for path in paths:
        if ID.fullmatch(path.name):
            by_system.setdefault(stated_system(path.name), []).append(path)
    reasons: dict[str, str] = {}
    for same in by_system.values():
        if len(same) > 1:
            packages = []
            for path in same:
                with suppress(InputError, OSError):  # reported when it is loaded
                    packages.append(open_package(path))
            reasons |= held_among(packages, register)
    return reasons


def _processes(calls: int) -> int:
    """Into how many processes some work is divided: few submissions are not worth starting any."""
    return min(cores(), MOST) if calls >= _MANY else 1


def _gains(
    work: tuple[dict[int, Entry], list[Baseline]],
) -> tuple[dict[str, list[dict[str, Any]]], dict[int, Means]]:
    """Rows of the tables of gains by table, and the means by which submissions are ranked."""
    entries, some = work
    rows, drawn = gain_rows(entries, some)
    return rows, {number: means_of(entries[number], found) for number, found in drawn.items()}


def _source(path: Path, register: Register, earlier: Earlier) -> Source:
    name = path.name
    return Source(path, register.age(name), name in register.places, earlier.fingerprint(name))


def _read_submissions(
    store: duckdb.DuckDBPyConnection, folder: Path, earlier: Earlier
) -> tuple[list[Entry], list[Report]]:
    """Insert what is computed from each submission alone; returns the valid ones and the others."""
    entries: list[Entry] = []
    left_out: list[Report] = []
    seen: dict[str, str] = {}
    batch, alike, register = Rows(), Alike(), read_register(folder)
    paths = list_submissions([folder])
    reasons = _held(paths, register)
    sources = [_source(path, register, earlier) for path in paths if path.name not in reasons]
    with closing(ordered(read_entry, sources, _processes(len(sources)))) as read:
        for path in paths:
            if path.name in reasons:
                left_out.append(Report(path.name, "held", reasons[path.name]))
                continue
            found = next(read)
            if other := seen.get(path.name[-IDENTITY:]):
                found = InputError(f"the same system and answers are already submitted as {other}")
            if not isinstance(found, Read):
                if not path.parent.is_dir():
                    raise InputError(
                        f"{path.parent} disappeared during the build; nothing was changed, build "
                        "again"
                    )
                left_out.append(refused(path, found))
                continue
            number = len(entries)
            entries.append(alike.shared(found.entry).numbered(number))
            row = {"number": number, "id": path.name, "fingerprint": found.fingerprint}
            batch.add("sources", [row])
            if found.rows is None:
                earlier.take(path.name, number)
            else:
                batch.take(found.rows, number)
            seen[path.name[-IDENTITY:]] = path.name
            if len(batch.pairs) >= _BATCH:
                _insert(store, batch.tables())
                batch = Rows()
    _insert(store, batch.tables())
    earlier.copy_rows()
    return entries, left_out


def _load_submissions(
    store: duckdb.DuckDBPyConnection, folder: Path, earlier: Earlier, scratch: IO[bytes]
) -> Built:
    entries, left_out = _read_submissions(store, folder, earlier)
    related = relate(entries)
    chosen = baselines(related)
    _insert(
        store,
        {
            "left_out": [_left_out_row(one) for one in left_out],
            "units": _units_beyond(entries),
            "methods": methods(related),
            "submissions": _submission_rows(related),
            "runs": [run for one in related for run in one.runs],
            "task_baselines": [vars(one) for one in chosen],
        },
    )
    kept = earlier.unchanged_methods(related, chosen)
    earlier.copy_gains(kept)
    changed = [one for one in chosen if related[one.number].trained.method not in kept]
    means = MeanReplicates(related, scratch)
    work = [
        ({n: related[n] for one in some for n in (one.number, one.baseline)}, some)
        for some in chunks(related, changed)
    ]
    with closing(ordered(_gains, work, _processes(len(changed)))) as found:
        for rows, of_submissions in found:
            _insert(store, rows)
            means.keep(of_submissions)
    _insert(store, {"gaps": gap_rows(related, chosen)})
    for rows in places(related, means, earlier.place_tests):
        _insert(store, rows)
    return Built(len(entries), left_out)
