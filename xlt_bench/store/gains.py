"""Computes the gain of each submission over its default baseline, by paired bootstrap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from xlt_bench.evaluation.score import ByUnit, question
from xlt_bench.metrics.paired import Gain, Replicates, replicates
from xlt_bench.metrics.significance import Counts
from xlt_bench.store.rows import Entry
from xlt_bench.submissions.compare import compare_means, compare_units
from xlt_bench.submissions.counts import read_counts
from xlt_bench.submissions.schema import COUNTS
from xlt_bench.tasks.registry import get_task, tasks

_TOGETHER = 64  # pairs of submissions that are resampled together, with the same draws
Drawn = dict[tuple[str, str], dict[str, Replicates]]
"""Replicates by task and metric, by unit."""


def gain_rows(entries: Sequence[Entry]) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Compute the rows of the tables `unit_gains` and `mean_gains`.

    Args:
        entries: All submissions, with `baseline` filled in.

    Yields:
        Rows by table, for up to _TOGETHER submissions at a time.
    """
    pairs = [(entries[e.row["baseline"]], e) for e in entries if e.row["baseline"] is not None]
    pairs = [
        (baseline, entry)
        for baseline, entry in sorted(pairs, key=lambda pair: (pair[0].number, pair[1].number))
        if baseline.row["base_model"] == entry.row["base_model"]
        and baseline.plan.limit == entry.plan.limit
    ]
    for start in range(0, len(pairs), _TOGETHER):
        some = pairs[start : start + _TOGETHER]
        drawn = _resampled({one.number: one for pair in some for one in pair})
        rows: dict[str, list[dict[str, Any]]] = {"unit_gains": [], "mean_gains": []}
        for baseline, entry in some:
            for unit_rows, mean_rows in _pair_rows(entry, baseline, drawn):
                rows["unit_gains"] += unit_rows
                rows["mean_gains"] += mean_rows
        yield rows


def _resampled(entries: dict[int, Entry]) -> dict[int, Drawn]:
    """Resample the primary metric of every task for each submission."""
    counts = {number: _tested(entry) for number, entry in entries.items()}
    drawn: dict[int, Drawn] = {number: {} for number in entries}
    for task, metric in _tested_metrics():
        names: list[tuple[int, str]] = []
        matrices: list[Counts] = []
        for number, counted in counts.items():
            for unit, matrix in counted.pop(task, {}).items():
                names.append((number, unit))
                matrices.append(matrix)
        found = replicates(matrices, get_task(task).metric(metric).score)
        for (number, unit), one in zip(names, found, strict=True):
            drawn[number].setdefault((task, metric), {})[unit] = one
    return drawn


def _tested_metrics() -> list[tuple[str, str]]:
    """The primary metric of each task."""
    return [(name, task.primary) for name, task in tasks().items()]


def _tested(entry: Entry) -> dict[str, ByUnit]:
    """Read the counts of the primary metrics, copied so that the rest of the file is freed."""
    counted = read_counts(entry.folder / COUNTS, entry.plan)
    chosen = ((task, counted.get(task, {}).get(metric, {})) for task, metric in _tested_metrics())
    return {task: {unit: m.copy() for unit, m in by_unit.items()} for task, by_unit in chosen}


def _pair_rows(
    entry: Entry, baseline: Entry, drawn: dict[int, Drawn]
) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    for (task, metric), ours in drawn[entry.number].items():
        theirs = drawn[baseline.number].get((task, metric), {})
        version = entry.plan.task_versions[task]
        same = baseline.plan.task_versions.get(task) == version
        theirs = {
            unit: one
            for unit, one in theirs.items()
            if same and _asked(entry, task, unit) == _asked(baseline, task, unit)
        }
        head = {
            "number": entry.number,
            "baseline": baseline.number,
            "task": task,
            "metric": metric,
        }
        aligned = entry.alignment_languages
        units = [
            {
                **head,
                "unit": one.unit,
                "aligned": one.aligned,
                **_interval(one.gain),
                "p_holm": one.p_holm,
                "n": one.n,
            }
            for one in compare_units(get_task(task), version, ours, theirs, aligned)
        ]
        means = [
            {**head, "split": one.split, **_interval(one.gain), "units": list(one.units)}
            for one in compare_means(get_task(task), version, ours, theirs, aligned)
        ]
        yield units, means


def _asked(entry: Entry, task: str, unit: str) -> str:
    return question(entry.plan, entry.data_digests, task, unit)


def _interval(found: Gain) -> dict[str, float]:
    return {"gain": found.value, "low": found.low, "high": found.high, "p": found.p}
