"""Exports the views as parquet or CSV, or the leaderboard as a Markdown or LaTeX page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from xlt_bench.errors import unknown
from xlt_bench.results.atomic_write import part_folder
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.results.tables import Table, csv_cell, render

FORMATS = ("parquet", "csv", "latex", "md")
VIEWS = {
    name: f"SELECT * FROM {name}"
    for name in (
        "submissions evidence left_out runs methods baselines scores split_means method_means "
        "significance gain_means transfer_measures transfer_measure_means gaps_closed "
        "relative_transfer method_gains method_gain_means layer_curves language_curves "
        "pair_accuracies transfer_points transfer_correlation alignment_measures mexa_scores "
        "transfer_predictors published"
    ).split()
} | {"gains": "SELECT * FROM gains WHERE is_default OR is_declared"}
_ROWS = 100_000  # rows per batch


def export(
    store: duckdb.DuckDBPyConnection, form: str, folder: Path, *, every: bool = False
) -> list[Path]:
    """Write one file per view (parquet, CSV), or one page (LaTeX, Markdown).

    Args:
        store: A connection of `store.build.connect`.
        form: One of `FORMATS`.
        folder: The output folder; created if it is missing.
        every: Whether the places of a page are among all systems, not the verified ones alone.

    Returns:
        The files that were written.

    Raises:
        InputError: The format is unknown.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    folder.mkdir(parents=True, exist_ok=True)
    if form in ("latex", "md"):
        path = folder / f"leaderboard.{'tex' if form == 'latex' else 'md'}"
        write_bytes(path, render(page(store, every=every), form).encode())
        return [path]
    return [_write(store, name, query, form, folder) for name, query in VIEWS.items()]


def _write(
    store: duckdb.DuckDBPyConnection, name: str, query: str, form: str, folder: Path
) -> Path:
    columns = store.execute(f"DESCRIBE {query}").fetchall()
    wanted = ", ".join(
        _words(column) if form == "csv" and "[]" in kind else column for column, kind, *_ in columns
    )
    rows = store.sql(f"SELECT {wanted} FROM ({query}) ORDER BY ALL")
    reader: Any = rows.to_arrow_reader(_ROWS)
    path = folder / f"{name}.{form}"
    with part_folder(path) as staging:
        part = staging / path.name
        writer: Any = pq.ParquetWriter if form == "parquet" else csv.CSVWriter
        with writer(part, reader.schema) as out:
            for batch in reader:
                out.write_batch(_csv_cells(batch) if form == "csv" else batch)
        part.replace(path)
    return path


def _words(column: str) -> str:
    """SQL that joins a list column with spaces, for CSV."""
    return f"array_to_string({column}, ' ') AS {column}"


def _csv_cells(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Guard the texts of a batch against CSV formulas: submitters may have written them."""

    def cells(column: pa.Array) -> pa.Array:
        if not pa.types.is_string(column.type):
            return column
        encoded = column.dictionary_encode()
        texts = [csv_cell(text) for text in encoded.dictionary.to_pylist()]
        return pa.array(texts, column.type).take(encoded.indices)

    return pa.RecordBatch.from_arrays([cells(c) for c in batch.columns], schema=batch.schema)


def page(store: duckdb.DuckDBPyConnection, *, every: bool = False) -> list[Table]:
    """Lay the leaderboard out as tables: ranked and partial systems, and published figures.

    Args:
        store: A connection of `store.build.connect`.
        every: Whether places are among all systems, not the verified ones alone.
    """
    tables: list[Table] = []
    shown = store.execute(
        "SELECT DISTINCT t.place, t.task, r.version, t.ranked_by "
        "FROM tasks t JOIN runs r USING (task) ORDER BY t.place, r.version DESC"
    ).fetchall()
    for _, *task_version in shown:
        tables += _task_tables(store, *task_version, every=every)
    published = store.execute(
        "SELECT paper_table, task, model, row, split, metric, value, note FROM published "
        "WHERE unit IS NULL"
    ).fetchall()
    columns = ["table", "task", "model", "row", "split", "metric", "value", "note"]
    rows = [["" if cell is None else str(cell) for cell in row] for row in published]
    title = "Published in the paper (arXiv 2502.14830), not computed here"
    return [*tables, Table(title, columns, rows)]


_SPLITS = ("supervised", "aligned", "transfer", "all")
_NOTE = "Unweighted means with 95 % intervals; gap is supervised minus transfer."


def _task_tables(
    store: duckdb.DuckDBPyConnection, task: str, version: int, ranked_by: str, *, every: bool
) -> Iterator[Table]:
    """Tables of the ranked and the partial systems of one version of a task."""
    columns = ["", "system", "base model", "rank", *_SPLITS, "gap", "lacks"]
    for title, complete in (("", True), (", partial: not ranked", False)):
        if rows := _systems(store, (task, version, complete), ranked_by, every=every):
            notes = [_NOTE, *([_about_places(rows, every=every)] if complete else [])]
            yield Table(f"{task} v{version}{title}", columns, rows, notes)


def _about_places(rows: list[Sequence[str]], *, every: bool) -> str:
    if every:
        return "Places are among all systems."
    if any(row[0] for row in rows):
        return "Places are among verified systems; self-reported ones have none (--all gives all)."
    return "No system is verified yet, so none has a place (--all gives places among all)."


def _systems(
    store: duckdb.DuckDBPyConnection, chosen: tuple[str, int, bool], ranked_by: str, *, every: bool
) -> list[Sequence[str]]:
    """One row per current system, ordered by the mean of the split `ranked_by`.

    `chosen` is the task, its version, and whether to show complete or partial systems.
    """
    found = store.execute(
        "SELECT m.submission, m.name, m.model, m.split, m.value, m.low, m.high, "
        f"m.{'place_all' if every else 'place'}, m.rank_class, r.lacks "
        "FROM split_means m JOIN metrics k USING (task, metric) "
        "JOIN submissions s ON s.id = m.submission JOIN runs r USING (number, task) "
        "WHERE k.is_primary AND m.current AND m.task = ? AND m.version = ? AND m.complete = ?",
        chosen,
    ).fetchall()
    systems: dict[str, dict[str, Any]] = {}
    for submission, name, model, split, *values, place, kind, lacks in found:
        one = systems.setdefault(
            submission, {"name": name, "model": model, "class": kind, "lacks": lacks}
        )
        one[split] = (*values, place)
    order = sorted(systems.values(), key=lambda one: -one.get(ranked_by, (-1.0,))[0])
    return [_row(one, ranked_by) for one in order]


def _row(one: dict[str, Any], by: str) -> list[str]:
    cells = [
        f"{one[split][0]:.1f} ({one[split][1]:.1f}–{one[split][2]:.1f})" if split in one else ""
        for split in _SPLITS
    ]
    both = "supervised" in one and "transfer" in one
    gap = f"{one['supervised'][0] - one['transfer'][0]:.1f}" if both else ""
    place = str(one[by][3] or "") if by in one else ""
    lacks = one["lacks"]
    limit = [word for word in lacks if word.startswith("limit")]
    others = len(lacks) - len(limit)
    short = ", ".join([*limit, *([f"{others} units or layers"] if others else [])])
    return [place, one["name"], one["model"], one["class"], *cells, gap, short]
