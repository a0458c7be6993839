"""Scores of a run as tables for a terminal, as rows of CSV, or as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from xlt_bench.results.record import LayerAccuracy, Mean, Score, Scores
from xlt_bench.results.tables import Cell, Column, Table
from xlt_bench.tasks import wmt23
from xlt_bench.tasks.base import Task
from xlt_bench.tasks.registry import retrieval_in, tasks
from xlt_bench.tasks.retrieval import ACCURACY, FEW_RANKED

_Means = Mapping[tuple[str, str], Mean]
_SPLITS = ("supervised", "aligned", "transfer", "all")


def score_tables(scores: Scores, title: str) -> list[Table]:
    """A table per task, of units by setting and means over exactly these, and one of layers."""
    scored = {row.task for row in scores.scores}
    found = [task for task in tasks().values() if task.name in scored]
    tables = [_task_table(scores, task, task.shown, title) for task in found]
    if any(row.metric == wmt23.COMET for row in scores.scores):
        tables.append(comet_table(scores, title))
    if scores.layers:
        layers: list[list[Cell]] = [[row.layer, interval(row)] for row in scores.layers]
        tables.append(Table("retrieval by layer", ["layer", "retrieval accuracy"], layers))
    return tables


def comet_table(scores: Scores, title: str) -> Table:
    """COMET by direction, with its means."""
    return _task_table(scores, wmt23.TASK, (wmt23.COMET,), title)


def interval(row: Score | Mean | LayerAccuracy) -> str:
    """A value with its 95 % interval."""
    return f"{row.value:.1f} ({row.low:.1f}–{row.high:.1f})"


def _task_table(scores: Scores, task: Task, metrics: Sequence[str], title: str) -> Table:
    """Values and intervals; in a narrow terminal only the first metric keeps its interval."""
    cells = {(row.unit, row.metric): row for row in scores.scores if row.task == task.name}
    # An older version of a task may lack a metric.
    scored = {metric for _, metric in cells}
    metrics = [name for name in metrics if name in scored] or metrics[:1]
    firsts = [row for row in cells.values() if row.metric == metrics[0]]
    means: _Means = {(row.split, row.metric): row for row in scores.means if row.task == task.name}
    columns: list[str | Column] = [Column("unit", wrap=True)]
    for i, metric in enumerate(metrics):
        name = metric.replace("_", " ")
        columns += [name, Column(f"95 % of {name}", drop=1) if i else "95 %"]
    rows: list[list[Cell]] = []
    for setting in ("supervised", "transfer", None):
        group = [row for row in firsts if row.setting == setting]
        for first in group:
            label = first.unit + (" *" if first.aligned else "")
            rows.append([label, *_values([cells.get((first.unit, m)) for m in metrics])])
        if group:
            rows.append([])
    for split in _SPLITS:
        found = [means.get((split, metric)) for metric in metrics]
        if mean := found[0]:
            rows.append([f"{split} ({_share(mean)})", *_values(found)])
    return Table(f"{task.name}: {title}", columns, rows, _notes(task, metrics[0], firsts, means))


def _values(found: Sequence[Score | Mean | None]) -> list[Cell]:
    """For each metric its value and its interval."""
    pairs = [
        (f"{row.value:.1f}", f"{row.low:.1f}–{row.high:.1f}") if row else ("", "") for row in found
    ]
    return [cell for pair in pairs for cell in pair]


def _share(mean: Mean) -> str:
    n = len(mean.units)
    return f"{n} of {n + len(mean.missing)}" if mean.missing else str(n)


def _notes(task: Task, metric: str, firsts: Sequence[Score], means: _Means) -> list[str]:
    aligned = " * is aligned." if any(row.aligned for row in firsts) else ""
    notes = [f"Means are over the units shown; their number is in brackets.{aligned}"]
    units = [row.unit for row in firsts]
    notes += _ceilings(task, units)
    if beyond := [unit for unit in units if unit not in task.test_set().units]:
        notes.append(f"Beyond the ranked set, and in no mean: {' '.join(beyond)}")
        pairing = retrieval_in([task.name])
        if pairing and pairing.counts_all(task.version, units):
            notes.append(f"{FEW_RANKED[0].upper()}{FEW_RANKED[1:]}.")
    whole = means.get(("all", metric))
    if whole is not None and whole.missing:
        notes.append(f"Not evaluated, and in no mean: {' '.join(whole.missing)}")
    return notes


def _ceilings(task: Task, units: Sequence[str]) -> list[str]:
    """What the gold answers themselves score: the units below 99.65 by name."""
    pinned, notes = task.test_set().units, []
    for metric in task.ceilings:
        by_unit = {unit: pinned[unit].ceilings[metric] for unit in units if unit in pinned}
        low = [f"{value:.1f} in {unit}" for unit, value in by_unit.items() if value < 99.65]
        least = min((v for v in by_unit.values() if v >= 99.65), default=100.0)
        text = ", ".join([f"at least {least:.1f}", *low])
        notes.append(f"Gold answers score {text} ({metric}, whole test sets).")
    return notes


def score_rows(scores: Scores) -> Table:
    """All scores in one long table: units, then means (`n` counts units), then layers."""
    columns = "kind task name setting aligned metric value low high n".split()
    rows: list[list[Cell]] = [
        ["unit", row.task, row.unit, row.setting, row.aligned, row.metric, *_numbers(row), row.n]
        for row in scores.scores
    ]
    rows += [
        ["mean", row.task, row.split, None, None, row.metric, *_numbers(row), len(row.units)]
        for row in scores.means
    ]
    pairing = retrieval_in(row.task for row in scores.scores)
    name = pairing.name if pairing else None
    rows += [
        ["layer", name, str(row.layer), None, None, ACCURACY, *_numbers(row), None]
        for row in scores.layers
    ]
    return Table("", columns, rows)


def score_json(scores: Scores) -> str:
    """All scores as one object, one line per unit.

    `units` holds task, unit, metric; `means` holds task, split, metric, with the number of
    `units` in the mean and how many the split has (`of`); `layers` holds the layer.
    """
    units: dict[str, Any] = {}
    for row in scores.scores:
        by_metric = units.setdefault(row.task, {}).setdefault(row.unit, {})
        by_metric[row.metric] = _named(row) | {"n": row.n}
    means: dict[str, Any] = {}
    for mean in scores.means:
        n = len(mean.units)
        by_metric = means.setdefault(mean.task, {}).setdefault(mean.split, {})
        by_metric[mean.metric] = _named(mean) | {"units": n, "of": n + len(mean.missing)}
    layers = {str(row.layer): _named(row) for row in scores.layers}
    parts = {"units": (units, 2), "means": (means, 2), "layers": (layers, 1)}
    lines = [f'"{name}": {_indented(part, depth)}' for name, (part, depth) in parts.items()]
    return "{" + ",\n".join(lines) + "}"


def _indented(value: Any, depth: int, margin: str = " ") -> str:
    """JSON with line breaks in the first `depth` levels only."""
    if not depth or not value:
        return json.dumps(value)
    lines = [
        f"{margin}{json.dumps(key)}: {_indented(inner, depth - 1, margin + ' ')}"
        for key, inner in value.items()
    ]
    return "{\n" + ",\n".join(lines) + "}"


def _numbers(row: Score | Mean | LayerAccuracy) -> tuple[float, float, float]:
    return row.value, row.low, row.high


def _named(row: Score | Mean | LayerAccuracy) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), _numbers(row), strict=True))
