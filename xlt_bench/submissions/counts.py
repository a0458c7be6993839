"""counts.parquet: what each item adds to each score of a submission.

A row is a task, a unit and a metric; `counts` lists its items' counts, `width` numbers an item. The
file is derived: a check computes it again from answers and references. With it, significance can be
tested between any two submissions without the data sets.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xlt_bench.errors import InputError
from xlt_bench.evaluation.score import CUT_OFF, ByUnit, score_function
from xlt_bench.languages import FAMILIES, Family
from xlt_bench.metrics.entities import f1
from xlt_bench.metrics.significance import Counts, Score, percent
from xlt_bench.metrics.translation import bleu, chrf
from xlt_bench.results.record import Plan
from xlt_bench.results.run_folder import write_bytes
from xlt_bench.submissions.safe_read import MAX_ITEMS, read_parquet
from xlt_bench.tasks import TEXT
from xlt_bench.tasks.base import RETRIEVAL

# How many counts an item has, by what scores them.
WIDTHS: dict[Score, int] = {f1: 3, percent: 2, bleu: 10, chrf: 24}
MAX_ROWS = 1_000
MAX_COUNTS = 10_000_000  # the whole benchmark has a quarter of that
Tasks = dict[Family, dict[str, ByUnit]]
SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("unit", pa.string()),
        ("metric", pa.string()),
        ("width", pa.int32()),
        ("counts", pa.list_(pa.int32())),
    ]
)


def metrics(task: Family) -> list[str]:
    """Every metric that a task can have, the one that ranks first."""
    if task == "flores":
        return [RETRIEVAL]
    primary = TEXT[task].PRIMARY
    return [primary, *(m for m in TEXT[task].METRICS if m != primary), CUT_OFF]


def width(task: Family, metric: str) -> int:
    """How many counts an item has under a metric."""
    return WIDTHS[score_function(task, metric)]


def write_counts(path: Path, tasks: Tasks) -> None:
    """Store the counts, integers, item by item."""
    rows = [
        {
            "task": task,
            "unit": unit,
            "metric": metric,
            "width": counts.shape[1],
            "counts": counts.astype(np.int32).ravel(),
        }
        for task, by_metric in tasks.items()
        for metric, by_unit in by_metric.items()
        for unit, counts in by_unit.items()
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())


def read_counts(path: Path, plan: Plan) -> Tasks:
    """The counts of exactly the planned units. Raises InputError for anything else."""
    table = read_parquet(path, SCHEMA, MAX_ROWS, MAX_COUNTS)
    tasks: Tasks = {}
    columns = [table.column(name).to_pylist() for name in SCHEMA.names[:4]]
    cells = table.column("counts")
    for place, (task, unit, metric, wide) in enumerate(zip(*columns, strict=True)):
        where = f"{path.name}: {task} {unit} {metric}"
        if task not in FAMILIES or metric not in metrics(task):
            raise InputError(f"{where}: there is no such score")
        if unit not in plan.units.get(task, []):
            raise InputError(f"{where}: was not planned")
        if wide != width(task, metric):
            raise InputError(f"{where}: {wide} counts an item, {width(task, metric)} expected")
        by_unit = tasks.setdefault(task, {}).setdefault(metric, {})
        if unit in by_unit:
            raise InputError(f"{where} occurs twice")
        by_unit[unit] = _matrix(cells[place], wide, where)
    for task, names in plan.units.items():
        primary = metrics(task)[0]
        scored = tasks.get(task, {}).get(primary, {})
        even = task != "flores" or any(layer % 2 == 0 for layer in plan.layers)
        if unscored := [unit for unit in names if unit not in scored and even]:
            raise InputError(f"{path.name}: {task} {unscored[0]} {primary} is missing")
    return tasks


def _matrix(cell: pa.ListScalar, wide: int, where: str) -> Counts:
    values = cell.values
    if values is None or values.null_count or not len(values) or len(values) % wide:
        raise InputError(f"{where}: the counts are no matrix of {wide} columns")
    matrix: Counts = values.to_numpy().reshape(-1, wide)
    if matrix.min() < 0 or len(matrix) > MAX_ITEMS:
        raise InputError(f"{where}: a count is negative, or there are more than {MAX_ITEMS} items")
    return matrix
