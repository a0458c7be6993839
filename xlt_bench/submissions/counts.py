"""Reads and writes counts.parquet: the counts that each item adds to each score.

A row is one task, unit and metric. `counts` is the flattened (items, width) matrix of its counts.
The file is derived: a check recomputes it from answers and references. With it, any two submissions
can be tested for significance without the data sets.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xlt_bench.errors import InputError
from xlt_bench.evaluation.score import ByUnit
from xlt_bench.metrics.significance import Counts
from xlt_bench.results.migrations import RENAMED
from xlt_bench.results.record import Plan
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.submissions.safe_read import MAX_ITEMS, read_parquet
from xlt_bench.tasks.registry import get_task, tasks

MAX_ROWS = 1_000
MAX_COUNTS = 10_000_000  # the whole benchmark has a quarter of it
Tasks = dict[str, dict[str, ByUnit]]
"""Counts by task, metric and unit."""
SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("unit", pa.string()),
        ("metric", pa.string()),
        ("width", pa.int32()),
        ("counts", pa.list_(pa.int32())),
    ]
)


def write_counts(path: Path, counted: Tasks) -> None:
    """Write the counts of a submission."""
    rows = [
        {
            "task": task,
            "unit": unit,
            "metric": metric,
            "width": counts.shape[1],
            "counts": counts.astype(np.int32).ravel(),
        }
        for task, by_metric in counted.items()
        for metric, by_unit in by_metric.items()
        for unit, counts in by_unit.items()
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())


def read_counts(path: Path, plan: Plan) -> Tasks:
    """Read the counts of a submission.

    Args:
        path: The file.
        plan: The plan of the submission.

    Raises:
        InputError: The file is damaged, a planned unit is missing, or a row is not in the plan.
    """
    table = read_parquet(path, SCHEMA, MAX_ROWS, MAX_COUNTS)
    found: Tasks = {}
    columns = [table.column(name).to_pylist() for name in SCHEMA.names[:4]]
    for task, unit, metric, wide, cell in zip(*columns, _cells(table, path.name), strict=True):
        task = RENAMED.get(task, task)
        where = f"{path.name}: {task} {unit} {metric}"
        if task not in tasks() or metric not in get_task(task).metrics:
            raise InputError(f"{where}: unknown task or metric")
        if unit not in plan.units.get(task, []):
            raise InputError(f"{where} is not in the plan")
        width = get_task(task).metric(metric).width
        if wide != width:
            raise InputError(f"{where}: expected {width} counts per item, got {wide}")
        by_unit = found.setdefault(task, {}).setdefault(metric, {})
        if unit in by_unit:
            raise InputError(f"{where} occurs twice")
        by_unit[unit] = _matrix(cell, wide, where)
    for task, names in plan.units.items():
        primary = get_task(task).primary
        scored = found.get(task, {}).get(primary, {})
        text = get_task(task).answers == "text"
        even = text or any(layer % 2 == 0 for layer in plan.layers)
        if unscored := [unit for unit in names if unit not in scored and even]:
            raise InputError(f"{path.name}: {task} {unscored[0]} {primary} is missing")
    return found


def _cells(table: pa.Table, name: str) -> list[Counts]:
    """The counts of each row, not yet a matrix: views of the column."""
    column = table.column("counts").combine_chunks()
    if column.values.null_count:
        raise InputError(f"{name}: a count is missing")
    values, ends = column.values.to_numpy(), column.offsets.to_numpy()
    if values.min(initial=0) < 0:
        raise InputError(f"{name}: a count is negative")
    return [values[start:end] for start, end in pairwise(ends.tolist())]


def _matrix(cell: Counts, wide: int, where: str) -> Counts:
    if not len(cell) or len(cell) % wide:
        raise InputError(f"{where}: counts are not a matrix of {wide} columns")
    if len(cell) > wide * MAX_ITEMS:
        raise InputError(f"{where}: there are more than {MAX_ITEMS:,} items")
    return cell.reshape(-1, wide)
